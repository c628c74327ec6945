"""What happens in a run, drawn from its seed before it begins: who calls when, and what fails.

Each seed has only some of the faults, because faults hide each other. Everything ends at
`heal_s`: from then on nothing fails any more, and the world has to come to rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Literal

from tests.simulation.network import Weather

Kind = Literal[
    "whole", "whole without usage", "stream", "stream without usage", "stream breaks off",
    "stream with error", "500", "400", "429", "unreachable", "broke", "silent",
]  # fmt: skip
_KINDS: tuple[tuple[Kind, int], ...] = (
    ("whole", 8), ("whole without usage", 1), ("stream", 8), ("stream without usage", 2),
    ("stream breaks off", 2), ("stream with error", 1), ("500", 1), ("400", 1), ("429", 1),
    ("unreachable", 1), ("broke", 1), ("silent", 1),
)  # fmt: skip
_DRAWN = [kind for kind, weight in _KINDS for _ in range(weight)]
USERS = {"ada": "free", "bob": "lite", "cid": "full", "dot": "free"}
MEMBERS = {"eve": "cid"}
ALONE = ("ada", "bob", "dot")  # of teams nothing is changed: they have no commands yet
CALLS_S = 5.0


@dataclass(frozen=True, slots=True)
class CallPlan:
    """One call: from whom, through which gateway, and how its answer goes. The model writes
    `pieces` of so many characters with pauses between; `beyond` tokens are reported on top of
    that. The client leaves at its `gone_at`-th write."""

    at_s: float
    user: str
    gateway: int
    kind: Kind
    cap: int
    words: int
    pieces: tuple[int, ...]
    pause_s: float
    beyond: int
    gone_at: int | None = None

    @property
    def stream(self) -> bool:
        return self.kind.startswith("stream")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that befalls the world. `what` is one of the names that `world` knows."""

    at_s: float
    what: str
    number: int = 0
    weather: Weather | None = None


@dataclass
class Schedule:
    """A whole run."""

    gateways: int
    shuffle: bool
    begin_ms: int
    skews_ms: tuple[int, ...]
    calls: list[CallPlan] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    heal_s: float = 0.0


_DECEMBER_MS = 1_796_083_200_000  # 2026-12-01T00:00:00Z, a border of everybody's period
_FAULTS = (
    "redis loses calls", "redis doubles calls", "redis is slow", "redis freezes", "redis restarts",
    "redis goes back", "redis goes back twice", "redis is emptied", "redis is away",
    "postgres is away", "postgres loses replies", "a gateway dies", "jobs die", "operator",
)  # fmt: skip


def schedule_of(seed: int) -> Schedule:
    """The run of this seed."""
    chance = Random(seed)
    gateways = chance.choice((2, 2, 3))
    begin_ms = _DECEMBER_MS + 86_400_000 * chance.randrange(20)
    if chance.random() < 0.2:
        begin_ms = _DECEMBER_MS - chance.randrange(500, 5000)
    skews_ms = tuple(chance.choice((0, 0, 40, -40, 900)) for _ in range(gateways))
    run = Schedule(gateways, chance.random() < 0.25, begin_ms, skews_ms)
    favourite = chance.choice((*USERS, *MEMBERS))
    for _ in range(chance.randrange(15, 36)):
        run.calls.append(_call(chance, gateways, favourite))
    run.calls.sort(key=lambda call: call.at_s)
    for fault in chance.sample(_FAULTS, chance.choice((0, 1, 1, 2, 2, 3, 4))):
        run.events += _fault(chance, fault, gateways)
    run.events.sort(key=lambda event: event.at_s)
    run.heal_s = max([CALLS_S, *(event.at_s for event in run.events)]) + 0.1
    return run


def _call(chance: Random, gateways: int, favourite: str) -> CallPlan:
    kind = chance.choice(_DRAWN)
    cap = chance.choice((40, 100, 400))
    pieces = tuple(chance.randrange(1, 1 + cap // 4) for _ in range(chance.randrange(1, 5)))
    return CallPlan(
        at_s=chance.random() * CALLS_S,
        user=favourite if chance.random() < 0.5 else chance.choice((*USERS, *MEMBERS)),
        gateway=chance.randrange(gateways),
        kind=kind,
        cap=cap,
        words=chance.choice((1, 1, 20)),
        pieces=pieces,
        pause_s=chance.choice((0.005, 0.05, 0.3, 1.0, 2.5)) * (0.5 + chance.random()),
        beyond=chance.choice((0, 0, 0, 5, 300)),
        gone_at=chance.randrange(4) if chance.random() < 0.2 else None,
    )


def _fault(chance: Random, fault: str, gateways: int) -> list[Event]:
    at_s = chance.random() * CALLS_S
    until_s = at_s + chance.choice((0.2, 1.0, 3.0, 7.0)) * (0.5 + chance.random())
    share = chance.choice((0.02, 0.1, 0.3))
    store, _, trouble = fault.partition(" ")
    weathers = {
        "loses calls": Weather(lost=share, reply_lost=share),
        "doubles calls": Weather(doubled=share),
        "is slow": Weather(slow=share),
        "is away": Weather(away=True),
        "loses replies": Weather(lost=share / 2, reply_lost=share),
    }
    if trouble in weathers:
        return [
            Event(at_s, f"{store} weather", weather=weathers[trouble]),
            Event(until_s, f"{store} weather", weather=Weather()),
        ]
    if fault == "redis freezes":
        until_s = at_s + chance.choice((0.2, 1.0, 5.0)) * (0.8 + chance.random())
        return [Event(at_s, "freeze"), Event(until_s, "thaw")]
    if fault == "redis goes back":
        return _rollback(chance, at_s)
    if fault == "redis goes back twice":
        return _rollback(chance, at_s) + _rollback(chance, at_s + chance.random())
    if fault == "redis restarts":
        return [Event(at_s, "restart")]
    if fault == "redis is emptied":
        return [Event(at_s, "empty")]
    if fault == "a gateway dies":
        number = chance.randrange(gateways)
        return [Event(at_s, "kill", number), Event(until_s, "start", number)]
    if fault == "jobs die":
        return [Event(at_s, "kill jobs"), Event(until_s, "start jobs")]
    return [
        Event(chance.random() * CALLS_S, chance.choice(("tier", "pack", "adjust")), number)
        for number in range(chance.randrange(1, 4))
    ]


def _rollback(chance: Random, at_s: float) -> list[Event]:
    """Its memory of a moment ago takes over, on a machine with another clock."""
    lost_s = chance.choice((0.002, 0.02, 0.2, 1.0)) * (0.5 + chance.random())
    return [Event(at_s, "save"), Event(at_s + lost_s, "go back", chance.randrange(-400, 400))]
