"""One measurement: CPU time of a proxy over the requests that it answered, and their latencies."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.load import Load, Outcome, Pace
from bench.loops import fastest, new_loop
from bench.processes import BenchError, cpu_s

# What a proxy does after its last answer (it settles) belongs to the calls.
_AFTER_S = 0.2
_FEW_S, _MANY_S = 30.0, 0.5


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that answers requests. `pids`: whose time counts; none for a direct call."""

    name: str
    port: int
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one measurement found."""

    cpu_us: float  # a request
    cpu_share: float  # of one core, while the load ran
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    answered: int


def measure(subject: Subject, requests: Sequence[bytes], pace: Pace) -> Reading:
    """Run the load against the subject. BenchError when a request failed."""
    with asyncio.Runner(loop_factory=lambda: new_loop(fastest())) as runner:
        before_s = cpu_s(subject.pids)
        outcome = runner.run(_run(subject, requests, pace))
    time.sleep(_AFTER_S)
    taken_s = cpu_s(subject.pids) - before_s
    if outcome.failed or not outcome.answered:
        raise BenchError(
            f"{subject.name}: {outcome.failed} of {outcome.answered + outcome.failed} requests "
            f"failed: statuses {dict(outcome.statuses)}, {outcome.broken} broken off"
        )
    latencies_ms = sorted(1000 * each for each in outcome.latencies_s)
    return Reading(
        cpu_us=taken_s / outcome.answered * 1e6,
        cpu_share=taken_s / outcome.seconds,
        requests_per_s=outcome.answered / outcome.seconds,
        p50_ms=statistics.median(latencies_ms),
        p99_ms=latencies_ms[int(len(latencies_ms) * 0.99)],
        answered=outcome.answered,
    )


def warm(subject: Subject, requests: Sequence[bytes], connections: int) -> int:
    """First calls, which make connections and bring accounts into Redis, with few at a time; then
    many. Failures are let pass. How many were answered."""
    few = Pace(4, _FEW_S, requests=len(requests))
    many = Pace(connections, _MANY_S)
    with asyncio.Runner(loop_factory=lambda: new_loop(fastest())) as runner:
        return sum(runner.run(_run(subject, requests, pace)).answered for pace in (few, many))


async def _run(subject: Subject, requests: Sequence[bytes], pace: Pace) -> Outcome:
    return await Load("127.0.0.1", subject.port, requests, pace).run()
