"""settle.lua: a hold ends once, its charge and its event are one step."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from tests.lua.script_calls import (
    DAY_MS,
    ENDS_MS,
    FAR_MS,
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
    assert (reply.from_allowance, reply.from_packs, reply.epoch) == (charge, 0, 1)
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


def test_the_largest_amounts_keep_every_digit(lua: Lua) -> None:
    large = 10**15 - 1
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
    assert lua.account("ps", "s", "g") == [ENDS_MS, 0, 0]
    assert lua.last_period() == (STARTS_MS, 40, 100_000)
    lua.settle("new", charge=5, cost=2, now=ENDS_MS)
    assert lua.account("s", "g") == [5, 2]
    assert lua.last_period() == (STARTS_MS, 40, 100_000)
    assert [row.period_ms for row in lua.rows()] == [STARTS_MS, STARTS_MS, ENDS_MS]


def test_a_charge_that_nothing_was_held_for_brings_its_period_and_counts_once(lua: Lua) -> None:
    """The server was away when the call began, and nobody has reserved in the new period yet."""
    lua.reserve("old")
    lua.settle("old", charge=10)
    unheld = {"epoch": 0, "period": ENDS_MS, "ends": ENDS_MS + DAY_MS, "now": ENDS_MS}
    reply = lua.settle("unheld", charge=30, cost=3, **unheld)
    assert (reply.code, reply.used, reply.held) == (3, 30, 0)
    assert lua.account("ps", "pe", "s", "g") == [ENDS_MS, ENDS_MS + DAY_MS, 30, 3]
    assert lua.last_period() == (STARTS_MS, 10, 100_000)
    before = lua.everything()
    assert lua.settle("unheld", charge=30, cost=3, **unheld).code == 0
    assert lua.everything() == before
    assert lua.reserve("new", **NEXT).used == 30
    lua.settle("other", charge=5, epoch=0, period=STARTS_MS, ends=ENDS_MS, now=ENDS_MS)
    assert lua.account("ps", "s") == [ENDS_MS, 30]
    assert lua.last_period() == (STARTS_MS, 15, 100_000)


def test_a_charge_of_two_periods_ago_is_in_its_event_and_in_no_figure(lua: Lua) -> None:
    lua.reserve("old")
    lua.reserve("mid", **NEXT)
    lua.reserve("new", starts=ENDS_MS + DAY_MS, ends=ENDS_MS + 2 * DAY_MS, now=ENDS_MS + DAY_MS)
    assert lua.settle("old", charge=30).code == 1
    assert lua.account("s", "h", "n") == [0, 300, 2]
    assert lua.last_period() == (ENDS_MS, 0, 100_000)
    assert (lua.rows()[0].period_ms, lua.rows()[0].charged_tokens) == (STARTS_MS, 30)


# --- release ----------------------------------------------------------------------------------


def test_a_release_frees_the_hold_without_an_event(lua: Lua) -> None:
    lua.reserve()
    reply = lua.settle(kind="release", charge=0, cost=0)
    assert (reply.code, reply.used, reply.held, reply.stream_id) == (4, 0, 0, "")
    assert lua.account("s", "h", "n", "q") == [0, 0, 0, 0]
    assert (lua.lease(), lua.rows()) == (None, [])


def test_a_release_is_found_by_a_reserve_that_was_sent_twice(lua: Lua) -> None:
    """The first copy of it lay in a connection that was stuck."""
    lua.reserve()
    lua.settle(kind="release")
    assert (lua.hold(), lua.kept_until()) == ("v", NOW_MS + 60_000)
    before = lua.everything()
    assert lua.settle(kind="release", now=NOW_MS + 5).code == 4
    assert lua.reserve().code == -5
    assert lua.everything() == before


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
    assert lua.hold() == f"x 120 9 150 {NOW_MS} -"
    assert (lua.lease(), lua.kept_until()) == (None, DUE_MS + DAY_MS)
    assert lua.account("s", "h", "n", "g", "q") == [120, 0, 0, 9, 1]


def test_a_heartbeat_between_the_sweep_and_its_expiry_wins(lua: Lua) -> None:
    lua.reserve()
    lua.extend(lease=FAR_MS)
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


@pytest.mark.parametrize("kind", ["settle", "release"])
@pytest.mark.parametrize(("charge", "cost"), [(200, 10), (50, 2), (120, 9), (0, 0)])
def test_an_ending_after_the_expiry_corrects_it_to_the_true_charge(
    lua: Lua, charge: int, cost: int, kind: str
) -> None:
    lua.reserve()
    lua.settle(kind="expire", charge=120, cost=9, now=DUE_MS)
    reply = lua.settle(kind=kind, charge=charge, cost=cost, now=DUE_MS)
    assert (reply.code, reply.used, reply.held) == (2, charge, 0)
    assert reply.overdraft == max(0, charge - 150)
    assert lua.account("s", "g", "h", "n", "q") == [charge, cost, 0, 0, 2]
    _, row = lua.rows()
    assert (row.kind, row.corrects) == ("correction", RID)
    assert (row.charged_tokens, row.cost_nano_gbp) == (charge - 120, cost - 9)
    assert (row.from_allowance, row.held_tokens, row.account_seq) == (charge - 120, 0, 2)
    assert lua.hold() == (None if kind == "settle" else "d")
    assert lua.kept_until() == (None if kind == "settle" else DUE_MS + DAY_MS)
    before = lua.everything()
    for repeated, code in (("settle", 0), (kind, 0 if kind == "settle" else 4)):
        assert lua.settle(kind=repeated, charge=charge, cost=cost, now=DUE_MS).code == code
    assert lua.everything() == before


def test_a_correction_goes_to_the_period_of_the_hold(lua: Lua) -> None:
    lua.reserve()
    lua.settle(kind="expire", charge=120, now=ENDS_MS)
    lua.reserve("new", **NEXT)
    reply = lua.settle(charge=20, now=ENDS_MS)
    assert (reply.code, reply.used) == (2, 0)
    assert lua.account("s") == [0]
    assert lua.last_period() == (STARTS_MS, 20, 100_000)
    assert [row.period_ms for row in lua.rows()] == [STARTS_MS, STARTS_MS]


@pytest.mark.parametrize(
    ("expired_at", "settled_at", "overdraft"), [(100, 160, 10), (170, 160, -10), (170, 100, -20)]
)
def test_a_correction_tells_how_the_overdraft_changed(
    lua: Lua, expired_at: int, settled_at: int, overdraft: int
) -> None:
    lua.reserve()
    lua.settle(kind="expire", charge=expired_at, now=DUE_MS)
    assert lua.settle(charge=settled_at, now=DUE_MS).overdraft == overdraft
    assert sum(row.overdraft_tokens for row in lua.rows()) == max(0, settled_at - 150)


def test_a_shard_without_meta_books_nothing(bare: Lua) -> None:
    for kind in ("settle", "release", "expire"):
        assert bare.settle(kind=kind, now="").code == -1
    assert bare.everything() == {}


# --- a member and the tier ----------------------------------------------------------------------


def test_a_members_call_counts_in_both_accounts_and_in_the_tier(lua: Lua) -> None:
    lua.of("ann").bring()
    lua.share(1_000)
    by_ann = lua.by("ann")
    by_ann.reserve(tier_starts=STARTS_MS, prompt_cost=4)
    for account in (lua, lua.of("ann")):
        assert account.account("h", "n", "gh") == [150, 1, 4]
    assert lua.tier_sums("p", "s", "h") == [STARTS_MS, 0, 150]
    assert by_ann.settle(tier_starts=STARTS_MS, charge=30, cost=3).code == 1
    for account in (lua, lua.of("ann")):
        assert account.account("s", "h", "n", "g", "gh") == [30, 0, 0, 3, 0]
    assert lua.tier_sums("p", "s", "h") == [STARTS_MS, 30, 0]
    assert lua.rows()[0].tier_period_start_ms == STARTS_MS
    assert lua.account("q") == [1]


def test_a_members_release_frees_all_three(lua: Lua) -> None:
    lua.of("ann").bring()
    lua.share(1_000)
    lua.by("ann").reserve(tier_starts=STARTS_MS)
    lua.by("ann").settle(kind="release", tier_starts=STARTS_MS)
    assert [each.account("s", "h", "n") for each in (lua, lua.of("ann"))] == [[0, 0, 0]] * 2
    assert lua.tier_sums("s", "h") == [0, 0]


def test_a_tier_counts_in_the_period_it_was_asked_in(lua: Lua) -> None:
    later = STARTS_MS + 5
    lua.share(1_000)
    for rid in ("old", "older"):
        lua.reserve(rid, tier_starts=STARTS_MS)
    lua.settle("old", charge=7, tier_starts=STARTS_MS)
    lua.reserve("new", tier_starts=later)
    assert lua.tier_sums("p", "s", "h") == [later, 0, 300]
    lua.settle("older", charge=8, tier_starts=STARTS_MS)
    lua.settle("new", charge=9, tier_starts=later)
    assert lua.tier_sums("p", "s", "h") == [later, 9, 0]


@pytest.mark.parametrize("gone", ["payer", "member", "tier", "other epoch"])
def test_who_is_not_there_refuses_no_settlement(lua: Lua, gone: str) -> None:
    lua.of("ann").bring()
    lua.share(1_000)
    lua.by("ann").reserve(tier_starts=STARTS_MS)
    if gone == "other epoch":
        lua.client.hset(lua.tier, "e", 9)
    else:
        key = {"payer": lua.keys.account, "member": lua.of("ann").keys.account, "tier": lua.tier}
        lua.client.delete(key[gone])
    assert lua.by("ann").settle(tier_starts=STARTS_MS, charge=30).code == 1
    there = {"payer": lua.of("ann"), "member": lua}.get(gone, lua)
    assert there.account("s") == [30]
    assert lua.account("h", "n") == [0, 0]
    assert lua.tier_sums("e", "s") == [1, 30]  # begun anew where there was none of this epoch
    assert len(lua.rows()) == 1
