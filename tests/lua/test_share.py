"""Shares of a capped tier: rounds, epochs, what earlier epochs settled; and shadow tiers."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from redis.exceptions import ResponseError

from tests.lua.script_calls import DAY_MS, ENDS_MS, NOW_MS, STARTS_MS, Lua, Value


class Stands(NamedTuple):
    """What share answers."""

    code: int
    epoch: int
    share: int
    settled: int
    held: int
    stream_id: str
    now: int


def share(lua: Lua, **changes: Value) -> Stands:
    return Stands(*lua.run("share", **changes))


@pytest.fixture
def lua(bare: Lua) -> Lua:
    bare.open()
    bare.bring()
    return bare


def given(lua: Lua, tokens: int, **changes: Value) -> Stands:
    return share(lua, epoch=1, earlier=0, wanted=tokens, **changes)


def test_a_share_is_what_calls_of_the_tier_may_hold(lua: Lua) -> None:
    assert lua.reserve("early", tier_starts=STARTS_MS).code == -13
    assert given(lua, 150) == (1, 1, 150, 0, 0, "0-0", NOW_MS)
    assert lua.reserve("fits", tier_starts=STARTS_MS).code == 1
    assert lua.reserve("not", tier_starts=STARTS_MS).code == -11
    assert share(lua)[:5] == (1, 1, 150, 0, 150)


def test_a_share_never_falls_below_what_is_settled_and_held(lua: Lua) -> None:
    given(lua, 1_000)
    lua.reserve("one", tier_starts=STARTS_MS)
    lua.settle("one", tier_starts=STARTS_MS, charge=120)
    lua.reserve("two", tier_starts=STARTS_MS)
    assert given(lua, 0)[:5] == (1, 1, 270, 120, 150)
    assert lua.reserve("three", tier_starts=STARTS_MS).code == -11


def test_nothing_is_given_before_what_earlier_epochs_settled_is_counted_once(lua: Lua) -> None:
    assert share(lua, epoch=1, wanted=500)[:3] == (2, 1, 0)
    assert share(lua, epoch=1, earlier=300)[:5] == (1, 1, 0, 300, 0)
    assert share(lua, epoch=1, earlier=300, wanted=500)[:5] == (1, 1, 500, 300, 0)
    assert lua.reserve("too much", tier_starts=STARTS_MS, prompt=201, least=0).code == -13


def test_what_was_counted_before_its_first_round_stays_counted(lua: Lua) -> None:
    """A gateway says what it has open, and a late charge comes, before the jobs look."""
    lua.open(epoch=2)
    lua.bring()
    assert lua.reassert(tier_starts=STARTS_MS) == 1
    lua.settle("lost", epoch=1, tier_starts=STARTS_MS, charge=70)
    assert share(lua, epoch=2, earlier=-5, wanted=0)[:5] == (1, 2, 215, 65, 150)


def test_an_older_round_changes_nothing_any_more(lua: Lua) -> None:
    given(lua, 100, round=7)
    before = lua.everything()
    assert share(lua, round=6, epoch=1, wanted=900)[:3] == (0, 1, 100)
    assert lua.everything() == before
    assert share(lua, round=8)[:3] == (1, 1, 100)
    assert share(lua, round=7, epoch=1, wanted=900).code == 0


def test_what_was_meant_for_another_epoch_changes_nothing(lua: Lua) -> None:
    given(lua, 100)
    lua.open(epoch=2)
    before = lua.everything()
    assert share(lua, round=2, epoch=1, earlier=0, wanted=900)[:5] == (-3, 2, 0, 0, 0)
    assert lua.everything() == before
    assert share(lua, round=2)[:5] == (2, 2, 0, 0, 0)  # what was handed out before is void


def test_a_new_period_begins_with_the_share_and_nothing_used(lua: Lua) -> None:
    given(lua, 500)
    lua.reserve("held", tier_starts=STARTS_MS)
    later: dict[str, Value] = {"starts": ENDS_MS, "now": ENDS_MS + 1}
    assert share(lua, round=2, **later)[:5] == (1, 1, 500, 0, 150)
    assert share(lua, round=3, starts=STARTS_MS, now=ENDS_MS + 1).code == -4
    assert share(lua, round=3, starts=ENDS_MS + DAY_MS, now=ENDS_MS + 1).code == -4
    lua.settle("held", tier_starts=STARTS_MS, charge=130)  # of the period before
    assert share(lua, round=3, **later)[:5] == (1, 1, 500, 0, 0)


def test_who_may_be_given_what_others_have_is_told_to_wait_a_second(lua: Lua) -> None:
    assert lua.reserve(tier_starts=STARTS_MS).wait == 1_000  # nothing was handed out yet
    given(lua, 50, free=110)
    assert lua.reserve(tier_starts=STARTS_MS).wait == 1_000
    given(lua, 50, free=109)
    assert lua.reserve(tier_starts=STARTS_MS).wait == ENDS_MS - NOW_MS
    share(lua)
    assert lua.tier_sums("f") == [109]


@pytest.mark.parametrize("starts", [NOW_MS + 1, STARTS_MS - DAY_MS])
def test_a_call_that_names_another_period_of_its_tier_asks_again(lua: Lua, starts: int) -> None:
    given(lua, 500)
    before = lua.everything()
    assert lua.reserve(tier_starts=starts).code == -4
    assert lua.everything() == before


def test_a_closed_shard_has_nothing(bare: Lua) -> None:
    bare.client.hset(bare.keys.of_shard.meta, "clock", "test")
    assert share(bare, wanted=5) == (-1, 0, 0, 0, 0, "0-0", NOW_MS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"round": "x"},
        {"starts": ""},
        {"epoch": "-1"},
        {"earlier": "1.5"},
        {"wanted": "-1"},
        {"free": "x"},
    ],
)
def test_what_is_no_amount_is_refused(lua: Lua, wrong: dict[str, Value]) -> None:
    before = lua.everything()
    with pytest.raises(ResponseError, match="share: an argument"):
        share(lua, **wrong)
    assert lua.everything() == before


# --- shadow -------------------------------------------------------------------------------------

REFUSING: dict[str, tuple[int, dict[str, Value]]] = {
    "month": (-10, {"limit": 5}),
    "in flight": (-11, {"limit": 160}),
    "tier": (-13, {"tier_starts": STARTS_MS}),
    "budget": (-14, {"budget": 5, "prompt_cost": 9}),
    "concurrent": (-15, {"concurrent": 1}),
    "requests": (-16, {"requests": 1}),
    "tokens": (-17, {"tokens": 100}),
}


@pytest.mark.parametrize("name", REFUSING)
def test_a_shadow_tier_holds_all_and_tells_what_it_would_have_refused(lua: Lua, name: str) -> None:
    code, limits = REFUSING[name]
    lua.reserve("before", requests=1, concurrent=9)
    enforced = lua.reserve("enforced", **limits)
    assert (enforced.code, enforced.spared, enforced.hold) == (code, 0, 0)
    buckets = lua.client.hmget(lua.keys.account, "mr", "mt")
    spared = lua.reserve("spared", shadow=1, **limits)
    assert (spared.code, spared.spared, spared.output, spared.hold) == (1, code, 50, 150)
    assert lua.account("h", "n") == [300, 2]
    assert lua.hold("spared") is not None
    assert lua.lease("spared") is not None
    assert lua.client.hmget(lua.keys.account, "mr", "mt") == buckets  # it takes nothing of these
    assert lua.reserve("spared", shadow=1, **limits)[:4] == (2, "spared", 50, 150)
    tier = {"tier_starts": STARTS_MS} if name == "tier" else {}
    assert lua.settle("spared", charge=120, **tier).code == 1
    assert lua.account("h", "n", "s") == [150, 1, 120]
    if name == "tier":
        assert lua.tier_sums("s", "h", "c") == [120, 0, 0]


def test_a_member_of_a_shadow_tier_is_spared_as_well(lua: Lua) -> None:
    lua.of("ann").bring()
    spared = lua.by("ann").reserve(member_limit=5, shadow=1)
    assert (spared.code, spared.spared, spared.held) == (1, -12, 150)
    assert lua.of("ann").account("h") == [150]


def test_a_shadow_tier_lowers_nothing(lua: Lua) -> None:
    assert lua.reserve("lowered", limit=120).output == 20
    lua.settle("lowered", kind="release")
    found = lua.reserve("whole", limit=120, shadow=1)
    assert (found.code, found.output, found.spared) == (1, 50, 0)


def test_what_fits_a_shadow_tier_fills_its_buckets(lua: Lua) -> None:
    assert lua.reserve("one", requests=2, shadow=1).spared == 0
    assert lua.reserve("two", requests=2, shadow=1).spared == 0
    assert lua.reserve("three", requests=2, shadow=1).spared == -16
    assert lua.reserve("four", requests=2).code == -16
