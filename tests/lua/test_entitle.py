"""entitle.lua: what the ledger grants arrives whole, in order, and in its own period."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from tests.lua.script_calls import DAY_MS, ENDS_MS, FAR_MS, NOW_MS, RID, STARTS_MS, Lua, Value

NEXT = {"starts": ENDS_MS, "ends": ENDS_MS + DAY_MS}


@pytest.fixture
def running(bare: Lua) -> Lua:
    """An account in the middle of its period, with a pack."""
    bare.open()
    bare.bring(settled=40, adjusted=3, cost=8, rev=2, packs=f"p 100 {ENDS_MS}")
    return bare


def test_adjustments_are_absolute_and_signed(running: Lua) -> None:
    assert running.entitle(rev=3, adjusted=500) == (1, 3)
    assert running.entitle(rev=4, adjusted=-20) == (1, 4)
    assert running.account("adj", "r", "s", "h") == [-20, 4, 40, 0]


@pytest.mark.parametrize("rev", [2, 3])
def test_a_revision_that_is_not_newer_changes_nothing(running: Lua, rev: int) -> None:
    running.entitle(rev=3, adjusted=500)
    before = running.everything()
    assert running.entitle(rev=rev, adjusted=9, packs=f"q 1 {ENDS_MS}") == (0, 3)
    assert running.everything() == before


def test_adjustments_of_a_period_that_was_left_raise_only_the_revision(running: Lua) -> None:
    old = {"starts": STARTS_MS - DAY_MS, "ends": STARTS_MS}
    assert running.entitle(rev=3, adjusted=500, **old) == (1, 3)
    assert running.account("r", "adj", "s", "ps") == [3, 3, 40, STARTS_MS]


def test_adjustments_of_the_period_that_is_over_are_still_its_own(running: Lua) -> None:
    assert running.entitle(rev=3, adjusted=500, now=ENDS_MS) == (1, 3)
    assert running.account("adj", "s", "ps") == [500, 40, STARTS_MS]


def test_the_first_projection_of_a_new_period_begins_it(running: Lua) -> None:
    running.reserve(rev=2)
    running.put(f=4, w=80)
    assert running.entitle(rev=3, adjusted=500, now=ENDS_MS, **NEXT) == (1, 3)
    assert running.account("ps", "pe") == [ENDS_MS, ENDS_MS + DAY_MS]
    assert running.account("s", "f", "adj", "g", "w", "r") == [0, 0, 500, 0, 0, 3]
    assert running.account("h", "n") == [150, 1]
    assert running.last_period() == (STARTS_MS, 40 - 4 + 3, 100_000)


@pytest.mark.parametrize("now", [NOW_MS, ENDS_MS - 1])
def test_a_period_that_has_not_begun_waits(running: Lua, now: int) -> None:
    """Its adjustments must not be passed over, so the revision may not rise yet."""
    before = running.everything()
    assert running.entitle(rev=3, adjusted=500, now=now, **NEXT) == (-4, 2)
    assert running.everything() == before


def test_without_an_account_in_force_nothing_is_projected(bare: Lua) -> None:
    assert bare.run("entitle", now="")[:2] == [-1, 0]
    bare.open()
    assert bare.entitle() == (-2, 0)
    bare.bring()
    bare.open(epoch=2)
    before = bare.everything()
    assert bare.entitle() == (-2, 0)
    assert bare.everything() == before


def test_of_an_account_that_is_being_hydrated_only_the_revision_rises(bare: Lua) -> None:
    bare.open()
    token = bare.hydrate("begin").token
    later = {"starts": ENDS_MS, "ends": ENDS_MS + 5}  # even of a period that has not begun
    for rev, changes in ((3, {}), (4, later)):
        assert bare.entitle(rev=rev, adjusted=50, packs=f"p 9 {ENDS_MS}", **changes) == (1, rev)
        assert bare.account("r", "adj", "k", "ps") == [rev, 0, 0, STARTS_MS]
    assert bare.entitle(rev=3) == (0, 4)
    assert bare.packs() == {}
    assert bare.hydrate("finish", token=token, rev=3).code == 4
    assert bare.hydrate("finish", token=token, rev=4).code == 3


def test_a_hold_and_a_projection_leave_each_other_alone(running: Lua) -> None:
    running.reserve(rev=2)
    hold = running.hold()
    running.entitle(rev=3, adjusted=500)
    assert (running.hold(), running.account("h", "n")) == (hold, [150, 1])
    assert running.settle(RID, charge=10).used == 550


def test_a_member_is_told_of_its_own(lua: Lua) -> None:
    lua.of("ann").bring()
    before = lua.client.hgetall(lua.keys.account)
    assert lua.of("ann").entitle(rev=7, adjusted=30) == (1, 7)
    assert lua.of("ann").account("r", "adj", "k") == [7, 30, 0]
    assert lua.client.hgetall(lua.keys.account) == before


# --- packs ----------------------------------------------------------------------------------------


def test_a_new_pack_comes_with_what_the_ledger_has_left_of_it(running: Lua) -> None:
    running.entitle(rev=3, packs=f"p 100 {ENDS_MS},new 70 {FAR_MS}")
    assert running.packs() == {"p": 100, "new": 70}
    assert running.account("k") == [2]
    assert running.reserve(rev=3).packs == 170


@pytest.mark.parametrize("told", [1, 69, 71, 100, 500])
def test_a_pack_that_is_known_keeps_what_is_left_of_it_here(running: Lua, told: int) -> None:
    """The ledger is behind in what was spent, and in what was given back."""
    running.reserve(rev=2, limit=40)
    running.settle(charge=30, limit=0)
    left = running.packs()["p"]
    running.entitle(rev=3, packs=f"p {told} {ENDS_MS}")
    assert running.packs() == {"p": left}


def test_a_refund_takes_what_is_left(running: Lua) -> None:
    running.entitle(rev=3, packs=f"p 0 {ENDS_MS}")
    assert running.packs() == {"p": 0}
    running.entitle(rev=4, packs=f"p 100 {ENDS_MS}")
    assert running.packs() == {"p": 0}  # and nothing brings it back


def test_the_end_of_a_pack_is_the_ledgers(running: Lua) -> None:
    running.entitle(rev=3, packs=f"p 100 {NOW_MS}")
    assert running.snapshot().packs == f"p 100 {NOW_MS}"
    assert running.reserve(rev=3).packs == 0


def test_a_pack_that_is_not_told_of_any_more_is_forgotten(running: Lua) -> None:
    running.entitle(rev=3, packs=f"q 5 {ENDS_MS}")
    assert (running.packs(), running.account("k")) == ({"q": 5}, [1])
    running.entitle(rev=4)
    assert (running.packs(), running.account("k")) == ({}, [0])


# --- calls that are wrong -------------------------------------------------------------------------

WRONG_PACKS = (
    *("p", "p 5", "p x 5", "p 5 x", "p -5 5", "p 5 5,", ",p 5 5", "p 5 5;q 5 5", "p  5 5", " "),
    *("a:b 5 5", "a b 5 5", f"p {10**15} 5", f"p 5 {10**15}", "p 5 5,q 5", "p 5 5 q 5 5"),
)


@pytest.mark.parametrize(
    "changes",
    [{name: text} for name in ("rev", "starts", "ends") for text in ("", "x", "-1", "1.5", "inf")]
    + [{"adjusted": text} for text in ("", "x", "1.5", "nan", "inf", "-inf", str(10**16))]
    + [{"packs": text} for text in WRONG_PACKS],
    ids=str,
)
def test_a_wrong_argument_is_told_and_changes_nothing(
    running: Lua, changes: dict[str, Value]
) -> None:
    before = running.everything()
    with pytest.raises(redis.ResponseError, match=r"^entitle: an argument"):
        running.run("entitle", **{"rev": 3, **changes})
    assert running.everything() == before


def test_a_clock_of_the_caller_is_refused_where_meta_does_not_allow_it(running: Lua) -> None:
    running.client.hdel(running.keys.of_shard.meta, "clock")
    before = running.everything()
    with pytest.raises(redis.ResponseError, match=r"^entitle: a clock"):
        running.entitle(rev=3)
    assert running.everything() == before
    seconds, _ = running.client.time()
    assert running.run("entitle", rev=3, starts=0, now="")[2] >= seconds * 1000


@pytest.mark.parametrize("place", range(3))
def test_a_key_of_a_wrong_type_stops_it_before_it_writes(running: Lua, place: int) -> None:
    running.spoil("entitle", place)
    before = running.everything()
    with pytest.raises(redis.ResponseError, match=r"WRONGTYPE"):
        running.entitle(rev=3, packs=f"q 5 {ENDS_MS}")
    assert running.everything() == before


def test_a_full_memory_does_not_stop_a_projection(
    running: Lua, fill_memory: Callable[[], None]
) -> None:
    fill_memory()
    assert running.entitle(rev=3, adjusted=5, packs=f"q 5 {ENDS_MS}") == (1, 3)
    assert running.packs() == {"q": 5}
