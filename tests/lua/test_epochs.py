"""Epochs: what was lost is booked once, what was not lost is not booked twice.

An epoch is raised when the server went back in time or was emptied. Accounts then come back from
the ledger; holds that are still there become orphans, which hold nothing any more.
"""

from __future__ import annotations

import pytest

from tests.lua.script_calls import (
    DAY_MS,
    ENDS_MS,
    GRACE_MS,
    LEASE_MS,
    NOW_MS,
    RID,
    STARTS_MS,
    TAIL,
    Lua,
    Value,
)

DUE_MS = NOW_MS + LEASE_MS + GRACE_MS


def lose_everything(lua: Lua) -> None:
    lua.client.delete(*lua.client.keys())
    lua.open(epoch=2)


def test_a_hold_lost_with_its_epoch_is_booked_once(lua: Lua) -> None:
    lua.reserve()
    lose_everything(lua)
    lua.bring(settled=40)
    reply = lua.settle(charge=30, cost=6)
    assert (reply.code, reply.used, reply.held, reply.overdraft) == (3, 70, 0, 0)
    assert lua.account("s", "h", "n", "g", "q") == [70, 0, 0, 6, 1]
    assert (lua.hold(), lua.kept_until()) == ("d", NOW_MS + DAY_MS)
    (row,) = lua.rows()
    assert (row.kind, row.charged_tokens, row.held_tokens, row.epoch) == ("usage", 30, 0, 2)
    before = lua.everything()
    assert lua.settle(charge=30, cost=6).code == 0
    assert lua.reserve().code == -5
    assert lua.everything() == before


@pytest.mark.parametrize("repeated", ["before begin", "after begin", "after finish"])
def test_booked_late_without_an_account_it_still_counts_once(lua: Lua, repeated: str) -> None:
    """The reply was lost, and the account came back before the repetition."""
    lua.reserve()
    lose_everything(lua)
    reply = lua.settle(charge=30)
    assert (reply.code, reply.used) == (3, 0)
    if repeated == "before begin":
        assert lua.settle(charge=30).code == 0
    begun = lua.hydrate("begin")
    assert begun.stream_id == reply.stream_id
    if repeated == "after begin":
        assert lua.settle(charge=30).code == 0
    lua.hydrate("finish", token=begun.token, settled=30)  # as the ledger says up to that event
    if repeated == "after finish":
        assert lua.settle(charge=30).code == 0
    assert lua.account("s", "h", "n") == [30, 0, 0]
    assert len(lua.rows()) == 1


def test_booked_late_while_hydrating_it_is_added_to_what_the_ledger_says(lua: Lua) -> None:
    lua.reserve()
    lose_everything(lua)
    begun = lua.hydrate("begin")
    assert lua.settle(charge=30).code == 3
    lua.hydrate("finish", token=begun.token, settled=40)
    assert lua.account("s", "h") == [70, 0]


@pytest.mark.parametrize("first", ["settle", "expire"])
def test_a_hold_that_outlived_its_epoch_ends_once(lua: Lua, first: str) -> None:
    """The epoch was raised, but nothing was lost."""
    lua.reserve()
    lua.open(epoch=2)
    assert lua.settle(kind=first, charge=30, epoch=1, now=DUE_MS).code == 1
    assert lua.settle(charge=30, epoch=1, now=DUE_MS).code == (2 if first == "expire" else 0)
    before = lua.everything()
    assert lua.settle(charge=30, epoch=1, now=DUE_MS).code == 0
    assert lua.everything() == before
    assert sum(row.charged_tokens for row in lua.rows()) == 30


# --- orphans: holds that outlived their epoch, in an account that was brought back ----------------


@pytest.fixture
def orphan(lua: Lua) -> Lua:
    """A hold of epoch 1 in an account of epoch 2, which holds another."""
    lua.reserve(prompt_cost=9)
    lua.open(epoch=2)
    lua.bring(settled=40)
    lua.reserve("new")
    return lua


def test_an_orphan_is_charged_and_frees_nothing_of_the_new_account(orphan: Lua) -> None:
    assert orphan.hold() == f"o 50 150 9 {STARTS_MS} {NOW_MS} 0 {TAIL}"
    reply = orphan.settle(charge=200, cost=6)
    assert (reply.code, reply.used, reply.held, reply.overdraft) == (1, 240, 150, 50)
    assert orphan.account("s", "h", "n", "g", "gh") == [240, 150, 1, 6, 0]
    assert (orphan.hold(), orphan.lease(), orphan.kept_until()) == ("d", None, NOW_MS + DAY_MS)
    (row,) = orphan.rows()
    assert (row.epoch, row.held_tokens, row.kind) == (2, 150, "usage")
    before = orphan.everything()
    assert orphan.settle(charge=200, cost=6).code == 0
    assert orphan.everything() == before


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_orphan_expires_and_is_corrected(orphan: Lua, epoch: int) -> None:
    """The sweeper names the epoch it reads; the hold's own gateway that of the hold."""
    assert orphan.settle(kind="expire", charge=30, now=DUE_MS - 1, epoch=2).code == 5
    assert orphan.settle(kind="expire", charge=30, now=DUE_MS, epoch=2).code == 1
    assert orphan.settle(charge=50, epoch=epoch, now=DUE_MS).code == 2
    assert orphan.settle(charge=50, epoch=epoch, now=DUE_MS).code == 0
    assert orphan.account("s", "h", "n") == [90, 150, 1]
    assert [row.charged_tokens for row in orphan.rows()] == [30, 20]


