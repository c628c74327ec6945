"""Memory with thousands of streams open at once, of the gateway and of a bare pass-through.

Each stream has had its first chunks and gets another every few seconds, as when models think. When
the memory has been read, the upstream ends all of them, so that every call is answered and booked.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.lanes import Lane
from bench.load import Load, Pace
from bench.processes import BenchError, Process, memory_mib
from bench.rig import Rig, Subject, started_upstream
from bench.table import Table
from bench.upstream import CLOSE_AT_ONCE
from gateway.ports.tasks import spawn

STREAMS = 5000
_UNBEGUN_MAX = 16
_OPEN_S = 120.0
_CHUNK_MS = 5000
_SPARE_FILES = 500


def run(streams: int) -> dict[str, Any]:
    """MiB of each process before and with the streams. BenchError if one was not answered."""
    _allow_files(2 * streams + _SPARE_FILES)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-bench-")))
        url, upstream = started_upstream(stack, place, "--chunk-ms", str(_CHUNK_MS))
        rig = Rig(place, (Lane("stream", url),), {})
        stack.callback(rig.stop)
        rig.start()
        prepared = rig.requests("stream", 1024, stream=True)
        found = {
            subject.name: asyncio.run(_with_streams(subject, prepared, upstream, streams))
            for subject in (rig.bare("stream"), rig.gateway())
        }
        rig.answered = streams
        return {"loop": rig.loop, "streams": streams, **found, "books": rig.check_books()}


async def _with_streams(
    subject: Subject, prepared: list[bytes], upstream: Process, streams: int
) -> dict[str, float]:
    before_mib, _ = memory_mib(subject.pids[0])
    pace = Pace(streams, _OPEN_S, requests=streams, unbegun_max=_UNBEGUN_MAX)
    load = Load("127.0.0.1", subject.port, prepared, pace)
    running = spawn(load.run(), "load")
    async with asyncio.timeout(_OPEN_S):
        await load.all_begun.wait()
    rss_mib, pss_mib = memory_mib(subject.pids[0])
    upstream.signal(CLOSE_AT_ONCE)
    outcome = await running
    if outcome.failed or outcome.answered != streams:
        raise BenchError(
            f"{subject.name}: of {streams} streams {outcome.answered} came to their end; statuses "
            f"{dict(outcome.statuses)}, {outcome.broken} broke off"
        )
    return {"before_mib": before_mib, "rss_mib": rss_mib, "pss_mib": pss_mib}


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        raise BenchError(
            f"{wanted} open files are needed and this user may have {hard}: raise the limit "
            "(ulimit -Hn), or ask for fewer streams"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def table(facts: dict[str, Any]) -> Table:
    """MiB, and KiB a stream."""
    rows = []
    for name in ("gateway", "bare"):
        found = facts[name]
        each_kib = (found["rss_mib"] - found["before_mib"]) * 1024 / facts["streams"]
        cells = (found["before_mib"], found["rss_mib"], found["pss_mib"], each_kib)
        rows.append((name, *(f"{cell:.0f}" for cell in cells)))
    columns = ("", "before, MiB", "with streams, RSS MiB", "PSS MiB", "KiB a stream")
    notes = (f"Event loop: {facts['loop']}. {facts['books']}.",)
    return Table(f"{facts['streams']:,} open streams", columns, rows, notes)
