"""One measurement: CPU time of a proxy over the requests that it answered, and their latencies."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load import Load, Outcome, Pace
from bench.loops import fastest, new_loop
from bench.processes import BenchError, cpu_s
from bench.rig import Subject
from bench.wrk import flood

# What a proxy does after its last answer (it settles) belongs to the calls.
_AFTER_S = 0.2
_WARM_CONNECTIONS, _WARM_S = 16, 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one measurement found."""

    cpu_us: float  # of the proxy, a request
    beside_us: float  # of what works for it, a request
    core: float  # how much of its core the proxy used, 0 to 1
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    answered: int


class _Clocks:
    """CPU time from its making on."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._before_s = cpu_s(subject.pids), cpu_s(subject.beside)

    def taken_s(self) -> tuple[float, float]:
        """Of the proxy, and of what works for it, until what it does has come to an end."""
        time.sleep(_AFTER_S)
        proxy_s, beside_s = self._before_s
        return cpu_s(self._subject.pids) - proxy_s, cpu_s(self._subject.beside) - beside_s


def at_pace(subject: Subject, requests: Sequence[bytes], pace: Pace) -> Reading:
    """Send with our own load. BenchError when a request failed."""
    clocks = _Clocks(subject)
    outcome = run_load(subject, requests, pace)
    taken_s, beside_s = clocks.taken_s()
    if outcome.failed or not outcome.answered:
        told = f"statuses {dict(outcome.statuses)}, {outcome.broken} without an answer"
        raise _failure(subject, outcome.answered, outcome.failed, told)
    latencies_ms = sorted(1000 * each for each in outcome.latencies_s)
    return Reading(
        cpu_us=taken_s / outcome.answered * 1e6,
        beside_us=beside_s / outcome.answered * 1e6,
        core=taken_s / outcome.seconds,
        requests_per_s=outcome.answered / outcome.seconds,
        p50_ms=statistics.median(latencies_ms),
        p99_ms=latencies_ms[int(len(latencies_ms) * 0.99)],
        answered=outcome.answered,
    )


@dataclass(frozen=True, slots=True)
class Storm:
    """What wrk sends. `failing`: the share of requests that may be refused, 0 to 1."""

    file: Path
    connections: int
    seconds: int
    failing: float = 0.0


def at_saturation(subject: Subject, storm: Storm) -> Reading:
    """Send with wrk. BenchError when more requests failed than may."""
    clocks = _Clocks(subject)
    done = flood(subject.port, storm.file, storm.connections, storm.seconds)
    taken_s, beside_s = clocks.taken_s()
    if done.failed > storm.failing * done.answered or not done.answered:
        raise _failure(subject, done.answered, done.failed, "wrk tells no more")
    # What wrk breaks off at its end, one request a connection, was worked on to its end as well.
    worked_on = done.answered + done.cut_max
    return Reading(
        cpu_us=taken_s / worked_on * 1e6,
        beside_us=beside_s / worked_on * 1e6,
        core=taken_s / done.seconds,
        requests_per_s=done.answered / done.seconds,
        p50_ms=done.p50_ms,
        p99_ms=done.p99_ms,
        answered=done.answered,
    )


def warm(subject: Subject, requests: Sequence[bytes], connections: int) -> int:
    """First calls, which open connections and bring accounts into Redis: how many were answered.

    A failure is let pass here.
    """
    pace = Pace(min(_WARM_CONNECTIONS, connections), _WARM_S, requests=len(requests))
    return run_load(subject, requests, pace).answered


def run_load(subject: Subject, requests: Sequence[bytes], pace: Pace) -> Outcome:
    """Our own load against the subject, whatever comes of it."""
    with asyncio.Runner(loop_factory=lambda: new_loop(fastest())) as runner:
        return runner.run(_run(subject, requests, pace))


async def _run(subject: Subject, requests: Sequence[bytes], pace: Pace) -> Outcome:
    return await Load("127.0.0.1", subject.port, requests, pace).run()


def _failure(subject: Subject, answered: int, failed: int, more: str) -> BenchError:
    total = answered + failed
    return BenchError(f"{subject.name}: {failed} of {total} requests failed ({more})")
