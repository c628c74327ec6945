"""correct.lua: what was counted twice is taken back once, and only where it was counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from tests.lua.script_calls import (
    DAY_MS,
    ENDS_MS,
    NOW_MS,
    RID,
    STARTS_MS,
    Lua,
    Value,
)

NEXT = {"starts": ENDS_MS, "ends": ENDS_MS + DAY_MS, "now": ENDS_MS}
PACKS = f"a 30 {ENDS_MS},b 50 {ENDS_MS + 1}"


@pytest.fixture
def twice(bare: Lua) -> Lua:
    """100 tokens of allowance; two charges of 120, of which the second is one too many."""
    bare.open()
    bare.bring(packs=PACKS)
    bare.share(1_000)
    usual = {"limit": 100, "prompt": 60, "wanted": 0, "least": 0, "tier_starts": STARTS_MS}
    for rid in ("first", "second"):
        bare.reserve(rid, **usual)
    for rid in ("first", "second"):
        bare.settle(rid, charge=120, cost=9, tier_starts=STARTS_MS, limit=100)
    return bare


def back_of(lua: Lua, row: int = -1) -> dict[str, Value]:
    """The correction of an event, as the drain makes it."""
    found = lua.rows()[row]
    split = ",".join(f"{name}:{tokens}" for name, tokens in found.pack_split) or "-"
    return {
        "epoch": found.epoch, "stream_id": found.stream_id, "period": found.period_ms,
        "charge": found.charged_tokens, "cost": found.cost_nano_gbp, "split": split,
        "tier_starts": found.tier_period_start_ms or "",
    }  # fmt: skip


def test_the_figures_are_what_they_were_without_the_event(twice: Lua) -> None:
    assert (twice.rows()[0].pack_split, twice.rows()[1].pack_split) == (
        (("a", 20),),
        (("a", 10), ("b", 50)),
    )
    assert twice.account("s", "f", "g") == [240, 80, 18]
    assert twice.correct(**back_of(twice)) == 1
    assert twice.account("s", "f", "g", "h", "n", "q") == [120, 20, 9, 0, 0, 2]
    assert twice.packs() == {"a": 10, "b": 50}
    assert twice.tier_sums("s", "h") == [120, 0]
    assert len(twice.rows()) == 2  # the ledger counts the event once as it is


def test_a_second_one_changes_nothing(twice: Lua) -> None:
    back = back_of(twice)
    twice.correct(**back)
    assert (twice.hold("back"), twice.kept_until("back")) == ("d", NOW_MS + DAY_MS)
    before = twice.everything()
    assert twice.correct(**back, now=NOW_MS + 5) == 0
    assert twice.everything() == before


def test_a_pack_that_is_forgotten_leaves_no_allowance_behind(twice: Lua) -> None:
    """What it had paid is not used up by the allowance, so the allowance gets nothing back."""
    back = back_of(twice)
    twice.entitle(rev=1, packs=f"a 10 {ENDS_MS}")
    used = twice.snapshot()
    twice.correct(**back)
    assert twice.account("s", "f") == [120, 20]
    assert twice.packs() == {"a": 10}
    assert used.settled - used.from_packs == 160  # 100, and an overdraft of 60
    assert twice.settle("first").used == 100


def test_a_correction_that_was_counted_twice_is_taken_back_as_well(twice: Lua) -> None:
    """Its charge is negative, and so is its split: packs give again what they had got."""
    twice.reserve("late", limit=1_000, least=0)
    twice.settle("late", kind="expire", charge=200, limit=100, now=ENDS_MS - 1)
    twice.client.hset(twice.keys.packs, "b", f"9 {ENDS_MS + 1}")
    before = twice.account("s", "f", "g")
    back = {**back_of(twice), "charge": -70, "cost": -4, "split": "b:-5,a:-1", "tier_starts": ""}
    left = twice.packs()
    assert twice.correct(**back) == 1
    assert twice.account("s", "f", "g") == [before[0] + 70, before[1] + 6, before[2] + 4]
    assert twice.packs() == {"a": max(0, left["a"] - 1), "b": 4}


def test_of_the_period_before_its_figures_are_mended(twice: Lua) -> None:
    back = back_of(twice)
    twice.reserve("new", **NEXT)
    twice.settle("new", charge=7, now=ENDS_MS)
    assert twice.last_period()[:2] == (STARTS_MS, 160)
    assert twice.correct(**back, now=ENDS_MS) == 1
    assert twice.last_period()[:2] == (STARTS_MS, 100)
    assert twice.account("s", "f") == [7, 0]
    assert twice.packs() == {"a": 10, "b": 50}


def test_of_a_period_before_that_only_the_packs_are(twice: Lua) -> None:
    back = back_of(twice)
    twice.reserve("new", **NEXT)
    later = ENDS_MS + DAY_MS
    twice.reserve("newer", starts=later, ends=later + DAY_MS, now=later)
    before = twice.account("s", "f", "h"), twice.last_period()
    assert twice.correct(**back, now=later) == 1
    assert (twice.account("s", "f", "h"), twice.last_period()) == before
    assert twice.packs() == {"a": 10, "b": 50}


# --- where it was not counted -----------------------------------------------------------------


def test_an_account_that_came_back_after_the_event_never_counted_it(twice: Lua) -> None:
    back = back_of(twice)
    twice.client.delete(twice.keys.account, twice.keys.packs)
    twice.bring(settled=120)
    account = twice.account("s", "f", "g")
    assert twice.correct(**back) == 1  # of the tier, which has counted all of this epoch
    assert twice.account("s", "f", "g") == account
    assert twice.tier_sums("s") == [120]
    before = twice.everything()
    assert twice.correct("other", **{**back, "tier_starts": ""}) == 0
    assert twice.everything() == before


def test_one_that_came_back_before_the_event_did(bare: Lua) -> None:
    bare.open()
    bare.reserve()
    bare.settle("first", epoch=0, charge=120)  # counted by the ledger alone
    begun = bare.hydrate("begin")
    bare.settle("second", epoch=0, charge=120)
    assert bare.account("s") == [120]
    assert bare.correct(**back_of(bare)) == 1  # while it is still coming back
    bare.hydrate("finish", token=begun.token, settled=120, cost=3_000)
    assert bare.account("s", "g") == [120, 3_000]
    assert bare.correct("other", **back_of(bare, 0)) == 0


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_an_event_of_another_epoch_was_not_counted_here(twice: Lua, epoch: int) -> None:
    back = back_of(twice)
    twice.open(epoch=2)
    twice.bring()
    before = twice.everything()
    for stream_id in (back["stream_id"], f"{10**14}-0"):  # a clock may have been far ahead
        assert twice.correct(**{**back, "epoch": epoch, "stream_id": stream_id}) == 0
    assert twice.everything() == before


def test_without_an_account_in_force_there_is_nothing_to_take_back(bare: Lua) -> None:
    assert bare.correct(now="") == -1
    assert bare.everything() == {}
    bare.open()
    before = bare.everything()
    assert bare.correct() == 0
    assert bare.everything() == before


@pytest.mark.parametrize("came_back", ["payer", "member"])
def test_payer_and_member_are_asked_each_for_itself(lua: Lua, came_back: str) -> None:
    lua.of("ann").bring()
    by_ann = lua.by("ann")
    by_ann.reserve()
    by_ann.settle(charge=30, cost=2)
    again = lua if came_back == "payer" else lua.of("ann")
    other = lua.of("ann") if came_back == "payer" else lua
    lua.client.delete(again.keys.account)
    again.bring(settled=30, cost=2)
    assert by_ann.correct(**back_of(lua)) == 1
    assert again.account("s", "g") == [30, 2]
    assert other.account("s", "g") == [0, 0]


# --- calls that are wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{name: text} for name in ("epoch", "period") for text in ("", "x", "-1", "1.5", str(10**15))]
    + [{name: text} for name in ("charge", "cost") for text in ("", "x", "1.5", str(10**16))]
    + [{"tier_starts": "x"}, {"rid": ""}]
    + [{"stream_id": text} for text in ("", "5", "5-", "$")]
    + [{"split": text} for text in ("a:x", "a:1.5", f"a:{10**16}", "a:1,b:y")],
    ids=str,
)
def test_a_wrong_argument_is_told_and_changes_nothing(
    twice: Lua, changes: dict[str, Value]
) -> None:
    before = twice.everything()
    with pytest.raises(redis.ResponseError, match=r"^correct: an argument"):
        twice.run("correct", **changes)
    assert twice.everything() == before


def test_a_clock_of_the_caller_is_refused_where_meta_does_not_allow_it(twice: Lua) -> None:
    twice.client.hdel(twice.keys.of_shard.meta, "clock")
    before = twice.everything()
    with pytest.raises(redis.ResponseError, match=r"^correct: a clock"):
        twice.correct(**back_of(twice))
    assert twice.everything() == before


@pytest.mark.parametrize("place", range(7))
def test_a_key_of_a_wrong_type_stops_it_before_it_writes(twice: Lua, place: int) -> None:
    back, by_ann = back_of(twice), twice.by("ann")
    twice.of("ann").bring()
    by_ann.spoil("correct", place)
    before = twice.everything()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        by_ann.correct(**back)
    assert twice.everything() == before


def test_a_full_memory_does_not_stop_it(twice: Lua, fill_memory: Callable[[], None]) -> None:
    back = back_of(twice)
    fill_memory()
    assert twice.correct(**back) == 1
    assert twice.settle(RID).code == 0
    assert twice.account("s", "f") == [120, 20]
