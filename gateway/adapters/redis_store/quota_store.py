"""The QuotaStore port on Redis: arguments in, typed replies out, one method a script.

Where a reply names a rid, the calls check it against the rid that was sent: a reply of another call
counts as none. How calls travel is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from gateway.adapters.redis_store.arguments import (
    NONE,
    SERVER_CLOCK,
    SEVEN,
    TWELVE,
    beside_the_month,
    given,
    joined,
    packs_of,
    told,
)
from gateway.adapters.redis_store.calls import Calls
from gateway.adapters.redis_store.keys import (
    SCHEMA_VERSION,
    AccountKeys,
    HoldKeys,
    account_keys,
    hold_keys,
    hold_keys_of,
    keys_of_name,
    member_keys,
    shard_keys,
    tier_key,
)
from gateway.adapters.redis_store.replies import reserve_reply, settle_reply
from gateway.adapters.redis_store.scripts import Script
from gateway.adapters.redis_store.stream_facts import stream_facts
from gateway.core.event import format_split
from gateway.core.quota.entitle import (
    EntitleCode,
    Entitlement,
    EntitleReply,
    FinishCode,
    Hydration,
    LedgerSums,
    Snapshot,
)
from gateway.core.quota.reassert import OpenCall, ReassertCode, ReassertReply
from gateway.core.quota.reserve import ReserveAsk, ReserveReply
from gateway.core.quota.settle import Correction, LapsedHold, Settlement, SettleReply
from gateway.ports.quota_store import ShardState, StoreUnavailable


class RedisQuotaStore:
    """Fulfils ports.quota_store.QuotaStore. `shards` must be what the server was opened with."""

    def __init__(self, calls: Calls, scripts: Mapping[str, Script], shards: int) -> None:
        self._calls = calls
        self._scripts = scripts
        self._shards = shards
        self._reserve_script, self._settle_script = scripts["reserve"], scripts["settle"]

    # `reserve` and `settle` bring the coroutine of the call itself: every request asks for both.
    def reserve(self, ask: ReserveAsk) -> Coroutine[Any, Any, ReserveReply]:
        rid, member, limits = ask.rid, ask.member, ask.limits
        keys = hold_keys(ask.payer, ask.tier, member, self._shards)
        return self._calls.run(
            self._reserve_script, keys.reserve,
            (
                rid, f"{keys.name} {rid}",
                TWELVE % (
                    ask.rev, ask.rev if member is None else ask.member_rev, ask.period_start_ms,
                    ask.period_end_ms, ask.prompt_tokens, ask.output_wanted, ask.output_least,
                    ask.choices, ask.prompt_nano_gbp, ask.output_nano_gbp, ask.lease_ms,
                    limits.tokens,
                ),
                beside_the_month(limits), ask.tail, SERVER_CLOCK,
            ),
            rid, reserve_reply,
        )  # fmt: skip

    async def extend(self, payer: str, rid: str, progress_tokens: int, lease_ms: int) -> bool:
        keys = account_keys(payer, self._shards)
        reply = await self._calls.run(
            self._scripts["extend"],
            (keys.holds, keys.of_shard.leases),
            (rid, keys.member(rid), progress_tokens, lease_ms),
            rid,
        )
        return bool(reply[0] == 1)

    async def reassert(self, told: OpenCall) -> ReassertReply:
        keys = account_keys(told.payer, self._shards)
        reply = await self._calls.run(
            self._scripts["reassert"],
            (
                keys.of_shard.meta, keys.account, keys.holds, keys.of_shard.leases,
                tier_key(told.tier, keys.shard), *self._member_account(told.payer, told.member),
            ),
            (
                told.rid, keys.member(told.rid),
                SEVEN % (
                    told.epoch, told.period_start_ms, told.output_tokens, told.hold_tokens,
                    told.hold_nano_gbp, told.progress_tokens, told.lease_ms,
                ),
                given(told.tier_period_start_ms), told.tail, SERVER_CLOCK,
            ),
            told.rid,
        )  # fmt: skip
        return ReassertReply(ReassertCode(reply[0]), reply[2])

    def settle(self, settlement: Settlement) -> Coroutine[Any, Any, asyncio.Future[SettleReply]]:
        each = settlement
        return self._settle(each, hold_keys(each.payer, each.tier, each.member, self._shards))

    async def expire(self, lapsed: LapsedHold, settlement: Settlement) -> SettleReply:
        of_member = self._member_account(settlement.payer, settlement.member)
        keys = hold_keys_of(keys_of_name(lapsed.account, lapsed.shard), settlement.tier, of_member)
        return await (await self._settle(settlement, keys))

    def _settle(
        self, settlement: Settlement, keys: HoldKeys
    ) -> Coroutine[Any, Any, asyncio.Future[SettleReply]]:
        rid, tier_starts_ms = settlement.rid, settlement.tier_period_start_ms
        return self._calls.send(
            self._settle_script, keys.settle,
            (
                rid, f"{keys.name} {rid}", settlement.kind,
                SEVEN % (
                    settlement.epoch, settlement.period_start_ms, settlement.charged_tokens,
                    settlement.cost_nano_gbp, settlement.grace_ms, settlement.limit_tokens,
                    settlement.period_end_ms,
                ),
                NONE if tier_starts_ms is None else tier_starts_ms,
                joined(*settlement.thresholds_percent), settlement.event_json, SERVER_CLOCK,
            ),
            rid, settle_reply,
        )  # fmt: skip

    async def correct(self, correction: Correction) -> bool:
        keys = account_keys(correction.payer, self._shards)
        of_shard = keys.of_shard
        reply = await self._calls.run(
            self._scripts["correct"],
            (
                of_shard.meta, keys.account, keys.holds, of_shard.endings, keys.packs,
                tier_key(correction.tier, keys.shard),
                *self._member_account(correction.payer, correction.member),
            ),
            (
                correction.rid, keys.member(correction.rid), correction.epoch,
                correction.stream_id, correction.period_start_ms, correction.charged_tokens,
                correction.cost_nano_gbp, given(correction.tier_period_start_ms),
                format_split(correction.pack_split), SERVER_CLOCK,
            ),
            correction.rid,
        )  # fmt: skip
        return bool(reply[0] == 1)

    async def entitle(self, entitlement: Entitlement, period_end_ms: int) -> EntitleReply:
        keys = self._account(entitlement.payer, entitlement.member)
        reply = await self._calls.run(
            self._scripts["entitle"],
            (keys.of_shard.meta, keys.account, keys.packs),
            (
                entitlement.rev, entitlement.period_start_ms, period_end_ms,
                entitlement.adjusted_tokens, told(entitlement.packs), SERVER_CLOCK,
            ),
        )  # fmt: skip
        return EntitleReply(EntitleCode(reply[0]), reply[2])

    async def hydrate_begin(
        self, payer: str, member: str | None, period_start_ms: int, period_end_ms: int
    ) -> Hydration | None:
        reply = await self._hydrate(
            payer, member, ("begin", period_start_ms, period_end_ms, "", 0, 0, 0, 0, 0, "")
        )
        if reply[0] == -1:
            return None
        return Hydration(
            ready=reply[0] == 2,
            token=reply[1].decode(),
            stream_id=reply[2].decode(),
            epoch=reply[3],
            period_start_ms=reply[4],
        )

    async def hydrate_finish(
        self, payer: str, member: str | None, hydration: Hydration, sums: LedgerSums
    ) -> FinishCode:
        reply = await self._hydrate(
            payer,
            member,
            (
                "finish", hydration.period_start_ms, hydration.period_start_ms, hydration.token,
                sums.settled_tokens, sums.from_packs, sums.adjusted_tokens, sums.cost_nano_gbp,
                sums.rev, told(sums.packs),
            ),
        )  # fmt: skip
        return FinishCode(reply[0])

    async def snapshot(self, payer: str, member: str | None = None) -> Snapshot | None:
        keys = self._account(payer, member)
        reply = await self._calls.run(
            self._scripts["snapshot"],
            (keys.of_shard.meta, keys.account, keys.packs, keys.of_shard.outbox),
            (),
        )
        if reply[0] != 1:
            return None
        return Snapshot(*[*reply[1:11], reply[11].decode(), packs_of(reply[12].decode())])

    async def forget(self, account: str, shard: int) -> bool:
        keys = keys_of_name(account, shard)
        reply = await self._calls.run(
            self._scripts["forget"],
            (keys.of_shard.meta, keys.account, keys.packs),
            (SERVER_CLOCK,),
        )
        return bool(reply[0] == 1)

    async def epochs(self) -> dict[int, int]:
        asked = [("HGET", shard_keys(shard).meta, "e") for shard in range(self._shards)]
        told = await self._calls.commands(asked)
        return {
            shard: int(epoch or 0)
            for shard, epoch in enumerate(told)
            if not isinstance(epoch, StoreUnavailable)
        }

    async def has_event(self, shard: int, stream_id: str, is_booked: bool) -> bool:
        key = shard_keys(shard).outbox
        if await self._calls.command("XRANGE", key, stream_id, stream_id):
            return True
        return is_booked and (await stream_facts(self._calls, key)).had(stream_id)

    async def known(self, calls: Sequence[tuple[str, str]]) -> Sequence[bool]:
        keys = [account_keys(payer, self._shards).holds for payer, _ in calls]
        asked = [("HEXISTS", key, rid) for key, (_, rid) in zip(keys, calls, strict=True)]
        told = await self._calls.commands(asked) if asked else []
        for each in told:
            if isinstance(each, StoreUnavailable):
                raise each
        return [bool(each) for each in told]

    async def shard_state(self, shard: int) -> ShardState:
        keys = shard_keys(shard)
        epoch, schema, awaited = await self._calls.command("HMGET", keys.meta, "e", "v", "w")
        how = (schema is None or int(schema) >= SCHEMA_VERSION, awaited is not None)
        newest_id = (await stream_facts(self._calls, keys.outbox)).newest_id
        return ShardState(int(epoch or 0), newest_id, *how)

    async def open_shard(
        self, shard: int, epoch: int, cursor: str, quiet_ms: int, awaited: Sequence[str]
    ) -> int:
        keys = shard_keys(shard)
        named = " ".join(awaited)
        _, in_force, shards, schema = await self._calls.run(
            self._scripts["open"],
            (keys.meta, keys.outbox),
            (epoch, self._shards, SCHEMA_VERSION, cursor, quiet_ms, named, SERVER_CLOCK),
        )
        if shards != self._shards:
            raise StoreUnavailable(
                f"Redis was opened with {shards} shards, this gateway has {self._shards}: "
                f"set redis.shards to {shards}"
            )
        if schema != SCHEMA_VERSION:
            raise StoreUnavailable(
                f"Redis holds data of schema {schema}, this release reads {SCHEMA_VERSION}: let "
                "the other release drain it, then empty it (FLUSHDB); the ledger brings it back"
            )
        return int(in_force)

    async def caught_up(self, shard: int, epoch: int, gateway_id: str) -> None:
        keys = shard_keys(shard)
        await self._calls.run(self._scripts["caught_up"], (keys.meta,), (epoch, gateway_id))

    async def _hydrate(
        self, payer: str, member: str | None, args: tuple[str | int, ...]
    ) -> list[Any]:
        keys = self._account(payer, member)
        of_shard = keys.of_shard
        holds = (keys.holds,) if member is None else ()
        reply: list[Any] = await self._calls.run(
            self._scripts["hydrate"],
            (of_shard.meta, keys.account, keys.packs, of_shard.outbox, *holds),
            (*args, SERVER_CLOCK),
        )
        return reply

    def _account(self, payer: str, member: str | None) -> AccountKeys:
        if member is None:
            return account_keys(payer, self._shards)
        return member_keys(payer, member, self._shards)

    def _member_account(self, payer: str, member: str | None) -> tuple[str, ...]:
        return () if member is None else (member_keys(payer, member, self._shards).account,)
