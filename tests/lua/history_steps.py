"""What may happen in a history, how often, and how wrong it may be.

A step is the name of a method of `Histories` and its arguments; calls and their endings are what
there is most of. Nothing here knows a server: where a step is not possible, nothing happens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st

from gateway.core.event import UsageEvent, encode_event
from gateway.core.quota.reserve import Limits, ReserveAsk
from gateway.core.quota.settle import SettleKind
from gateway.core.quota.shard import Call, Name
from tests.lua.history_ledger import DAY_MS

MONTH_MS = 30 * DAY_MS
BEGIN_MS = 60 * MONTH_MS * 11
LEASE_MS, GRACE_MS, QUIET_MS = 60_000, 10_000, 5_000
CALLERS: tuple[Name, ...] = (("ann", None), ("bob", None), ("team", "mia"), ("team", "max"))
NAMES: tuple[Name, ...] = (*CALLERS, ("team", None))
TIER = "full"
KINDS: list[SettleKind] = ["settle", "settle", "settle", "release", "expire"]


@dataclass(frozen=True)
class Amounts:
    """What a call asks for."""

    prompt: int
    outputs: tuple[int, int]
    choices: int
    prices: tuple[int, int]


@dataclass(frozen=True)
class Known:
    """A call as its gateway knows it: what it asked for, and where it was held. `held_epoch` is
    the newest one in which it was held, or said to be open."""

    ask: ReserveAsk
    epoch: int
    period_ms: int
    held_epoch: int = 0

    @property
    def call(self) -> Call:
        return self.ask.payer, self.ask.rid


def event_json(known: Known, charge: int) -> bytes:
    """What a gateway tells the ledger of a call's end."""
    ask = known.ask
    return encode_event(
        UsageEvent(
            event_id=ask.rid, payer=ask.payer, user_id=ask.member or ask.payer, tier=TIER,
            route="chat", model="m", price_id="p", charged_tokens=charge,
            cost_nano_gbp=2 * charge, quality="measured", outcome="done",
        )
    )  # fmt: skip


NONE_OFTEN = [None] * 6
all_limits = st.builds(
    Limits,
    tokens=st.sampled_from([0, 10, 20, 20, 40, 40, 500]),
    member_tokens=st.sampled_from([*NONE_OFTEN, 0, 9, 30, 30]),
    nano_gbp=st.sampled_from([*NONE_OFTEN, 1, 30, 90, 200]),
    requests_a_minute=st.sampled_from([*NONE_OFTEN, 0, 1, 3]),
    tokens_a_minute=st.sampled_from([*NONE_OFTEN, 5, 40, 40]),
    concurrent=st.sampled_from([*NONE_OFTEN, 0, 1, 3]),
    tier_period_start_ms=st.sampled_from([*NONE_OFTEN, BEGIN_MS, BEGIN_MS, BEGIN_MS + MONTH_MS]),
    shadow=st.sampled_from([False] * 5 + [True]),
)
# Small figures, so that limits are met to the token.
amounts = st.builds(
    Amounts,
    prompt=st.integers(0, 9),
    outputs=st.tuples(st.integers(0, 6), st.integers(0, 12)),
    choices=st.sampled_from([1, 1, 2, 3]),
    prices=st.tuples(st.integers(0, 9), st.integers(0, 3)),
)
OPEN_PICKS = 5
picks = st.integers(0, OPEN_PICKS + 3)
charges = st.integers(0, 12) | st.integers(0, 50)
names = st.sampled_from(NAMES)
RIGHT = [""] * 7  # how wrong a step is, which mostly it is not

Step = tuple[str, dict[str, Any]]
"""A method of `Histories` and its arguments."""


_WEIGHTS: dict[str, int] = {}
_ARGUMENTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {}


def _may(weight: int, step: str, **arguments: st.SearchStrategy[Any]) -> None:
    """This step may happen, so often."""
    _WEIGHTS[step], _ARGUMENTS[step] = weight, st.fixed_dictionaries(arguments)


# fmt: off
_may(26, "reserves", name=st.sampled_from(CALLERS), wants=amounts, limits=all_limits,
     wrong=st.sampled_from([*RIGHT, *RIGHT, "rev", "last", "next", "moved"]))
_may(3, "only_asks", name=st.sampled_from(CALLERS), wants=amounts, limits=all_limits)
_may(3, "asks_again", pick=picks)
_may(3, "asks_for_all_there_is", name=st.sampled_from(CALLERS[:2]))
_may(2, "asks_while_time_goes_back", name=st.sampled_from(CALLERS), wants=amounts)
_may(22, "ends", pick=picks, charge=charges, kind=st.sampled_from(KINDS),
     wrong=st.sampled_from([*RIGHT, "older", "newer", "period", "thresholds"]))
_may(3, "ends_unheld", pick=picks, charge=charges, times=st.sampled_from([1, 2]))
_may(4, "lapses", pick=picks, charge=charges)
_may(3, "extends", pick=picks, progress=charges, lease_ms=st.sampled_from([1, LEASE_MS]))
_may(4, "asserts_again", pick=picks, progress=charges,
     wrong=st.sampled_from([*RIGHT, "older", "newer"]))
_may(4, "time_passes", ms=st.sampled_from([1, 700, 20_000, 61_000, DAY_MS, -1, -4_000]))
_may(2, "a_month_ends", early_ms=st.sampled_from([0, 0, 1, 1_000]),
     months=st.sampled_from([0, 0, 0, 1]))
_may(2, "endings_are_forgotten")
_may(8, "the_ledger_changes", name=names, amount=st.integers(-30, 60),
     change=st.sampled_from(["adjust", "grant", "grant", "refund", "nothing"]),
     days=st.sampled_from([0, 1, 20, 50]), is_projected=st.sampled_from([True, True, False]))
_may(3, "projects", pick=picks, wrong=st.sampled_from([*RIGHT, "next", "last", "moved"]))
_may(1, "begins", name=names)
_may(1, "finishes", pick=picks, reads_again=st.booleans())
_may(6, "brings", wanted=st.sampled_from([NAMES, NAMES, NAMES[:1], NAMES[2:]]))
_may(3, "drains")
_may(2, "takes_back_again", pick=picks)
_may(4, "is_lost",
     how=st.sampled_from([*["epoch"] * 4, "all", "all drained", "unopened"]),
     awaited=st.sampled_from([[], [], [], [], ["g1"], ["g1", "g2"]]),
     brings=st.sampled_from(
         ["at once", "overtaken", "after a repetition", "with what is open", ""]))
_may(3, "has_caught_up", gateway_id=st.sampled_from(["g1", "g2", "g3"]),
     behind=st.sampled_from([0, 0, 1]))
_may(1, "opens_too_late", behind=st.integers(0, 2))
_may(2, "forgets", name=names)
_may(6, "a_share_is_handed_out", share=st.sampled_from([0, 20, 20, 200]),
     wrong=st.sampled_from([*RIGHT, "round", "epoch", "period", "unread", "looks"]))
_may(2, "looks", name=names)
# fmt: on

steps: st.SearchStrategy[Step] = st.sampled_from(
    [step for step, weight in _WEIGHTS.items() for _ in range(weight)]
).flatmap(lambda step: st.tuples(st.just(step), _ARGUMENTS[step]))
