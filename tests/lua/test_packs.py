"""Packs: paid from by earliest end once the allowance is used up, and given back what they paid.

A charge is split between the allowance and packs when it is settled; what is left of the packs is
room for the next call.
"""

from __future__ import annotations

import pytest

from tests.lua.script_calls import DAY_MS, ENDS_MS, GRACE_MS, LEASE_MS, NOW_MS, STARTS_MS, Lua

SOON, LATER = NOW_MS + LEASE_MS, ENDS_MS + DAY_MS
DUE_MS = NOW_MS + LEASE_MS + GRACE_MS
ALL = {"prompt": 0, "wanted": 0, "least": 0, "limit": 100}
NEXT = {"starts": ENDS_MS, "ends": ENDS_MS + DAY_MS, "now": ENDS_MS}


@pytest.fixture
def packed(bare: Lua) -> Lua:
    """An allowance of 100 and three packs, told in no order; the last is for later."""
    bare.open()
    bare.bring(packs=f"late 50 {LATER},soon 30 {SOON},also 20 {SOON}")
    return bare


def spend(lua: Lua, rid: str, charge: int, now: int = NOW_MS) -> tuple[tuple[str, int], ...]:
    """Hold nothing, charge so much; who paid it besides the allowance."""
    lua.reserve(rid, **ALL)
    lua.settle(rid, charge=charge, limit=100, now=now)
    return lua.rows()[-1].pack_split


def test_the_allowance_is_used_up_before_any_pack(packed: Lua) -> None:
    assert spend(packed, "r1", 60) == ()
    assert spend(packed, "r2", 40) == ()
    assert spend(packed, "r3", 1) == (("also", 1),)
    assert packed.account("s", "f", "k") == [101, 1, 3]


@pytest.mark.parametrize(
    ("charge", "split", "overdraft"),
    [
        (100, (), 0),
        (105, (("also", 5),), 0),
        (120, (("also", 20),), 0),
        (149, (("also", 20), ("soon", 29)), 0),
        (151, (("also", 20), ("soon", 30), ("late", 1)), 0),
        (200, (("also", 20), ("soon", 30), ("late", 50)), 0),
        (207, (("also", 20), ("soon", 30), ("late", 50)), 7),
    ],
)
def test_packs_pay_by_earliest_end_and_the_allowance_the_rest(
    packed: Lua, charge: int, split: tuple[tuple[str, int], ...], overdraft: int
) -> None:
    packed.reserve(**ALL)
    reply = packed.settle(charge=charge, limit=100)
    paid = sum(tokens for _, tokens in split)
    assert (reply.from_allowance, reply.from_packs) == (charge - paid, paid)
    assert reply.used == 100 + overdraft
    (row,) = packed.rows()
    assert (row.pack_split, row.from_packs, row.from_allowance) == (split, paid, charge - paid)
    assert packed.packs() == {
        name: left - dict(split).get(name, 0)
        for name, left in (("late", 50), ("soon", 30), ("also", 20))
    }


def test_an_account_that_granted_nothing_yet_goes_by_the_allowance_of_the_hold(
    packed: Lua,
) -> None:
    """It came back from the ledger, and the hold was lost."""
    reply = packed.settle(epoch=0, charge=105, limit=100)
    assert (reply.code, reply.limit, reply.from_packs) == (3, 100, 5)
    packed.reserve("r2", **{**ALL, "limit": 300})
    reply = packed.settle("r2", charge=10, limit=50)  # from now on the newest grant counts
    assert (reply.limit, reply.from_packs) == (300, 0)


def test_what_packs_have_left_is_room(packed: Lua) -> None:
    assert packed.reserve("all", **{**ALL, "prompt": 201}).code == -10
    reply = packed.reserve("all", **{**ALL, "prompt": 200})
    assert (reply.code, reply.packs, reply.limit) == (1, 100, 100)
    assert packed.reserve("more", **{**ALL, "prompt": 1}).code == -11
    assert packed.settle("all", charge=150, limit=100).used == 100
    reply = packed.reserve("rest", **{**ALL, "prompt": 50, "wanted": 9})
    assert (reply.code, reply.packs, reply.hold) == (1, 50, 50)


def test_an_overdraft_of_the_allowance_takes_no_room_of_a_new_pack(packed: Lua) -> None:
    spend(packed, "r1", 260)
    assert packed.packs() == {"late": 0, "soon": 0, "also": 0}
    packed.entitle(rev=1, packs=f"late 50 {LATER},new 40 {LATER}")
    assert packed.packs() == {"late": 0, "new": 40}
    assert packed.reserve("r2", **{**ALL, "prompt": 41}, rev=1).code == -10
    assert packed.reserve("r2", **{**ALL, "prompt": 40}, rev=1).code == 1
    packed.settle("r2", charge=40)
    assert (packed.rows()[-1].pack_split, packed.account("s", "f")) == ((("new", 40),), [300, 140])


def test_an_ended_pack_pays_no_new_call(packed: Lua) -> None:
    reply = packed.reserve(**{**ALL, "prompt": 151}, now=SOON)
    assert (reply.code, reply.packs) == (-10, 50)
    assert packed.reserve(**{**ALL, "prompt": 150}, now=SOON).code == 1
    packed.settle(charge=160, now=SOON)
    assert packed.rows()[-1].pack_split == (("late", 50),)
    assert packed.packs() == {"late": 0, "soon": 30, "also": 20}