def test_a_released_orphan_charges_nothing_and_ends(orphan: Lua) -> None:
    assert orphan.settle(kind="release").code == 4
    assert orphan.account("s", "h", "n") == [40, 150, 1]
    assert (orphan.hold(), orphan.lease()) == ("v", None)
    assert orphan.settle(charge=50).code == 0
    assert orphan.rows() == []


def test_an_orphan_is_kept_alive_and_asked_again_in_vain(orphan: Lua) -> None:
    assert orphan.extend(progress=7) == [1, RID]
    assert str(orphan.hold()).startswith(f"o 50 150 9 {STARTS_MS} {NOW_MS} 7 ")
    assert orphan.reserve().code == -5


def test_orphans_survive_further_epochs(orphan: Lua) -> None:
    orphan.open(epoch=3)
    orphan.bring()
    assert [str(orphan.hold(rid))[0] for rid in (RID, "new")] == ["o", "o"]
    assert [orphan.settle(rid, charge=5).code for rid in (RID, "new")] == [1, 1]
    assert orphan.account("s", "h", "n") == [10, 0, 0]


def test_of_a_member_that_was_brought_back_first_nothing_is_freed(lua: Lua) -> None:
    lua.of("ann").bring()
    lua.by("ann").reserve()
    lua.open(epoch=2)
    lua.of("ann").bring()
    assert str(lua.hold()).startswith("h ")  # a member has no holds to make orphans of
    lua.by("ann").settle(charge=5)
    assert lua.of("ann").account("s", "h", "n") == [5, 0, 0]


def test_a_charge_that_no_account_counts_is_an_event_without_a_number(bare: Lua) -> None:
    bare.open()
    reply = bare.settle("lost", epoch=0, charge=30)
    assert (reply.code, reply.limit, reply.from_allowance) == (3, 0, 30)
    (row,) = bare.rows()
    assert (row.account_seq, row.charged_tokens, row.epoch) == (0, 30, 1)
    bare.bring()
    bare.reserve()
    bare.settle()
    assert [row.account_seq for row in bare.rows()] == [0, 1]


def test_events_are_numbered_anew_in_each_epoch(lua: Lua) -> None:
    for epoch in (1, 2):
        lua.open(epoch)
        if epoch == 2:
            lua.bring()
        for n in range(3):
            lua.reserve(f"{epoch}-{n}")
            lua.settle(f"{epoch}-{n}", epoch=epoch)
    assert [row.account_seq for row in lua.rows()] == [1, 2, 3, 1, 2, 3]


# --- the quiet time -------------------------------------------------------------------------------


def test_nothing_is_reserved_before_the_quiet_time_is_over(lua: Lua) -> None:
    lua.run("open", epoch=2, quiet=500, awaited="g1 g2", now=NOW_MS)
    lua.bring()
    before = lua.everything()
    for passed, wait in ((0, 500), (1, 499), (499, 1)):
        reply = lua.reserve(now=NOW_MS + passed)
        assert (reply.code, reply.wait, reply.epoch) == (-1, wait, 2)
    assert lua.everything() == before
    assert lua.reserve(now=NOW_MS + 500).code == 1


def test_it_is_over_when_all_who_are_awaited_have_caught_up(lua: Lua) -> None:
    lua.run("open", epoch=2, quiet=500, awaited="g1 g2", now=NOW_MS)
    lua.bring()
    for gateway, wait in (("g1", 500), ("g1", 500), ("g3", 500), ("g2", 0), ("g2", 0)):
        before = lua.everything()
        code = lua.run("caught_up", epoch=2, gateway=gateway)[0]
        assert code == (lua.everything() != before)
        assert lua.reserve(now=NOW_MS).wait == wait
    assert lua.reserve(now=NOW_MS).code > 0


@pytest.mark.parametrize("changes", [{"epoch": 1}, {"epoch": 3}, {"gateway": "g3"}])
def test_who_is_not_awaited_changes_nothing(lua: Lua, changes: dict[str, Value]) -> None:
    lua.run("open", epoch=2, quiet=500, awaited="g1 g2", now=NOW_MS)
    before = lua.everything()
    assert lua.run("caught_up", **{"epoch": 2, **changes}) == [0]
    assert lua.everything() == before


def test_where_nobody_is_awaited_there_is_no_quiet_time(lua: Lua) -> None:
    lua.run("open", epoch=2, quiet=500, awaited="g1", now=NOW_MS)
    lua.run("open", epoch=3, quiet=500, now=NOW_MS)
    lua.bring()
    assert lua.reserve(now=NOW_MS).code == 1
    before = lua.everything()
    assert lua.run("caught_up", epoch=3) == [0]
    assert lua.everything() == before


def test_what_gateways_bring_in_the_quiet_time_is_booked(lua: Lua) -> None:
    lua.reserve()
    lua.run("open", epoch=2, quiet=500, awaited="g1", now=NOW_MS)
    assert lua.settle(charge=30).code == 1
    assert lua.settle("lost", charge=20).code == 3
    assert [lua.settle(rid, charge=9).code for rid in (RID, "lost")] == [0, 0]
    assert lua.hydrate("begin").code == 1
    assert sum(row.charged_tokens for row in lua.rows()) == 50
    assert lua.reserve("next", now=ENDS_MS - 1).code == -2
