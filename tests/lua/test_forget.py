"""forget.lua: what nobody uses goes, what anybody may still miss stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from tests.lua.script_calls import ENDS_MS, NOW_MS, RID, STARTS_MS, Lua

IDLE_MS = ENDS_MS + (ENDS_MS - STARTS_MS)  # over for as long again as it lasted


@pytest.fixture
def used(bare: Lua) -> Lua:
    """An account with a pack, something booked, and an ending that is kept."""
    bare.open()
    bare.bring(packs=f"p 100 {ENDS_MS}")
    bare.reserve()
    bare.settle()
    bare.settle("unseen", kind="release")
    return bare


def test_an_idle_account_goes_with_its_packs_and_nothing_else(used: Lua) -> None:
    before = used.everything()
    assert used.forget(now=IDLE_MS) == 1
    gone = {used.keys.account.encode(), used.keys.packs.encode()}
    assert used.everything() == {key: at for key, at in before.items() if key not in gone}
    assert used.reserve("next", now=IDLE_MS, starts=IDLE_MS, ends=IDLE_MS + 1).code == -2
    assert used.settle("unseen", charge=5).code == 0


def test_it_stays_until_its_period_is_over_for_as_long_again(used: Lua) -> None:
    before = used.everything()
    for now in (NOW_MS, ENDS_MS, IDLE_MS - 1):
        assert used.forget(now=now) == 0
    assert used.everything() == before


def test_with_an_open_hold_it_stays(used: Lua) -> None:
    used.reserve("open")
    before = used.everything()
    assert used.forget(now=IDLE_MS) == 0
    assert used.everything() == before
    used.settle("open", kind="release")
    assert used.forget(now=IDLE_MS) == 1


def test_one_of_an_older_epoch_goes_even_if_something_was_held(used: Lua) -> None:
    """Its hold becomes an orphan when the account comes back, and is charged then."""
    used.reserve(RID)
    used.open(epoch=2)
    assert used.forget(now=IDLE_MS - 1) == 0
    assert used.forget(now=IDLE_MS) == 1
    used.bring(settled=120)
    assert str(used.hold()).startswith("o ")
    assert used.settle(charge=5, now=IDLE_MS).code == 1
    assert used.account("s", "h", "n") == [125, 0, 0]


def test_one_that_comes_back_knows_what_it_was_charged(used: Lua) -> None:
    used.forget(now=IDLE_MS)
    used.bring(settled=120)
    assert used.reserve("next").used == 120


def test_one_that_is_being_hydrated_stays(bare: Lua) -> None:
    bare.open()
    bare.hydrate("begin")
    before = bare.everything()
    assert bare.forget(now=IDLE_MS) == 0
    assert bare.everything() == before


def test_what_is_not_there_is_not_removed(bare: Lua) -> None:
    assert bare.run("forget", now="") == [-1]
    bare.open()
    before = bare.everything()
    assert bare.forget(now=IDLE_MS) == 0
    assert bare.everything() == before


def test_a_clock_of_the_caller_is_refused_where_meta_does_not_allow_it(used: Lua) -> None:
    used.client.hdel(used.keys.of_shard.meta, "clock")
    with pytest.raises(redis.ResponseError, match=r"^forget: a clock"):
        used.forget(now=IDLE_MS)
    assert used.account("s") == [120]


@pytest.mark.parametrize("place", range(2))
def test_a_key_of_a_wrong_type_stops_it(used: Lua, place: int) -> None:
    used.spoil("forget", place)
    before = used.everything()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        used.forget(now=IDLE_MS)
    assert used.everything() == before


def test_it_goes_when_memory_is_full(used: Lua, fill_memory: Callable[[], None]) -> None:
    fill_memory()
    assert used.forget(now=IDLE_MS) == 1
