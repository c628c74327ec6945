"""CPU time a request: the gateway and a bare pass-through in turn, round by round.

The ratio is taken within each round, since a machine with other work to do changes its speed from
one to the next; what is told is the median of the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.load import Pace
from bench.measure import Reading, Storm, at_pace, at_saturation, warm
from bench.rig import Rig, Subject, comparison, whole_comparison
from bench.table import Table
from bench.wrk import write_requests


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent. With a rate: so many requests a second; else as many as are answered.

    `by_wrk`: wrk sends, which costs the other core less than our own load does.
    """

    name: str
    title: str
    lane: str = "plain"
    body_bytes: int = 1024
    connections: int = 64
    rate: float | None = None
    by_wrk: bool = False

    @property
    def stream(self) -> bool:
        """True where answers are streams."""
        return self.lane == "stream"


# Near the limit one call holds all that is left, so a second one of the same user, begun before the
# first was settled, is refused. With as many users as there are it seldom comes to that.
_NEAR_REFUSED = 0.02
_STREAMS = Case("stream", "streams of 200 chunks", lane="stream", connections=32)
CASES = (
    Case("rate", "1 KB, 2,000 requests/s", rate=2000),
    Case("saturation", "1 KB, as many as are answered", by_wrk=True),
    Case("connections", "1 KB, 256 connections", connections=256, by_wrk=True),
    Case("large", "5 KB", body_bytes=5120, by_wrk=True),
    Case("tls", "1 KB, upstream under TLS", lane="tls", by_wrk=True),
    Case("near", "1 KB, users near their limit", lane="near", by_wrk=True),
    _STREAMS,
)
QUICK = (Case("plain", "1 KB, as many as are answered", connections=32), _STREAMS)


@dataclass(frozen=True, slots=True)
class Compared:
    """One case: the medians of the rounds, and the spread of their ratios."""

    case: Case
    gateway: Reading
    bare: Reading
    ratio: float  # bare / gateway: how many times cheaper the gateway is
    ratio_low: float
    ratio_high: float


Watch = Callable[[Case, str, Reading], None]
Send = Callable[[Subject], Reading]


def run(
    cases: Sequence[Case], rounds: int, seconds: float, watch: Watch, bare_loop: str = ""
) -> dict[str, Any]:
    """Measure these cases on one gateway, then compare its books. BenchError if they disagree.

    nginx and wrk are needed only where a case is not of QUICK. `bare_loop`: the opponent's event
    loop, where it is to be another than the gateway's.
    """
    with comparison() if set(cases) <= set(QUICK) else whole_comparison() as rig:
        rig.bare_loop = bare_loop
        found = [compare(rig, case, rounds, seconds, watch) for case in cases]
        return {
            "loop": rig.loop,
            "bare_loop": bare_loop or rig.loop,
            "rounds": rounds,
            "seconds": seconds,
            "books": rig.check_books(),
            "cases": [asdict(each) for each in found],
        }


def compare(rig: Rig, case: Case, rounds: int, seconds: float, watch: Watch) -> Compared:
    """Measure one case; `watch` is told of every reading."""
    prepared = rig.requests(case.lane, case.body_bytes, case.stream)
    subjects = (rig.gateway(), rig.bare(case.lane))
    rig.answered += warm(subjects[0], prepared, case.connections)
    warm(subjects[1], prepared, case.connections)
    send = _sender(rig, case, prepared, seconds)
    readings: dict[str, list[Reading]] = {"gateway": [], "bare": []}
    for number in range(rounds):
        for subject in subjects if number % 2 == 0 else subjects[::-1]:
            reading = send(subject)
            readings[subject.name].append(reading)
            watch(case, subject.name, reading)
    rig.answered += sum(reading.answered for reading in readings["gateway"])
    return compared(case, readings["gateway"], readings["bare"])


def _sender(rig: Rig, case: Case, prepared: Sequence[bytes], seconds: float) -> Send:
    if not case.by_wrk:
        pace = Pace(case.connections, seconds, case.rate)
        return lambda subject: at_pace(subject, prepared, pace)
    file = rig.place / "requests"
    write_requests(prepared, file)
    failing = _NEAR_REFUSED if case.lane == "near" else 0.0
    storm = Storm(file, case.connections, max(1, round(seconds)), failing)

    def saturate(subject: Subject) -> Reading:
        if subject.name == "gateway":
            rig.cut_max += case.connections
        return at_saturation(subject, storm)

    return saturate


def compared(case: Case, gateway: Sequence[Reading], bare: Sequence[Reading]) -> Compared:
    """The medians of rounds, and the ratios within each."""
    ratios = sorted(b.cpu_us / g.cpu_us for g, b in zip(gateway, bare, strict=True))
    return Compared(
        case, _median(gateway), _median(bare), statistics.median(ratios), ratios[0], ratios[-1]
    )


def _median(readings: Sequence[Reading]) -> Reading:
    """Of each figure the median."""

    def of(figure: str) -> float:
        return float(statistics.median(getattr(reading, figure) for reading in readings))

    return Reading(
        cpu_us=of("cpu_us"),
        beside_us=of("beside_us"),
        core=of("core"),
        requests_per_s=of("requests_per_s"),
        p50_ms=of("p50_ms"),
        p99_ms=of("p99_ms"),
        answered=sum(reading.answered for reading in readings),
    )


def table(facts: dict[str, Any]) -> Table:
    """What was found, case by case."""
    rows = []
    for each in facts["cases"]:
        gateway, bare = each["gateway"], each["bare"]
        rows.append(
            (
                each["case"]["title"],
                f"{gateway['cpu_us']:.0f}",
                f"{bare['cpu_us']:.0f}",
                f"{each['ratio']:.2f} ({each['ratio_low']:.2f}-{each['ratio_high']:.2f})",
                f"{gateway['beside_us']:.0f}",
                f"{gateway['requests_per_s']:,.0f}",
                f"{bare['requests_per_s']:,.0f}",
                f"{gateway['core']:.0%} / {bare['core']:.0%}",
            )
        )
    columns = (
        *("case", "gateway, µs a request", "bare, µs", "bare / gateway"),
        *("Redis, jobs, Postgres, µs", "gateway, requests/s", "bare, requests/s"),
        "core used",
    )
    notes = (
        f"{_loops(facts)} {facts['rounds']} rounds of {facts['seconds']:g} s "
        "in turn; medians, and of the ratio also the least and the greatest round.",
        "Where the core used is well below 100 %, the other core was full, which carries upstream, "
        "stores, jobs and load; requests/s tell then about that core.",
        f"{facts['books']}.",
    )
    return Table("CPU time a request", columns, rows, notes)


def _loops(facts: dict[str, Any]) -> str:
    loop, bare_loop = facts["loop"], facts.get("bare_loop", facts["loop"])
    if loop == bare_loop:
        return f"Event loop of both: {loop}."
    return f"Event loop of the gateway: {loop}, of the pass-through: {bare_loop}."
