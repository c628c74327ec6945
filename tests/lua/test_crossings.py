"""Thresholds: each is told by the charge that reaches it, once, and anew after a fall."""

from __future__ import annotations

import pytest

from tests.lua.script_calls import DAY_MS, ENDS_MS, FAR_MS, NOW_MS, STARTS_MS, Lua, Value

AT = "50 80 100"


def charge(lua: Lua, rid: str, tokens: int, **changes: Value) -> int:
    """Hold nothing, charge so much of 1,000: the threshold that is told."""
    usual: dict[str, Value] = {"prompt": 0, "wanted": 0, "least": 0, "limit": 1_000}
    rev = lua.account("r")[0]
    assert lua.reserve(rid, **{**usual, "rev": rev}).code == 1
    reply = lua.settle(rid, charge=tokens, **{"thresholds": AT, "limit": 1_000, **changes})
    assert lua.rows()[-1].crossed_percent == reply.crossed
    return reply.crossed


def test_each_is_told_once_by_the_charge_that_reaches_it(lua: Lua) -> None:
    charges = (499, 1, 299, 1, 1, 198, 1, 1, 500)
    told = [charge(lua, f"r{n}", tokens) for n, tokens in enumerate(charges)]
    assert told == [0, 50, 0, 80, 0, 0, 100, 0, 0]
    assert lua.account("w") == [100]


@pytest.mark.parametrize(("tokens", "told"), [(499, 0), (799, 50), (999, 80), (5_000, 100)])
def test_of_several_at_once_the_highest_is_told(lua: Lua, tokens: int, told: int) -> None:
    assert charge(lua, "r1", tokens) == told
    assert charge(lua, "r2", 0) == 0


def test_it_is_told_anew_after_the_use_had_fallen(lua: Lua) -> None:
    assert charge(lua, "r1", 800) == 80
    lua.entitle(rev=1, adjusted=-400)
    assert charge(lua, "r2", 0) == 0  # it is seen here that less is used
    assert [charge(lua, "r3", 99), charge(lua, "r4", 1), charge(lua, "r5", 300)] == [0, 50, 80]


def test_a_correction_downwards_arms_it_anew(lua: Lua) -> None:
    lua.reserve(limit=1_000)
    usual: dict[str, Value] = {"thresholds": AT, "limit": 1_000, "now": NOW_MS + DAY_MS}
    assert lua.settle(kind="expire", charge=600, **usual).crossed == 50
    assert lua.settle(charge=400, **usual).crossed == 0
    assert charge(lua, "r2", 100) == 50


def test_a_larger_allowance_arms_it_anew(lua: Lua) -> None:
    assert charge(lua, "r1", 500) == 50
    lua.reserve("r2", limit=2_000)
    assert lua.settle("r2", charge=0, thresholds=AT).crossed == 0
    lua.reserve("r3", limit=2_000)
    assert lua.settle("r3", charge=500, thresholds=AT).crossed == 50


def test_packs_pay_their_part_so_use_stops_at_the_allowance(bare: Lua) -> None:
    bare.open()
    bare.bring(packs=f"p 500 {FAR_MS}")
    assert charge(bare, "r1", 1_400) == 100
    assert bare.account("s", "f") == [1_400, 400]


def test_a_new_period_begins_unwarned_and_a_charge_to_the_old_tells_nothing(lua: Lua) -> None:
    lua.reserve("late", limit=1_000)
    assert charge(lua, "r1", 600) == 50
    following: dict[str, Value] = {"starts": ENDS_MS, "ends": ENDS_MS + 9, "now": ENDS_MS}
    lua.reserve("r2", **following, limit=1_000)
    assert lua.account("w") == [0]
    assert lua.settle("late", charge=9_000, thresholds=AT, now=ENDS_MS).crossed == 0
    assert lua.settle("r2", charge=800, thresholds=AT, now=ENDS_MS).crossed == 80
    assert [row.period_ms for row in lua.rows()] == [STARTS_MS, STARTS_MS, ENDS_MS]


def test_a_charge_to_the_old_period_tells_nothing_of_the_running_one(lua: Lua) -> None:
    """Its row belongs to the old period, and so would the notice."""
    lua.reserve("late", limit=1_000)
    following: dict[str, Value] = {"starts": ENDS_MS, "ends": ENDS_MS + 9, "now": ENDS_MS}
    lua.reserve("r1", **following, limit=1_000)
    lua.settle("r1", charge=600, thresholds="", now=ENDS_MS)
    assert lua.settle("late", charge=1, thresholds=AT, now=ENDS_MS).crossed == 0
    lua.reserve("r2", **following, limit=1_000)
    assert lua.settle("r2", charge=0, thresholds=AT, now=ENDS_MS).crossed == 50


def test_without_an_allowance_or_thresholds_none_is_told(bare: Lua) -> None:
    bare.open()
    bare.bring()
    assert bare.settle("r1", epoch=0, charge=9, limit=0, thresholds=AT).crossed == 0
    assert charge(bare, "r2", 5_000, thresholds="") == 0
    assert charge(bare, "r3", 0) == 100


def test_a_release_and_a_repetition_tell_none(lua: Lua) -> None:
    lua.reserve("r1", limit=1_000)
    assert charge(lua, "r2", 499) == 0
    assert lua.settle("r1", kind="release", thresholds="1").crossed == 0
    assert lua.settle("r2", charge=999, thresholds="1").crossed == 0
