"""A reload in one process: checked as a whole, handed on or refused, and told."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path

import pytest
import yaml

from gateway.app.arrangement import Arrangement
from gateway.app.configured import Configured
from gateway.app.jobs_work import Work
from gateway.app.reloading import Reloading
from gateway.config import Settings, load
from gateway.jobs.service import Step
from gateway.web.configuration import Refused

SHIPPED = Path(__file__).parents[3] / "config.yaml"


class Rig:
    """One process with a file of its own."""

    def __init__(self, place: Path) -> None:
        self.file = place / "config.yaml"
        self.file.write_text(SHIPPED.read_text())
        arrangement = Arrangement(load(self.file, {}), ("jobs",), {})
        self.taken: list[Settings] = []
        self.trouble: Exception | None = None
        self.configured = Configured(arrangement, self._take)
        self.reloading = Reloading(arrangement, self.configured.take)

    async def _take(self, settings: Settings) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.taken.append(settings)

    def has_told(self, line: str) -> bool:
        return line in self.reloading.render()

    def write(self, tokens: object, workers: int = 1) -> None:
        tree = yaml.safe_load(SHIPPED.read_text())
        tree["plan"]["tiers"]["free"]["tokens"] = tokens
        self.file.write_text(yaml.safe_dump(tree | {"workers": workers}))


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    for module in ("configured", "reloading"):  # the tests' own logging stays
        monkeypatch.setattr(f"gateway.app.{module}.configure_logs", lambda *_: None)
    return Rig(tmp_path)


async def test_a_good_file_is_taken_and_a_second_time_nothing_happens(rig: Rig) -> None:
    before = (await rig.configured.shown())["version"]
    rig.write(5)
    assert [await rig.reloading.once() for _ in range(2)] == ["ok", "ok"]
    assert [each.plan.tiers["free"].tokens for each in rig.taken] == [5]
    assert (await rig.configured.shown())["version"] != before


@pytest.mark.parametrize(
    ("tokens", "workers", "told"),
    [("many", 1, "plan.tiers.free.tokens: expected"), (5, 2, "restart to change workers")],
)
async def test_a_bad_one_is_refused_and_the_log_says_why(
    rig: Rig, caplog: pytest.LogCaptureFixture, tokens: object, workers: int, told: str
) -> None:
    rig.write(tokens, workers)
    with caplog.at_level(logging.ERROR):
        assert await rig.reloading.once() == "refused"
    assert told in caplog.text
    assert rig.taken == []
    rig.file.unlink()
    assert await rig.reloading.once() == "refused"


async def test_one_that_a_process_does_not_take_has_failed_and_may_be_tried_again(rig: Rig) -> None:
    rig.write(5)
    rig.trouble = Refused("not now")
    assert await rig.reloading.once() == "failed"
    rig.trouble = None
    assert await rig.reloading.once() == "ok"


async def test_reloads_are_counted_by_how_they_ended(rig: Rig) -> None:
    told = asyncio.Event()
    task = rig.reloading.start(told)
    rig.write(5)
    rig.trouble = KeyError("a fault")  # of ours, and the next reload is still heard
    for line in ('{result="failed"} 1', '{result="ok"} 1'):
        told.set()
        async with asyncio.timeout(20):
            for _ in iter(partial(rig.has_told, line), True):
                await asyncio.sleep(0)
        rig.trouble = None
    task.cancel()


class Counting:
    """A step that can be waited for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rounds = asyncio.Semaphore(0)

    async def step(self) -> float:
        self.rounds.release()
        await asyncio.sleep(0)
        return 0.0


async def test_steps_give_way_to_those_of_their_name_and_the_others_begin_or_end() -> None:
    first, gone, second, new = (Counting(name) for name in ("a", "b", "a", "c"))
    steps: list[Step] = [first, gone]
    work = Work(steps, 5.0, lambda name, store: None)
    assert await work.states() == {}
    work.start()
    async with asyncio.timeout(20):
        await first.rounds.acquire()
        await gone.rounds.acquire()
        await work.take([second, new])
        await second.rounds.acquire()
        await new.rounds.acquire()
    assert await work.states() == {"a": "ok", "c": "ok"}
    assert not work.failed.is_set()
    await work.stop()
    assert not work.failed.is_set()


async def test_a_step_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Counting):
        async def step(self) -> float:
            raise KeyError("a fault")

    failing: list[Step] = [Failing("a")]
    work = Work(failing, 5.0, lambda name, store: None)
    work.start()
    async with asyncio.timeout(20):
        await work.failed.wait()
    assert await work.states() == {"a": "failed"}
    await work.stop()
