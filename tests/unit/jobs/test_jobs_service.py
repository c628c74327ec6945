"""A service goes on after trouble of a store, and never after a fault of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from gateway.jobs.service import run_forever, stop_between_steps
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.quota_store import StoreRejected, StoreUnavailable

AWAY = StoreUnavailable("Redis is away")


class Scripted:
    """Fulfils jobs.service.Step: each step rests so long or fails so; then it stays for good."""

    name = "scripted"

    def __init__(self, *steps: float | Exception) -> None:
        self._steps = list(steps)
        self.done = asyncio.Event()

    async def step(self) -> float:
        if not self._steps:
            self.done.set()
            await asyncio.Event().wait()
        found = self._steps.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; none of them takes time."""
    made: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        made.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    return made


async def run_through(step: Scripted) -> None:
    running = asyncio.ensure_future(run_forever(step, asyncio.Lock()))
    waiting = asyncio.ensure_future(step.done.wait())
    await asyncio.wait([running, waiting], timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert step.done.is_set()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_step_rests_as_long_as_it_says(pauses: list[float]) -> None:
    await run_through(Scripted(1.5, 0.0, 2.0))
    assert pauses == [1.5, 2.0]


async def test_trouble_of_a_store_is_waited_out_with_growing_pauses(pauses: list[float]) -> None:
    trouble = [AWAY, LedgerUnavailable("Postgres is away")] * 4
    await run_through(Scripted(*trouble, 7.0))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 7.0]


async def test_after_a_success_the_next_trouble_begins_with_a_short_pause(
    pauses: list[float],
) -> None:
    await run_through(Scripted(AWAY, AWAY, 0.0, AWAY))
    assert pauses == [0.1, 0.2, 0.1]


async def test_who_waits_for_which_store_is_told_and_that_it_goes_on(pauses: list[float]) -> None:
    told: list[tuple[str, str | None]] = []
    step = Scripted(AWAY, LedgerUnavailable("Postgres is away"), 7.0)
    running = asyncio.ensure_future(
        run_forever(step, asyncio.Lock(), lambda *who: told.append(who))
    )
    await step.done.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert told == [("scripted", "redis"), ("scripted", "ledger"), ("scripted", None)]


async def test_trouble_is_logged_once_and_its_end_once(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "gateway.jobs"):
        await run_through(Scripted(AWAY, AWAY, AWAY, 0.0, 0.0))
    assert [record.getMessage() for record in caplog.records] == [
        "scripted waits for a store: Redis is away",
        "scripted goes on",
    ]
    assert len(pauses) == 3


async def test_a_cancellation_that_a_step_loses_still_ends_the_service() -> None:
    class Deaf:
        name = "deaf"

        def __init__(self) -> None:
            self.begun = asyncio.Event()
            self.steps = 0

        async def step(self) -> float:
            self.steps += 1
            self.begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return 0.0

    deaf = Deaf()
    running = asyncio.ensure_future(run_forever(deaf, asyncio.Lock()))
    await asyncio.wait_for(deaf.begun.wait(), 10)
    running.cancel()
    await asyncio.wait([running], timeout=10)
    assert running.cancelled()
    assert deaf.steps == 1


class Slow:
    """A step that ends when it is let go, and notes whether it did."""

    name = "slow"

    def __init__(self) -> None:
        self.begun, self.let_go = asyncio.Event(), asyncio.Event()
        self.finished = 0

    async def step(self) -> float:
        self.begun.set()
        await self.let_go.wait()
        self.finished += 1
        return 100.0


async def test_a_service_is_stopped_between_its_steps() -> None:
    slow, turn = Slow(), asyncio.Lock()
    running = asyncio.ensure_future(run_forever(slow, turn))
    await asyncio.wait_for(slow.begun.wait(), 10)
    stopping = asyncio.ensure_future(stop_between_steps(running, turn, 10))
    await asyncio.sleep(0)
    assert not running.done()
    slow.let_go.set()
    await asyncio.wait_for(stopping, 10)
    assert running.cancelled()
    assert slow.finished == 1


async def test_a_step_without_end_is_stopped_all_the_same() -> None:
    slow, turn = Slow(), asyncio.Lock()
    running = asyncio.ensure_future(run_forever(slow, turn))
    await asyncio.wait_for(slow.begun.wait(), 10)
    await asyncio.wait_for(stop_between_steps(running, turn, 0.01), 10)
    assert running.cancelled()
    assert slow.finished == 0


@pytest.mark.parametrize("fault", [KeyError("a fault"), StoreRejected("a fault")])
async def test_a_fault_that_is_no_store_s_ends_the_service(fault: Exception) -> None:
    with pytest.raises(type(fault)):
        await asyncio.wait_for(run_forever(Scripted(0.0, fault), asyncio.Lock()), 10)