def test_a_pack_that_ends_while_a_hold_is_open_still_pays_for_it(packed: Lua) -> None:
    packed.reserve("open", **{**ALL, "prompt": 150}, now=SOON - 1)
    assert packed.settle("open", charge=140, now=SOON + DAY_MS, limit=100).from_packs == 40
    assert packed.rows()[-1].pack_split == (("also", 20), ("soon", 20))


def test_an_expired_hold_is_paid_and_corrected_by_packs_of_its_time(packed: Lua) -> None:
    packed.reserve(**ALL)
    packed.settle(kind="expire", charge=110, limit=100, now=DUE_MS)
    assert packed.packs()["also"] == 10
    assert DUE_MS > SOON
    packed.settle(charge=125, now=DUE_MS)
    assert [row.pack_split for row in packed.rows()] == [
        (("also", 10),),
        (("also", 10), ("soon", 5)),
    ]


def test_an_empty_pack_stays_known(packed: Lua) -> None:
    """The ledger, which runs behind, may tell of it as if it were full."""
    spend(packed, "r1", 200)
    packed.entitle(rev=1, packs=f"late 50 {LATER},soon 30 {SOON},also 20 {SOON}")
    assert packed.packs() == {"late": 0, "soon": 0, "also": 0}


# --- given back -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settled", "back", "left"),
    [
        (151, (("late", -9),), {"also": 0, "soon": 0, "late": 49}),
        (145, (("late", -10), ("soon", -5)), {"also": 0, "soon": 5, "late": 50}),
        (90, (("late", -10), ("soon", -30), ("also", -20)), {"also": 20, "soon": 30, "late": 50}),
        (160, (), {"also": 0, "soon": 0, "late": 40}),
    ],
)
def test_a_late_settlement_gives_back_first_what_was_paid_last(
    packed: Lua, settled: int, back: tuple[tuple[str, int], ...], left: dict[str, int]
) -> None:
    packed.reserve(**ALL)
    packed.settle(kind="expire", charge=160, limit=100, now=DUE_MS)
    reply = packed.settle(charge=settled, now=DUE_MS)
    assert (reply.code, reply.used) == (2, min(settled, 100))
    assert packed.packs() == left
    assert packed.rows()[-1].pack_split == back
    assert packed.account("s", "f") == [settled, max(0, settled - 100)]
    assert sum(row.from_packs for row in packed.rows()) == max(0, settled - 100)


def test_what_a_forgotten_pack_had_paid_is_given_to_the_allowance(packed: Lua) -> None:
    packed.reserve(**ALL)
    packed.settle(kind="expire", charge=125, limit=100, now=DUE_MS)
    packed.entitle(rev=1, packs=f"soon 25 {SOON}")
    packed.settle(charge=90, now=DUE_MS)
    assert packed.packs() == {"soon": 30}
    assert packed.rows()[-1].pack_split == (("soon", -5),)
    assert packed.account("s", "f") == [90, 20]  # and so say the sums of the two events


# --- the period before ----------------------------------------------------------------------------


def test_a_charge_to_the_period_before_is_paid_by_its_allowance_then_by_packs(
    packed: Lua,
) -> None:
    for rid in ("r1", "r2", "r3"):
        packed.reserve(rid, **ALL)
    packed.settle("r1", charge=70, limit=100)
    packed.reserve("new", **{**ALL, **NEXT, "limit": 5})
    assert packed.last_period() == (STARTS_MS, 70, 100)
    assert packed.settle("r2", charge=50, now=ENDS_MS).from_packs == 20
    assert packed.last_period() == (STARTS_MS, 100, 100)
    assert packed.settle("r3", charge=81, now=ENDS_MS).from_packs == 80
    assert packed.last_period() == (STARTS_MS, 101, 100)
    assert packed.account("s", "f") == [0, 0]
    assert packed.packs() == {"late": 0, "soon": 0, "also": 0}


def test_a_charge_of_two_periods_ago_is_paid_by_no_pack(packed: Lua) -> None:
    packed.reserve("old", **ALL)
    packed.reserve("mid", **{**ALL, **NEXT})
    then = ENDS_MS + DAY_MS
    packed.reserve("new", **{**ALL, "starts": then, "ends": then + DAY_MS, "now": then})
    assert packed.settle("old", charge=500, now=then).from_packs == 0
    assert packed.packs() == {"late": 50, "soon": 30, "also": 20}
    assert (packed.account("s", "f"), packed.last_period()[:2]) == ([0, 0], (ENDS_MS, 0))


def test_what_packs_paid_two_periods_ago_is_given_back(packed: Lua) -> None:
    packed.reserve("old", **ALL)
    packed.settle("old", kind="expire", charge=130, limit=100, now=DUE_MS)
    then = ENDS_MS + DAY_MS
    packed.reserve("mid", **{**ALL, **NEXT})
    packed.reserve("new", **{**ALL, "starts": then, "ends": then + DAY_MS, "now": then})
    assert packed.settle("old", charge=110, now=then).from_packs == -20
    assert packed.packs() == {"late": 50, "soon": 30, "also": 10}
    assert packed.account("s", "f") == [0, 0]
