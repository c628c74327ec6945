"""The quota store as its port promises it: on a real server, and on the fake that unit tests use.

What only one of the two can do is no part of this suite: memory limits, broken connections and
concurrency are tested on the real server alone (`test_redis_calls.py`, `test_limits.py`,
`tests/lua/`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from msgspec import structs

from gateway.adapters.redis_store.keys import shard_keys, tier_key
from gateway.adapters.redis_store.leases import RedisLeases
from gateway.adapters.redis_store.streams import RedisStreams
from gateway.core.event import LedgerRow, ledger_row
from gateway.core.quota.entitle import EntitleCode, Entitlement, FinishCode, Pack, Snapshot
from gateway.core.quota.reserve import Limits, ReserveCode
from gateway.core.quota.settle import LapsedHold, SettleCode, SettleReply
from gateway.ports.quota_store import QuotaStore, ShardState, StoreRejected, StoreUnavailable
from tests.contract.quota_samples import (
    ENDS_MS,
    PAYER,
    SHARD,
    SHARDS,
    STARTS_MS,
    ask,
    bring,
    correction,
    ledger_sums,
    open_jobs,
    open_store,
    payer_in,
    reserve_lapsed,
    rid_of,
    settlement,
)
from tests.fakes.store import fake_stores

OTHER = payer_in(1 - SHARD, "other")
PACKS = (Pack("first", 100, ENDS_MS - 1), Pack("second", 1_000, ENDS_MS))


@dataclass(frozen=True)
class Stand:
    """A store, and what the jobs read of it."""

    store: QuotaStore
    streams: Any
    leases: Any
    client: Any

    async def end(self, number: int = 1, **changes: Any) -> SettleReply:
        return await (await self.store.settle(settlement(number, **changes)))

    async def lapsed(self) -> LapsedHold:
        found: LapsedHold
        (found,) = await self.leases.lapsed(SHARD, 0, 10)
        return found

    async def rows(self) -> list[LedgerRow]:
        entries = await self.streams.read({SHARD: "0-0"}, 100, 0)
        return [ledger_row(e.shard, e.stream_id, e.event_json, e.script_part) for e in entries]

    async def seen(self, member: str | None = None) -> Snapshot:
        found = await self.store.snapshot(PAYER, member)
        assert found is not None
        return found

    async def share(self, tokens: int, tier: str = "free") -> None:
        """Hand out a share of a capped tier, as the jobs do."""
        fields = {"e": 1, "p": STARTS_MS, "s": 0, "h": 0, "c": tokens}
        await self.client.hset(tier_key(tier, SHARD), mapping=fields)


@pytest.fixture(params=["redis_url", "cluster_url", "fake"])
def real_url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "fake" else str(request.getfixturevalue(request.param))


@pytest.fixture
async def empty(real_url: str | None) -> AsyncIterator[Stand]:
    """A store whose server knows nothing."""
    if real_url is None:
        async with fake_stores() as fake:
            streams, leases = RedisStreams(fake.client, SHARDS), RedisLeases(fake.client, SHARDS)
            yield Stand(fake.store, streams, leases, fake.client)
        return
    async with open_store(real_url) as opened, open_jobs(real_url) as jobs:
        yield Stand(opened.store, jobs.streams, jobs.leases, jobs.client)


@pytest.fixture
async def stand(empty: Stand) -> Stand:
    """A store with an account that has used nothing."""
    await bring(empty.store)
    return empty


# --- shards -----------------------------------------------------------------------------------


async def test_an_epoch_is_opened_and_raised_and_never_falls(empty: Stand) -> None:
    assert await empty.store.shard_state(SHARD) == ShardState(0, "0-0")
    assert await empty.store.open_shard(SHARD, 7, "0-0", 0, ()) == 7
    assert await empty.store.open_shard(SHARD, 7, "5-5", 0, ()) == 7
    assert await empty.store.open_shard(SHARD, 6, "5-5", 0, ()) == 7
    assert await empty.store.shard_state(SHARD) == ShardState(7, "0-0")
    assert await empty.store.open_shard(SHARD, 9, "5-5", 0, ()) == 9
    assert await empty.store.shard_state(SHARD) == ShardState(9, "5-5")
    assert await empty.store.shard_state(1 - SHARD) == ShardState(0, "0-0")


async def test_a_shard_opened_past_a_cursor_never_gives_an_id_before_it(empty: Stand) -> None:
    await empty.store.open_shard(SHARD, 2, f"{2**50}-3", 0, ())
    await bring(empty.store)
    await empty.store.reserve(ask())
    assert (await empty.end(epoch=2)).stream_id == f"{2**50}-4"
    assert await empty.store.shard_state(SHARD) == ShardState(2, f"{2**50}-4")


async def test_in_the_quiet_time_accounts_come_back_and_nothing_is_reserved(empty: Stand) -> None:
    await empty.store.open_shard(SHARD, 3, "0-0", 60_000, ("first", "second"))
    await bring(empty.store)
    await empty.store.open_shard(SHARD, 3, "0-0", 0, ())  # too late to shorten it
    assert (await empty.end(epoch=2)).code is SettleCode.LATE
    for epoch, gateway in ((3, "first"), (3, "first"), (2, "second"), (3, "secon"), (3, "")):
        await empty.store.caught_up(SHARD, epoch, gateway)
        reply = await empty.store.reserve(ask(2))
        assert reply.code is ReserveCode.NOT_READY
        assert 0 < reply.wait_ms <= 60_000
    await empty.store.caught_up(1 - SHARD, 3, "second")
    await empty.store.caught_up(SHARD, 3, "second")
    assert (await empty.store.reserve(ask(2))).code is ReserveCode.HELD


@pytest.mark.parametrize(("quiet_ms", "awaited"), [(60_000, ()), (0, ("lost",)), (1, ("lost",))])
async def test_without_anybody_to_wait_for_or_after_its_time_the_quiet_is_over(
    empty: Stand, quiet_ms: int, awaited: tuple[str, ...]
) -> None:
    await empty.store.open_shard(SHARD, 1, "0-0", quiet_ms, awaited)
    await bring(empty.store)
    while (reply := await empty.store.reserve(ask())).code is ReserveCode.NOT_READY:
        assert reply.wait_ms <= quiet_ms == 1
    assert reply.code is ReserveCode.HELD
    await empty.store.caught_up(SHARD, 1, "lost")  # comes late, and changes nothing
    assert (await empty.store.reserve(ask(2))).code is ReserveCode.HELD


async def test_a_raised_epoch_takes_every_account_out_of_force(stand: Stand) -> None:
    await stand.store.reserve(ask())
    await stand.store.open_shard(SHARD, 2, "0-0", 0, ())
    assert await stand.store.snapshot(PAYER) is None
    assert (await stand.store.reserve(ask(2))).code is ReserveCode.HYDRATE
    await bring(stand.store)
    reply = await stand.end(1, epoch=1)  # the hold is an orphan: charged, and nothing is freed
    assert (reply.code, reply.held_tokens, reply.used_tokens) == (SettleCode.SETTLED, 0, 120)
    assert (reply.epoch, (await stand.seen()).epoch) == (2, 2)


async def test_a_server_opened_with_other_shards_is_not_used(empty: Stand) -> None:
    await empty.store.open_shard(SHARD, 1, "0-0", 0, ())
    await empty.client.hset(shard_keys(SHARD).meta, "n", 16)
    with pytest.raises(StoreUnavailable, match=r"with 16 shards.*set redis.shards to 16"):
        await empty.store.open_shard(SHARD, 1, "0-0", 0, ())


# --- reserve ------------------------------------------------------------------------------------


async def test_a_grant_tells_all_that_the_answer_needs(stand: Stand) -> None:
    reply = await stand.store.reserve(ask(choices=2, prompt_nano_gbp=700, output_nano_gbp=20))
    assert reply.code is ReserveCode.HELD
    assert (reply.output_tokens, reply.hold_tokens, reply.hold_nano_gbp) == (50, 200, 2_700)
    assert (reply.used_tokens, reply.held_tokens) == (0, 200)
    assert (reply.limit_tokens, reply.pack_tokens, reply.spent_nano_gbp) == (1_000_000, 0, 0)
    assert (reply.period_start_ms, reply.period_end_ms) == (STARTS_MS, ENDS_MS)
    assert (reply.rev, reply.member_rev, reply.epoch, reply.wait_ms) == (0, 0, 1, 0)
    assert reply.now_ms > 1_700_000_000_000


async def test_the_same_rid_holds_once(stand: Stand) -> None:
    await stand.store.reserve(ask(prompt_nano_gbp=70))
    again = await stand.store.reserve(ask(prompt_tokens=7, limits=Limits(1)))
    assert (again.code, again.hold_tokens) == (ReserveCode.HELD_BEFORE, 150)
    assert (again.hold_nano_gbp, again.held_tokens, again.output_tokens) == (70, 150, 50)


async def test_a_lowered_cap_is_what_is_left(stand: Stand) -> None:
    reply = await stand.store.reserve(ask(limits=Limits(149), choices=3, output_least=16))
    assert (reply.code, reply.output_tokens, reply.hold_tokens) == (ReserveCode.HELD, 16, 148)


async def test_what_does_not_fit_is_refused_and_leaves_nothing(stand: Stand) -> None:
    refused = await stand.store.reserve(ask(limits=Limits(109)))
    assert refused.code is ReserveCode.MONTH
    assert refused.wait_ms == ENDS_MS - refused.now_ms
    await stand.store.reserve(ask(1, limits=Limits(150)))
    reply = await stand.store.reserve(ask(2, limits=Limits(150)))
    assert (reply.code, reply.hold_tokens, reply.held_tokens) == (ReserveCode.IN_FLIGHT, 0, 150)
    assert reply.wait_ms == 0
    assert await stand.leases.count(SHARD) == 1


async def test_what_must_be_mended_first_is_told(empty: Stand) -> None:
    assert (await empty.store.reserve(ask())).code is ReserveCode.NOT_READY
    await empty.store.open_shard(SHARD, 1, "0-0", 0, ())
    assert (await empty.store.reserve(ask())).code is ReserveCode.HYDRATE
    await bring(empty.store, ends_ms=2, rev=5)
    stale = await empty.store.reserve(ask(rev=4))
    assert (stale.code, stale.rev) == (ReserveCode.STALE, 5)
    assert (await empty.store.reserve(ask(rev=5, period_end_ms=2))).code is ReserveCode.PERIOD
    assert (await empty.store.reserve(ask(rev=5, period_start_ms=2))).code is ReserveCode.HELD


async def test_a_member_s_account_is_mended_like_the_team_s(stand: Stand) -> None:
    wanted = ask(member="ann", member_rev=3)
    assert (await stand.store.reserve(wanted)).code is ReserveCode.HYDRATE
    await bring(stand.store, PAYER, "ann", rev=4)
    stale = await stand.store.reserve(wanted)
    assert (stale.code, stale.rev, stale.member_rev) == (ReserveCode.STALE, 0, 4)
    known = structs.replace(wanted, member_rev=4)
    assert (await stand.store.reserve(known)).code is ReserveCode.HELD
    assert (await stand.seen("ann")).held_tokens == (await stand.seen()).held_tokens == 150


async def test_what_was_released_unseen_never_holds(stand: Stand) -> None:
    assert (await stand.end(kind="release")).code is SettleCode.RELEASED
    assert (await stand.store.reserve(ask())).code is ReserveCode.ENDED


async def test_payers_have_nothing_to_do_with_each_other(stand: Stand) -> None:
    await bring(stand.store, OTHER)
    await stand.store.reserve(ask(1))
    reply = await stand.store.reserve(ask(2, payer=OTHER))
    assert (reply.code, reply.held_tokens) == (ReserveCode.HELD, 150)
    assert ((await stand.seen()).held_tokens, (await stand.seen()).open_holds) == (150, 1)


@pytest.mark.parametrize("wrong", [{"prompt_tokens": -1}, {"choices": 0}, {"output_least": 51}])
async def test_a_call_that_is_wrong_is_rejected(stand: Stand, wrong: dict[str, int]) -> None:
    with pytest.raises(StoreRejected, match="reserve: an argument is "):
        await stand.store.reserve(ask(**wrong))
    assert await stand.leases.count(SHARD) == 0


# --- settle -----------------------------------------------------------------------------------


async def test_a_settlement_charges_frees_and_tells(stand: Stand) -> None:
    await stand.store.reserve(ask())
    reply = await stand.end(charged_tokens=200, cost_nano_gbp=10**15 - 1)
    assert reply.code is SettleCode.SETTLED
    assert (reply.used_tokens, reply.held_tokens) == (200, 0)
    assert (reply.limit_tokens, reply.overdraft_tokens, reply.epoch) == (1_000_000, 50, 1)
    assert (reply.from_allowance, reply.from_packs, reply.crossed_percent) == (200, 0, 0)
    (row,) = await stand.rows()
    assert (row.event_id, row.stream_id, row.shard) == (rid_of(1), reply.stream_id, SHARD)
    assert (row.charged_tokens, row.cost_nano_gbp) == (200, 10**15 - 1)
    assert (row.held_tokens, row.overdraft_tokens) == (150, 50)
    assert (row.epoch, row.account_seq, row.period_ms) == (1, 1, STARTS_MS)
    assert (row.pack_split, row.tier_period_start_ms, row.crossed_percent) == ((), None, 0)


async def test_the_second_settlement_changes_nothing(stand: Stand) -> None:
    await stand.store.reserve(ask())
    await stand.end()
    again = await stand.end(charged_tokens=999)
    assert (again.code, again.used_tokens, again.stream_id) == (SettleCode.NOTHING_OPEN, 120, "")
    assert len(await stand.rows()) == 1


async def test_a_charge_tells_the_highest_threshold_that_it_crossed(stand: Stand) -> None:
    told = []
    for number, charged_tokens in enumerate((79, 1, 5, 15, 30)):
        await stand.store.reserve(ask(number, limits=Limits(100), prompt_tokens=0, output_least=0))
        ending = {"charged_tokens": charged_tokens, "thresholds_percent": (50, 80, 100)}
        told.append((await stand.end(number, **ending)).crossed_percent)
    assert told == [50, 80, 0, 100, 0]
    assert [row.crossed_percent for row in await stand.rows()] == told


async def test_packs_pay_what_the_allowance_does_not_and_earliest_end_first(empty: Stand) -> None:
    await bring(empty.store, packs=PACKS)
    reply = await empty.store.reserve(ask(limits=Limits(60)))
    assert (reply.code, reply.limit_tokens, reply.pack_tokens) == (ReserveCode.HELD, 60, 1_100)
    ended = await empty.end(charged_tokens=200)
    assert (ended.from_allowance, ended.from_packs, ended.used_tokens) == (60, 140, 60)
    (row,) = await empty.rows()
    assert (row.from_packs, row.pack_split) == (140, (("first", 100), ("second", 40)))
    seen = await empty.seen()
    assert (seen.settled_tokens, seen.from_packs) == (200, 140)
    assert seen.packs == (Pack("first", 0, ENDS_MS - 1), Pack("second", 960, ENDS_MS))


async def test_a_settlement_counts_for_member_and_tier(stand: Stand) -> None:
    await bring(stand.store, PAYER, "ann")
    await stand.share(500)
    limits = Limits(1_000_000, tier_period_start_ms=STARTS_MS)
    await stand.store.reserve(ask(member="ann", limits=limits))
    assert await stand.client.hget(tier_key("free", SHARD), "h") == b"150"
    await stand.end(member="ann", tier_period_start_ms=STARTS_MS)
    assert await stand.client.hmget(tier_key("free", SHARD), "s", "h") == [b"120", b"0"]
    member = await stand.seen("ann")
    assert (member.settled_tokens, member.held_tokens, member.open_holds) == (120, 0, 0)
    (row,) = await stand.rows()
    assert (row.member, row.tier_period_start_ms) == ("ann", STARTS_MS)


async def test_a_release_frees_without_an_event(stand: Stand) -> None:
    await stand.store.reserve(ask())
    reply = await stand.end(kind="release", charged_tokens=0, cost_nano_gbp=0)
    assert (reply.code, reply.held_tokens, reply.stream_id) == (SettleCode.RELEASED, 0, "")
    assert await stand.rows() == []


async def test_a_lapsed_hold_expires_and_a_late_settlement_corrects_it(stand: Stand) -> None:
    await reserve_lapsed(stand.store, ask())
    lapsed = await stand.lapsed()
    ending = settlement(kind="expire", charged_tokens=130, cost_nano_gbp=9)
    assert (await stand.store.expire(lapsed, ending)).code is SettleCode.SETTLED
    assert (await stand.store.expire(lapsed, ending)).code is SettleCode.NOTHING_OPEN
    late = await stand.end(charged_tokens=100, cost_nano_gbp=4)
    assert (late.code, late.used_tokens) == (SettleCode.CORRECTED, 100)
    assert [row.kind for row in await stand.rows()] == ["usage", "correction"]
    assert [row.charged_tokens for row in await stand.rows()] == [130, -30]
    assert [row.cost_nano_gbp for row in await stand.rows()] == [9, -5]


async def test_a_release_that_comes_after_the_expiry_takes_all_of_it_back(empty: Stand) -> None:
    await bring(empty.store, packs=PACKS)
    await reserve_lapsed(empty.store, ask(limits=Limits(60)))
    lapsed, ending = await empty.lapsed(), settlement(kind="expire", charged_tokens=200)
    assert (await empty.store.expire(lapsed, ending)).from_packs == 140
    nothing = structs.replace(ending, kind="release", charged_tokens=0, cost_nano_gbp=0)
    late = await (await empty.store.settle(nothing))
    assert (late.code, late.from_allowance, late.from_packs) == (SettleCode.CORRECTED, -60, -140)
    seen = await empty.seen()
    assert (seen.settled_tokens, seen.cost_nano_gbp, seen.packs) == (0, 0, PACKS)
    assert (await empty.rows())[1].pack_split == (("second", -40), ("first", -100))


async def test_a_hold_whose_lease_runs_does_not_expire(stand: Stand) -> None:
    await reserve_lapsed(stand.store, ask())
    lapsed = await stand.lapsed()
    assert await stand.store.extend(PAYER, rid_of(1), 17, 60_000)
    ending = settlement(kind="expire")
    assert (await stand.store.expire(lapsed, ending)).code is SettleCode.LEASE_RUNS
    await stand.store.extend(PAYER, rid_of(1), 3, 0)
    ending = structs.replace(ending, grace_ms=60_000)
    assert (await stand.store.expire(lapsed, ending)).code is SettleCode.LEASE_RUNS
    assert (await stand.lapsed()).progress_tokens == 17


async def test_an_ended_hold_is_not_extended(stand: Stand) -> None:
    await stand.store.reserve(ask())
    await stand.end()
    assert not await stand.store.extend(PAYER, rid_of(1), 1, 60_000)
    assert await stand.leases.count(SHARD) == 0


async def test_a_hold_of_a_lost_epoch_is_booked_once(empty: Stand) -> None:
    lost: dict[str, Any] = {"epoch": 1, "charged_tokens": 30}
    assert (await empty.end(**lost)).code is SettleCode.NOT_READY
    await empty.store.open_shard(SHARD, 2, "0-0", 0, ())
    assert (await empty.end(**lost)).code is SettleCode.LATE
    await bring(empty.store, settled_tokens=30)
    assert (await empty.end(**lost)).code is SettleCode.NOTHING_OPEN
    assert ((await empty.seen()).settled_tokens, (await empty.seen()).epoch) == (30, 2)


# --- corrections of what was counted twice ----------------------------------------------------


async def test_what_was_counted_twice_is_taken_back_once(empty: Stand) -> None:
    await bring(empty.store, packs=PACKS)
    await bring(empty.store, PAYER, "ann")
    await empty.share(500)
    limits = Limits(60, tier_period_start_ms=STARTS_MS)
    await empty.store.reserve(ask(member="ann", limits=limits))
    await empty.end(charged_tokens=200, member="ann", tier_period_start_ms=STARTS_MS)
    (row,) = await empty.rows()
    wrong = correction(
        stream_id=row.stream_id, member="ann", charged_tokens=200, pack_split=row.pack_split,
        tier_period_start_ms=STARTS_MS,
    )  # fmt: skip
    assert [await empty.store.correct(wrong) for _ in range(2)] == [True, False]
    seen, member = await empty.seen(), await empty.seen("ann")
    assert (seen.settled_tokens, seen.from_packs, seen.cost_nano_gbp) == (0, 0, 0)
    assert (seen.packs, member.settled_tokens) == (PACKS, 0)
    assert await empty.client.hget(tier_key("free", SHARD), "s") == b"0"
    assert len(await empty.rows()) == 1


async def test_what_the_account_never_counted_is_not_taken_back(empty: Stand) -> None:
    await empty.store.open_shard(SHARD, 1, "9-0", 0, ())
    assert not await empty.store.correct(correction())
    await bring(empty.store, settled_tokens=120)
    assert not await empty.store.correct(correction(stream_id="9-0"))  # it was in the ledger's sums
    assert not await empty.store.correct(correction(stream_id="9-1", epoch=2))
    assert (await empty.seen()).settled_tokens == 120
    assert await empty.store.correct(correction(stream_id="9-1"))
    assert (await empty.seen()).settled_tokens == 0


# --- entitlements and hydration -------------------------------------------------------------------


async def test_a_projection_is_taken_once_and_in_order(empty: Stand) -> None:
    told = Entitlement(PAYER, 3, STARTS_MS, adjusted_tokens=-40, packs=PACKS[:1])

    async def code(entitlement: Entitlement, ends_ms: int = ENDS_MS) -> EntitleCode:
        return (await empty.store.entitle(entitlement, ends_ms)).code

    assert await code(told) is EntitleCode.NOT_READY
    await empty.store.open_shard(SHARD, 1, "0-0", 0, ())
    assert await code(told) is EntitleCode.ABSENT
    await bring(empty.store, settled_tokens=100)
    assert await code(told) is EntitleCode.PROJECTED
    assert await code(told) is EntitleCode.OLDER
    later = replace(told, rev=4, period_start_ms=ENDS_MS)
    assert await code(later, ENDS_MS + 1) is EntitleCode.PERIOD
    reply = await empty.store.reserve(ask(rev=3))
    assert (reply.code, reply.used_tokens, reply.pack_tokens) == (ReserveCode.HELD, 60, 100)
    assert (await empty.store.entitle(told, ENDS_MS)).now_ms >= reply.now_ms


async def test_a_pack_never_rises_and_one_that_is_not_told_of_is_forgotten(empty: Stand) -> None:
    await bring(empty.store, packs=PACKS)
    await empty.store.reserve(ask(limits=Limits(0)))
    await empty.end(charged_tokens=130, limit_tokens=0)
    third = Pack("third", 7, ENDS_MS)
    told = Entitlement(PAYER, 1, STARTS_MS, 0, packs=(*PACKS, third))
    await empty.store.entitle(told, ENDS_MS)
    assert [pack.tokens for pack in (await empty.seen()).packs] == [0, 970, 7]
    await empty.store.entitle(replace(told, rev=2, packs=(third,)), ENDS_MS)
    assert (await empty.seen()).packs == (third,)


async def test_a_member_is_projected_beside_the_team(stand: Stand) -> None:
    await bring(stand.store, PAYER, "ann")
    told = Entitlement(PAYER, 5, STARTS_MS, adjusted_tokens=9, member="ann")
    assert (await stand.store.entitle(told, ENDS_MS)).code is EntitleCode.PROJECTED
    assert ((await stand.seen("ann")).rev, (await stand.seen("ann")).adjusted_tokens) == (5, 9)
    assert ((await stand.seen()).rev, (await stand.seen()).adjusted_tokens) == (0, 0)


@pytest.mark.parametrize("member", [None, "ann"])
async def test_a_hydration_adds_what_was_settled_meanwhile_and_is_finished_once(
    empty: Stand, member: str | None
) -> None:
    store, of = empty.store, (PAYER, member)
    assert await store.hydrate_begin(*of, STARTS_MS, ENDS_MS) is None
    await store.open_shard(SHARD, 2, "0-0", 0, ())
    await empty.end(1, epoch=1, charged_tokens=100, member=member)
    begun = await store.hydrate_begin(*of, STARTS_MS, ENDS_MS)
    assert begun is not None
    assert (begun.ready, begun.epoch, begun.period_start_ms) == (False, 2, STARTS_MS)
    await empty.end(2, epoch=1, charged_tokens=20, member=member)
    first, second = await empty.rows()
    assert first.stream_id == begun.stream_id != second.stream_id
    assert await store.hydrate_begin(*of, STARTS_MS, ENDS_MS) == begun
    sums = ledger_sums(settled_tokens=100, adjusted_tokens=-5, cost_nano_gbp=7, rev=3)
    assert await store.hydrate_finish(*of, begun, sums) is FinishCode.FINISHED
    assert await store.hydrate_finish(*of, begun, sums) is FinishCode.GONE
    snapshot = await empty.seen(member)
    assert (snapshot.settled_tokens, snapshot.adjusted_tokens) == (120, -5)
    assert (snapshot.cost_nano_gbp, snapshot.rev) == (3_007, 3)
    ready = await store.hydrate_begin(*of, STARTS_MS, ENDS_MS)
    assert ready is not None
    assert ready.ready


async def test_sums_that_are_older_than_a_projection_are_read_again(empty: Stand) -> None:
    await empty.store.open_shard(SHARD, 1, "0-0", 0, ())
    begun = await empty.store.hydrate_begin(PAYER, None, STARTS_MS, ENDS_MS)
    assert begun is not None
    told = Entitlement(PAYER, 8, STARTS_MS, adjusted_tokens=1)
    assert (await empty.store.entitle(told, ENDS_MS)).code is EntitleCode.PROJECTED
    for rev, code in ((7, FinishCode.OLDER), (8, FinishCode.FINISHED)):
        sums = ledger_sums(adjusted_tokens=rev, rev=rev, from_packs=4, settled_tokens=10)
        assert await empty.store.hydrate_finish(PAYER, None, begun, sums) is code
    seen = await empty.seen()
    assert (seen.rev, seen.adjusted_tokens, seen.settled_tokens, seen.from_packs) == (8, 8, 10, 4)


async def test_a_snapshot_is_of_one_moment(stand: Stand) -> None:
    assert await stand.store.snapshot(OTHER) is None
    assert await stand.store.snapshot(PAYER, "ann") is None
    await stand.store.reserve(ask(1))
    await stand.store.reserve(ask(2))
    reply = await stand.end(1)
    snapshot = await stand.seen()
    assert (snapshot.settled_tokens, snapshot.held_tokens, snapshot.open_holds) == (120, 150, 1)
    assert (snapshot.cost_nano_gbp, snapshot.stream_id) == (3_000, reply.stream_id)
    assert (snapshot.period_start_ms, snapshot.period_end_ms) == (STARTS_MS, ENDS_MS)
