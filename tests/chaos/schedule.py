"""What shall break, and when: a schedule drawn from a seed, and nothing but the seed.

The same seed and length give the same schedule on every machine. What is drawn is only a plan: the
world does its best to keep it and notes what it really did, and verdicts rest on those notes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

GATEWAYS = 3
_NUMBERS = range(1, GATEWAYS + 1)
_FIRST_S = 1.0  # calls are under way by then
_GAP_S = (0.2, 1.8)


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind` befalls `target` `at_s` seconds after the beginning, for `lasting_s` seconds.

    Targets: a store, `upstream`, `gateway-1` (all its processes), `proxy-1`, `jobs-1`, or the link
    by which a gateway reaches a server, `redis-1`.
    """

    at_s: float
    kind: str
    target: str
    lasting_s: float

    def __str__(self) -> str:
        return f"{self.at_s:6.2f} s  {self.kind:<10} {self.target:<11} {self.lasting_s:5.2f} s"


@dataclass(frozen=True, slots=True)
class _Sort:
    """A sort of fault: how often it comes compared with others, and how long it lasts."""

    kind: str
    targets: tuple[str, ...]
    weight: int
    lasting_s: tuple[float, float]


def _each(name: str) -> tuple[str, ...]:
    return tuple(f"{name}-{number}" for number in _NUMBERS)


_STORE_LINKS = (*_each("redis"), *_each("redis"), *_each("postgres"))
_LINKS = (*_STORE_LINKS, *_each("upstream"))
# A freeze may last longer than a lease with its grace, and so may a black hole.
_SORTS = (
    _Sort("kill", _each("gateway"), 5, (0.1, 2.0)),
    _Sort("kill", _each("proxy"), 3, (0.0, 0.0)),
    _Sort("kill", _each("jobs"), 3, (0.0, 0.0)),
    _Sort("kill", ("redis",), 3, (0.1, 2.5)),
    _Sort("kill", ("postgres",), 3, (0.1, 2.5)),
    _Sort("empty", ("redis",), 1, (0.1, 1.0)),  # killed, and its data are gone
    _Sort("freeze", _each("gateway"), 4, (0.5, 7.0)),
    _Sort("freeze", _each("jobs"), 2, (0.5, 7.0)),
    _Sort("freeze", ("redis",), 3, (0.1, 3.0)),
    _Sort("freeze", ("postgres",), 2, (0.5, 6.0)),
    _Sort("freeze", ("upstream",), 1, (0.5, 4.0)),
    _Sort("cut", _LINKS, 4, (0.0, 2.0)),
    _Sort("delay", _STORE_LINKS, 2, (0.5, 4.0)),
    _Sort("swallow", _LINKS, 3, (0.5, 6.0)),  # what goes there, for good
    _Sort("no replies", _LINKS, 3, (0.5, 6.0)),  # what comes back, for good
    _Sort("late", _STORE_LINKS, 3, (0.5, 6.0)),  # what goes there, but it arrives in the end
    _Sort("half close", _LINKS, 1, (0.0, 0.0)),
)


def parts_of(target: str) -> frozenset[str]:
    """What a fault of `target` touches: two faults of one thing at a time would undo each other."""
    name, _, number = target.partition("-")
    if name == "gateway":
        return frozenset({target, f"proxy-{number}", f"jobs-{number}"})
    return frozenset({target})


def drawn(seed: int, length_s: float) -> Sequence[Fault]:
    """The schedule of this seed, in order. All of it has begun before `length_s` is over."""
    chance = Random(seed)
    faults: list[Fault] = []
    busy_until_s: dict[str, float] = {}
    at_s = _FIRST_S + chance.uniform(0.0, _GAP_S[1])
    while at_s < length_s:
        (sort,) = chance.choices(_SORTS, [each.weight for each in _SORTS])
        fault = Fault(
            round(at_s, 2),
            sort.kind,
            chance.choice(sort.targets),
            round(chance.uniform(*sort.lasting_s), 2),
        )
        parts = parts_of(fault.target)
        if all(busy_until_s.get(part, 0.0) < at_s for part in parts):
            faults.append(fault)
            # A second more: whoever was killed must have come back before it is hit again.
            busy_until_s.update(dict.fromkeys(parts, at_s + fault.lasting_s + 1.0))
        at_s += chance.uniform(*_GAP_S)
    return faults
