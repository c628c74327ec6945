"""The product's flow and jobs in simulated worlds: a fixed set of seeds, and proof that they see.

`make simulate SEEDS=20000 SEED=5` runs others. A failure prints the line that runs it again.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from random import Random

import pytest

from tests.simulation.__main__ import report
from tests.simulation.loop import Process, StandsStill, VirtualLoop
from tests.simulation.planted import FAULTS
from tests.simulation.processes import begin
from tests.simulation.world import run_world

_SEEDS, _A_TEST = 240, 60


@pytest.mark.parametrize("first", range(1, _SEEDS, _A_TEST))
def test_every_promise_is_kept(first: int, capsys: pytest.CaptureFixture[str]) -> None:
    began_s = time.process_time()
    for seed in range(first, first + _A_TEST):
        outcome = run_world(seed)
        if outcome.broken:
            pytest.fail(report(outcome, whole=False), pytrace=False)
    with capsys.disabled():
        minutes = (time.process_time() - began_s) / 60
        print(f" [{_A_TEST / minutes:.0f} seeds a minute of a core] ", end="")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    parts, promise, seeds = FAULTS[fault]
    for seed in seeds:
        assert run_world(seed).broken == []
        if any(breach.startswith(promise) for breach in run_world(seed, parts).broken):
            return
    pytest.fail(f"none of the seeds {seeds} shows it: find others")


def test_the_same_seed_is_the_same_run_to_the_byte() -> None:
    for seed in (3, 17):
        assert run_world(seed).story() == run_world(seed).story()
    assert run_world(3).story() != run_world(17).story()


def test_another_interpreter_runs_a_seed_the_same_way() -> None:
    """Python orders sets of texts anew in each process."""
    told = "from tests.simulation.world import run_world; print(run_world(17).story())"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    found = subprocess.run(
        [sys.executable, "-c", told], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout == run_world(17).story() + "\n"


# --- the loop ----------------------------------------------------------------------------------


def test_time_jumps_to_what_comes_next() -> None:
    loop, seen = VirtualLoop(), []

    async def sleeps(seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((seconds, loop.time()))

    async def all_sleep() -> None:
        await asyncio.gather(sleeps(3600), sleeps(1), sleeps(0.001))

    began_s = time.monotonic()
    loop.run_until_complete(all_sleep())
    loop.close()
    assert seen == [(0.001, 0.001), (1, 1.0), (3600, 3600.0)]
    assert time.monotonic() - began_s < 60


def test_nothing_of_a_killed_process_runs_any_more() -> None:
    loop, process, seen = VirtualLoop(), Process("g"), list[str]()

    async def works() -> None:
        try:
            seen.append("begins")
            await asyncio.sleep(1)
            seen.append("goes on")
        finally:
            seen.append("ends")

    async def kills() -> None:
        tasks = []
        begin(process, lambda: tasks.append(loop.create_task(works())))
        await asyncio.sleep(0.5)
        process.dead = True
        await asyncio.sleep(9)
        assert seen == ["begins"]
        loop.revive()
        tasks[0].cancel()
        await asyncio.wait(tasks)

    loop.run_until_complete(kills())
    loop.close()
    assert seen == ["begins", "ends"]


def test_the_order_of_what_is_ready_is_up_to_the_seed() -> None:
    def order(seed: int | None) -> list[int]:
        loop, seen = VirtualLoop(None if seed is None else Random(seed)), list[int]()

        async def notes(number: int) -> None:
            await asyncio.sleep(1)
            seen.append(number)

        async def all_note() -> None:
            await asyncio.gather(*(notes(number) for number in range(6)))

        loop.run_until_complete(all_note())
        loop.close()
        return seen

    assert order(None) == [0, 1, 2, 3, 4, 5]
    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(20)}) > 10


def test_a_world_in_which_everybody_waits_is_told() -> None:
    loop = VirtualLoop()
    never = loop.create_future()
    with pytest.raises(StandsStill, match="everybody waits"):
        loop.run_until_complete(never)
    never.cancel()
    loop.close()
