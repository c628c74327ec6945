"""settle.lua: a hold ends once, its charge and its event are one step."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from tests.lua.script_calls import (
    DAY_MS,
    ENDS_MS,
    GRACE_MS,
    LEASE_MS,
    NOW_MS,
    RID,
    STARTS_MS,
    Lua,
)

NEXT = {"starts": ENDS_MS, "ends": ENDS_MS + DAY_MS, "now": ENDS_MS}

# --- a charge ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("charge", "overdraft"), [(0, 0), (149, 0), (150, 0), (151, 1), (900, 750)]
)
def test_the_hold_is_gone_the_charge_is_used_and_the_event_says_both(
    lua: Lua, charge: int, overdraft: int
) -> None:
    lua.reserve("other")
    lua.reserve()
    reply = lua.settle(charge=charge, cost=7)
    assert (reply.code, reply.rid, reply.overdraft) == (1, RID, overdraft)
    assert (reply.used, reply.held, reply.limit) == (charge, 150, 100_000)
    assert lua.account("s", "h", "n", "g", "q") == [charge, 150, 1, 7, 1]
    assert (lua.hold(), lua.lease(), lua.kept_until()) == (None, None, None)
    (row,) = lua.rows()
    assert (row.event_id, row.kind, row.stream_id) == (RID, "usage", reply.stream_id)
    assert (row.charged_tokens, row.cost_nano_gbp) == (charge, 7)
    assert (row.held_tokens, row.overdraft_tokens) == (150, overdraft)
    assert (row.from_allowance, row.from_packs) == (charge, 0)
    assert (row.period_ms, row.epoch, row.account_seq) == (STARTS_MS, 1, 1)


def test_the_second_settle_changes_nothing(lua: Lua) -> None:
    lua.reserve()
    lua.settle(charge=10)
    before = lua.everything()
    for changes in ({"charge": 10}, {"charge": 99}, {"period": 0}):
        assert lua.settle(**changes).code == 0
    assert lua.everything() == before


def test_two_hundred_settles_of_twenty_holds_at_once_charge_twenty(
    lua: Lua, redis_url: str
) -> None:
    for n in range(20):
        lua.reserve(f"r{n}")

    def end(worker: int) -> int:
        with redis.Redis.from_url(redis_url, protocol=2) as client:
            mine = Lua(client, lua.keys)
            return sum(mine.settle(f"r{(n + worker) % 20}", charge=10).code for n in range(20))

    with ThreadPoolExecutor(10) as workers:
        assert sum(workers.map(end, range(10))) == 20
    assert lua.account("s", "h", "n", "q") == [200, 0, 0, 20]
    assert [row.account_seq for row in lua.rows()] == list(range(1, 21))


def test_numbers_of_sixteen_digits_keep_every_digit(lua: Lua) -> None:
    large = 2**53 - 1
    lua.reserve(limit=large, prompt=large - 1, wanted=0, least=0)
    lua.settle(charge=large, cost=large)
    assert lua.account("s", "g", "h") == [large, large, 0]
    assert (lua.rows()[0].charged_tokens, lua.rows()[0].from_allowance) == (large, large)


def test_a_settle_of_a_rid_never_seen_is_nothing(lua: Lua) -> None:
    before = lua.everything()
    assert lua.settle("unseen").code == 0
    assert lua.everything() == before


def test_a_charge_belongs_to_the_period_of_its_hold(lua: Lua) -> None:
    lua.reserve("old")
    lua.reserve("late")
    lua.settle("old", charge=10, cost=3, now=ENDS_MS)  # nobody has asked in the new period yet
    assert lua.account("ps", "s", "g") == [STARTS_MS, 10, 3]
    lua.reserve("new", **NEXT)
    reply = lua.settle("late", charge=30, period=ENDS_MS, now=ENDS_MS)  # the hold knows better
    assert (reply.code, reply.used, reply.held) == (1, 0, 150)
    assert lua.account("ps", "s", "g", "lps", "ls") == [ENDS_MS, 0, 0, STARTS_MS, 40]
    lua.settle("new", charge=5, cost=2, now=ENDS_MS)
    assert lua.account("s", "g", "ls") == [5, 2, 40]
    assert [row.period_ms for row in lua.rows()] == [STARTS_MS, STARTS_MS, ENDS_MS]


def test_a_charge_of_two_periods_ago_is_in_its_event_and_in_no_figure(lua: Lua) -> None:
    lua.reserve("old")
    lua.reserve("mid", **NEXT)
    lua.reserve("new", starts=ENDS_MS + DAY_MS, ends=ENDS_MS + 2 * DAY_MS, now=ENDS_MS + DAY_MS)
    assert lua.settle("old", charge=30).code == 1
    assert lua.account("s", "ls", "h", "n") == [0, 0, 300, 2]
    assert (lua.rows()[0].period_ms, lua.rows()[0].charged_tokens) == (STARTS_MS, 30)


# --- release ----------------------------------------------------------------------------------


def test_a_release_frees_the_hold_without_an_event(lua: Lua) -> None:
    lua.reserve()
    reply = lua.settle(kind="release", charge=0, cost=0)
    assert (reply.code, reply.used, reply.held, reply.stream_id) == (4, 0, 0, "")
    assert lua.account("s", "h", "n", "q") == [0, 0, 0, 0]
    assert (lua.hold(), lua.lease(), lua.rows()) == (None, None, [])


def test_after_a_release_a_settle_charges_nothing(lua: Lua) -> None:
    lua.reserve()
    lua.settle(kind="release")
    assert lua.settle(charge=10).code == 0
    assert lua.account("s", "h", "q") == [0, 0, 0]


def test_a_release_that_comes_before_its_reserve_wins(lua: Lua) -> None:
    assert lua.settle(kind="release").code == 4
    assert (lua.hold(), lua.kept_until()) == ("v", NOW_MS + 60_000)
    before = lua.everything()
    assert lua.settle(kind="release", now=NOW_MS + 5).code == 4
    assert lua.reserve().code == -5
    assert lua.settle(charge=10).code == 0
    assert lua.everything() == before


def test_a_release_before_any_account_survives_its_hydration(bare: Lua) -> None:
    bare.open()
    assert bare.settle(kind="release").code == 4
    bare.bring()
    assert bare.reserve().code == -5


# --- expiry -----------------------------------------------------------------------------------

DUE_MS = NOW_MS + LEASE_MS + GRACE_MS


def test_a_hold_does_not_expire_before_its_lease_and_grace_are_over(lua: Lua) -> None:
    lua.reserve()
    before = lua.everything()
    assert lua.settle(kind="expire", now=DUE_MS - 1).code == 5
    assert lua.everything() == before
    reply = lua.settle(kind="expire", charge=120, cost=9, now=DUE_MS)
    assert (reply.code, reply.used, reply.held) == (1, 120, 0)
    assert (lua.hold(), lua.lease(), lua.kept_until()) == ("x 120 9", None, DUE_MS + DAY_MS)
    assert lua.account("s", "h", "n", "g", "q") == [120, 0, 0, 9, 1]


def test_a_heartbeat_between_the_sweep_and_its_expiry_wins(lua: Lua) -> None:
    lua.reserve()
    lua.extend(lease=2**50)
    assert lua.settle(kind="expire", now=DUE_MS).code == 5
    assert lua.account("h", "n") == [150, 1]


def test_the_second_expiry_changes_nothing(lua: Lua) -> None:
    lua.reserve()
    lua.settle(kind="expire", now=DUE_MS)
    before = lua.everything()
    assert lua.settle(kind="expire", charge=5, now=DUE_MS + 1).code == 0
    assert lua.reserve().code == -5
    assert lua.everything() == before


def test_an_expiry_of_what_is_not_held_is_nothing(lua: Lua) -> None:
    lua.settle("released", kind="release")
    before = lua.everything()
    for rid in ("unseen", "released"):
        assert lua.settle(rid, kind="expire", now=DUE_MS).code == 0
    assert lua.everything() == before


@pytest.mark.parametrize(("charge", "cost"), [(200, 10), (50, 2), (120, 9), (0, 0)])
def test_a_settle_after_the_expiry_corrects_it_to_the_true_charge(
    lua: Lua, charge: int, cost: int
) -> None:
    lua.reserve()
    lua.settle(kind="expire", charge=120, cost=9, now=DUE_MS)
    reply = lua.settle(charge=charge, cost=cost, now=DUE_MS)
    assert (reply.code, reply.used, reply.held) == (2, charge, 0)
    assert lua.account("s", "g", "h", "n", "q") == [charge, cost, 0, 0, 2]
    _, row = lua.rows()
    assert (row.kind, row.corrects) == ("correction", RID)
    assert (row.charged_tokens, row.cost_nano_gbp) == (charge - 120, cost - 9)
    assert (row.from_allowance, row.held_tokens, row.account_seq) == (charge - 120, 0, 2)
    assert (lua.hold(), lua.kept_until()) == (None, None)
    before = lua.everything()
    assert lua.settle(charge=charge, cost=cost, now=DUE_MS).code == 0
    assert lua.everything() == before


def test_a_correction_goes_to_the_period_of_the_hold(lua: Lua) -> None:
    lua.reserve()
    lua.settle(kind="expire", charge=120, now=ENDS_MS)
    lua.reserve("new", **NEXT)
    reply = lua.settle(charge=20, now=ENDS_MS)
    assert (reply.code, reply.used) == (2, 0)
    assert lua.account("s", "ls") == [0, 20]
    assert [row.period_ms for row in lua.rows()] == [STARTS_MS, STARTS_MS]


# --- epochs -----------------------------------------------------------------------------------


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


def test_a_hold_of_an_older_epoch_frees_nothing_of_the_new_account(lua: Lua) -> None:
    lua.reserve()
    lua.open(epoch=2)
    lua.bring()
    lua.reserve("new")
    assert lua.settle(charge=30).code == 3
    assert lua.account("s", "h", "n") == [30, 150, 1]


def test_a_shard_without_meta_books_nothing(bare: Lua) -> None:
    for kind in ("settle", "release", "expire"):
        assert bare.settle(kind=kind, now="").code == -1
    assert bare.everything() == {}
