"""The quota store as its port promises it: on a real server, and on the fake that unit tests use.

What only one of the two can do is no part of this suite: memory limits, broken connections and
concurrency are tested on the real server alone (`test_redis_calls.py`, `tests/lua/`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gateway.adapters.redis_store.keys import shard_keys
from gateway.adapters.redis_store.streams import RedisStreams, open_client
from gateway.core.event import LedgerRow, ledger_row
from gateway.core.identity import shard_of
from gateway.ports.quota_store import (
    EntitleCode,
    Entitlement,
    LapsedHold,
    QuotaStore,
    ReserveCode,
    SettleCode,
    SettleReply,
    StoreRejected,
    StoreUnavailable,
)
from tests.contract.quota_samples import (
    ENDS_MS,
    PAYER,
    SHARD,
    SHARDS,
    STARTS_MS,
    ask,
    bring,
    ledger_sums,
    open_store,
    rid_of,
    settlement,
)
from tests.fakes.store import fake_stores

OTHER = next(f"other{n}" for n in range(99) if shard_of(f"other{n}", SHARDS) != SHARD)


@dataclass(frozen=True)
class Stand:
    """A store, and what the jobs read of it."""

    store: QuotaStore
    streams: RedisStreams
    client: Any

    async def end(self, number: int = 1, **changes: Any) -> SettleReply:
        return await (await self.store.settle(settlement(number, **changes)))

    async def lapsed(self) -> LapsedHold:
        (found,) = await self.streams.lapsed(SHARD, 0, 10)
        return found

    async def rows(self) -> list[LedgerRow]:
        entries = await self.streams.read({SHARD: "0-0"}, 100, 1)
        return [ledger_row(e.shard, e.stream_id, e.event_json, e.script_part) for e in entries]


@pytest.fixture(params=["real", "fake"])
def real_url(request: pytest.FixtureRequest) -> str | None:
    return str(request.getfixturevalue("redis_url")) if request.param == "real" else None


@pytest.fixture
async def empty(real_url: str | None) -> AsyncIterator[Stand]:
    """A store whose server knows nothing."""
    if real_url is None:
        async with fake_stores() as fake:
            yield Stand(fake.store, fake.streams, fake.client)
        return
    async with open_store(real_url) as opened:
        client = open_client(real_url)
        yield Stand(opened.store, RedisStreams(client, SHARDS), client)
        await client.aclose()


@pytest.fixture
async def stand(empty: Stand) -> Stand:
    """A store with an account that has used nothing."""
    await bring(empty.store)
    return empty


# --- shards -----------------------------------------------------------------------------------


async def test_a_shard_is_opened_once(empty: Stand) -> None:
    assert await empty.store.epoch(SHARD) == 0
    assert await empty.store.open_shard(SHARD, 7, "0-0") == 7
    assert await empty.store.open_shard(SHARD, 9, "5-5") == 7
    assert await empty.store.epoch(SHARD) == 7
    assert await empty.store.epoch(1 - SHARD) == 0


async def test_a_shard_opened_past_a_cursor_never_gives_an_id_before_it(empty: Stand) -> None:
    await empty.store.open_shard(SHARD, 2, f"{2**50}-3")
    await bring(empty.store)
    await empty.store.reserve(ask())
    assert (await empty.end(epoch=2)).stream_id == f"{2**50}-4"


async def test_a_server_opened_with_other_shards_is_not_used(empty: Stand) -> None:
    await empty.store.open_shard(SHARD, 1, "0-0")
    await empty.client.hset(shard_keys(SHARD).meta, "n", 16)
    with pytest.raises(StoreUnavailable, match=r"with 16 shards .* set redis.shards to 16"):
        await empty.store.open_shard(SHARD, 1, "0-0")


# --- reserve ------------------------------------------------------------------------------------


async def test_a_grant_tells_all_that_the_answer_needs(stand: Stand) -> None:
    reply = await stand.store.reserve(ask(multiplier=2))
    assert reply.code is ReserveCode.HELD
    assert (reply.output_tokens, reply.hold_tokens) == (50, 200)
    assert (reply.used_tokens, reply.held_tokens) == (0, 200)
    assert (reply.limit_tokens, reply.pack_tokens) == (1_000_000, 0)
    assert (reply.period_start_ms, reply.period_end_ms) == (STARTS_MS, ENDS_MS)
    assert (reply.rev, reply.epoch) == (0, 1)
    assert reply.now_ms > 1_700_000_000_000


async def test_the_same_rid_holds_once(stand: Stand) -> None:
    await stand.store.reserve(ask())
    again = await stand.store.reserve(ask(prompt_tokens=7))
    assert (again.code, again.hold_tokens) == (ReserveCode.HELD_BEFORE, 150)
    assert again.held_tokens == 150


async def test_a_lowered_cap_is_what_is_left(stand: Stand) -> None:
    reply = await stand.store.reserve(ask(limit_tokens=149, multiplier=3, output_least=16))
    assert (reply.code, reply.output_tokens, reply.hold_tokens) == (ReserveCode.HELD, 16, 148)


async def test_what_does_not_fit_is_refused_and_leaves_nothing(stand: Stand) -> None:
    assert (await stand.store.reserve(ask(limit_tokens=109))).code is ReserveCode.MONTH
    await stand.store.reserve(ask(1, limit_tokens=150))
    reply = await stand.store.reserve(ask(2, limit_tokens=150))
    assert (reply.code, reply.hold_tokens, reply.held_tokens) == (ReserveCode.IN_FLIGHT, 0, 150)
    assert await stand.streams.count(SHARD) == 1


async def test_what_must_be_mended_first_is_told(empty: Stand) -> None:
    assert (await empty.store.reserve(ask())).code is ReserveCode.NOT_READY
    await empty.store.open_shard(SHARD, 1, "0-0")
    assert (await empty.store.reserve(ask())).code is ReserveCode.HYDRATE
    await bring(empty.store, ends_ms=2, rev=5)
    stale = await empty.store.reserve(ask(rev=4))
    assert (stale.code, stale.rev) == (ReserveCode.STALE, 5)
    assert (await empty.store.reserve(ask(rev=5, period_end_ms=2))).code is ReserveCode.PERIOD
    assert (await empty.store.reserve(ask(rev=5, period_start_ms=2))).code is ReserveCode.HELD


async def test_what_was_released_unseen_never_holds(stand: Stand) -> None:
    assert (await stand.end(kind="release")).code is SettleCode.RELEASED
    assert (await stand.store.reserve(ask())).code is ReserveCode.ENDED


async def test_payers_have_nothing_to_do_with_each_other(stand: Stand) -> None:
    await bring(stand.store, OTHER)
    await stand.store.reserve(ask(1))
    reply = await stand.store.reserve(ask(2, payer=OTHER))
    assert (reply.code, reply.held_tokens) == (ReserveCode.HELD, 150)
    snapshot = await stand.store.snapshot(OTHER)
    assert snapshot is not None
    assert (snapshot.held_tokens, snapshot.open_holds) == (150, 1)


async def test_a_call_that_is_wrong_is_rejected(stand: Stand) -> None:
    with pytest.raises(StoreRejected, match="reserve: an argument is not a whole amount"):
        await stand.store.reserve(ask(prompt_tokens=-1))
    assert await stand.streams.count(SHARD) == 0


# --- settle -----------------------------------------------------------------------------------


async def test_a_settlement_charges_frees_and_tells(stand: Stand) -> None:
    await stand.store.reserve(ask())
    reply = await stand.end(charged_tokens=200, cost_nano_gbp=2**53 - 1)
    assert reply.code is SettleCode.SETTLED
    assert (reply.used_tokens, reply.held_tokens) == (200, 0)
    assert (reply.limit_tokens, reply.overdraft_tokens) == (1_000_000, 50)
    (row,) = await stand.rows()
    assert (row.event_id, row.stream_id, row.shard) == (rid_of(1), reply.stream_id, SHARD)
    assert (row.charged_tokens, row.cost_nano_gbp) == (200, 2**53 - 1)
    assert (row.held_tokens, row.overdraft_tokens) == (150, 50)
    assert (row.epoch, row.account_seq, row.period_ms) == (1, 1, STARTS_MS)


async def test_the_second_settlement_changes_nothing(stand: Stand) -> None:
    await stand.store.reserve(ask())
    await stand.end()
    again = await stand.end(charged_tokens=999)
    assert (again.code, again.used_tokens, again.stream_id) == (SettleCode.NOTHING_OPEN, 120, "")
    assert len(await stand.rows()) == 1


async def test_a_release_frees_without_an_event(stand: Stand) -> None:
    await stand.store.reserve(ask())
    reply = await stand.end(kind="release", charged_tokens=0, cost_nano_gbp=0)
    assert (reply.code, reply.held_tokens, reply.stream_id) == (SettleCode.RELEASED, 0, "")
    assert await stand.rows() == []


async def test_a_lapsed_hold_expires_and_a_late_settlement_corrects_it(stand: Stand) -> None:
    await stand.store.reserve(ask(lease_ms=0))
    lapsed = await stand.lapsed()
    ending = settlement(kind="expire", charged_tokens=130, cost_nano_gbp=9)
    assert (await stand.store.expire(lapsed, ending)).code is SettleCode.SETTLED
    assert (await stand.store.expire(lapsed, ending)).code is SettleCode.NOTHING_OPEN
    late = await stand.end(charged_tokens=100, cost_nano_gbp=4)
    assert (late.code, late.used_tokens) == (SettleCode.CORRECTED, 100)
    assert [row.kind for row in await stand.rows()] == ["usage", "correction"]
    assert [row.charged_tokens for row in await stand.rows()] == [130, -30]
    assert [row.cost_nano_gbp for row in await stand.rows()] == [9, -5]


async def test_a_hold_whose_lease_runs_does_not_expire(stand: Stand) -> None:
    await stand.store.reserve(ask(lease_ms=0))
    lapsed = await stand.lapsed()
    assert await stand.store.extend(PAYER, rid_of(1), 17, 60_000)
    ending = settlement(kind="expire")
    assert (await stand.store.expire(lapsed, ending)).code is SettleCode.LEASE_RUNS
    await stand.store.extend(PAYER, rid_of(1), 3, 0)
    ending = replace(ending, grace_ms=60_000)
    assert (await stand.store.expire(lapsed, ending)).code is SettleCode.LEASE_RUNS
    assert (await stand.lapsed()).progress_tokens == 17


async def test_an_ended_hold_is_not_extended(stand: Stand) -> None:
    await stand.store.reserve(ask())
    await stand.end()
    assert not await stand.store.extend(PAYER, rid_of(1), 1, 60_000)
    assert await stand.streams.count(SHARD) == 0


async def test_a_hold_of_a_lost_epoch_is_booked_once(empty: Stand) -> None:
    lost: dict[str, Any] = {"epoch": 1, "charged_tokens": 30}
    assert (await empty.end(**lost)).code is SettleCode.NOT_READY
    await empty.store.open_shard(SHARD, 2, "0-0")
    assert (await empty.end(**lost)).code is SettleCode.LATE
    await bring(empty.store, settled_tokens=30)
    assert (await empty.end(**lost)).code is SettleCode.NOTHING_OPEN
    snapshot = await empty.store.snapshot(PAYER)
    assert snapshot is not None
    assert (snapshot.settled_tokens, snapshot.epoch) == (30, 2)


# --- entitlements and hydration -------------------------------------------------------------------


async def test_a_projection_is_taken_once_and_in_order(empty: Stand) -> None:
    entitlement = Entitlement(PAYER, rev=3, period_start_ms=STARTS_MS, adjusted_tokens=-40)
    assert await empty.store.entitle(entitlement, ENDS_MS) is EntitleCode.NOT_READY
    await empty.store.open_shard(SHARD, 1, "0-0")
    assert await empty.store.entitle(entitlement, ENDS_MS) is EntitleCode.ABSENT
    await bring(empty.store, settled_tokens=100)
    assert await empty.store.entitle(entitlement, ENDS_MS) is EntitleCode.PROJECTED
    assert await empty.store.entitle(entitlement, ENDS_MS) is EntitleCode.OLDER
    later = replace(entitlement, rev=4, period_start_ms=ENDS_MS)
    assert await empty.store.entitle(later, ENDS_MS + 1) is EntitleCode.PERIOD
    assert (await empty.store.reserve(ask(rev=3))).used_tokens == 60


async def test_a_hydration_adds_what_was_settled_meanwhile_and_is_finished_once(
    empty: Stand,
) -> None:
    assert await empty.store.hydrate_begin(PAYER, STARTS_MS, ENDS_MS) is None
    await empty.store.open_shard(SHARD, 2, "0-0")
    await empty.end(1, epoch=1, charged_tokens=100)
    begun = await empty.store.hydrate_begin(PAYER, STARTS_MS, ENDS_MS)
    assert begun is not None
    assert (begun.ready, begun.epoch, begun.period_start_ms) == (False, 2, STARTS_MS)
    await empty.end(2, epoch=1, charged_tokens=20)
    first, second = await empty.rows()
    assert first.stream_id == begun.stream_id != second.stream_id
    assert await empty.store.hydrate_begin(PAYER, STARTS_MS, ENDS_MS) == begun
    sums = ledger_sums(settled_tokens=100, adjusted_tokens=-5, cost_nano_gbp=7, rev=3)
    assert await empty.store.hydrate_finish(PAYER, begun, sums)
    assert not await empty.store.hydrate_finish(PAYER, begun, sums)
    snapshot = await empty.store.snapshot(PAYER)
    assert snapshot is not None
    assert (snapshot.settled_tokens, snapshot.adjusted_tokens) == (120, -5)
    assert (snapshot.cost_nano_gbp, snapshot.rev) == (3_007, 3)
    ready = await empty.store.hydrate_begin(PAYER, STARTS_MS, ENDS_MS)
    assert ready is not None
    assert ready.ready


async def test_a_snapshot_is_of_one_moment(stand: Stand) -> None:
    assert await stand.store.snapshot(OTHER) is None
    await stand.store.reserve(ask(1))
    await stand.store.reserve(ask(2))
    reply = await stand.end(1)
    snapshot = await stand.store.snapshot(PAYER)
    assert snapshot is not None
    assert (snapshot.settled_tokens, snapshot.held_tokens, snapshot.open_holds) == (120, 150, 1)
    assert (snapshot.cost_nano_gbp, snapshot.stream_id) == (3_000, reply.stream_id)
    assert (snapshot.period_start_ms, snapshot.period_end_ms) == (STARTS_MS, ENDS_MS)
