"""The rhythm of a replay, on a clock that stands still until somebody sleeps."""

from __future__ import annotations

import pytest

from gateway.replay.pace import Pace


class StillClock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep_s(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.mark.parametrize(("speed", "slept"), [(1.0, [30.0, 60.0]), (60.0, [0.5, 1.0])])
async def test_rows_are_sent_in_the_rhythm_of_the_trace(speed: float, slept: list[float]) -> None:
    clock = StillClock()
    pace = Pace(speed, clock.monotonic_s, clock.sleep_s)
    for at_s in (0.0, 30.0, 90.0):
        await pace.due(at_s)
    assert clock.slept == slept
    assert pace.behind_s == 0


async def test_a_late_row_is_sent_at_once_and_the_rhythm_is_kept() -> None:
    clock = StillClock()
    pace = Pace(1.0, clock.monotonic_s, clock.sleep_s)
    await pace.due(0.0)
    clock.now_s += 25
    await pace.due(10.0)
    await pace.due(-5.0)
    await pace.due(40.0)
    assert clock.slept == [15.0]
    assert pace.behind_s == 30


async def test_at_full_speed_nothing_waits() -> None:
    clock = StillClock()
    pace = Pace(0.0, clock.monotonic_s, clock.sleep_s)
    for at_s in (0.0, 3600.0):
        await pace.due(at_s)
    assert clock.slept == []
