"""The QuotaStore port on Redis: arguments in, typed replies out, one method a script.

Every reply that names a rid is checked against the rid that was sent; a reply of another call is
treated as no reply (the leak of 20 March 2023 at OpenAI was exactly this, with this client).
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from gateway.adapters.redis_store.calls import Calls
from gateway.adapters.redis_store.keys import (
    SCHEMA_VERSION,
    account_keys,
    keys_of_name,
    shard_keys,
)
from gateway.adapters.redis_store.scripts import Script
from gateway.ports.quota_store import (
    EntitleCode,
    Entitlement,
    Hydration,
    LapsedHold,
    LedgerSums,
    ReserveAsk,
    ReserveCode,
    ReserveReply,
    SettleCode,
    Settlement,
    SettleReply,
    Snapshot,
    StoreUnavailable,
)

_SERVER_CLOCK = ""  # the scripts' last argument: no clock of ours


class RedisQuotaStore:
    """Fulfils ports.quota_store.QuotaStore. `shards` must be what the server was opened with."""

    def __init__(self, calls: Calls, scripts: Mapping[str, Script], shards: int) -> None:
        self._calls = calls
        self._scripts = scripts
        self._shards = shards

    async def reserve(self, ask: ReserveAsk) -> ReserveReply:
        keys = account_keys(ask.payer, self._shards)
        reply = await self._calls.run(
            self._scripts["reserve"],
            (keys.of_shard.meta, keys.account, keys.holds, keys.of_shard.leases),
            (
                ask.rid,
                keys.member(ask.rid),
                ask.rev,
                ask.period_start_ms,
                ask.period_end_ms,
                ask.limit_tokens,
                ask.prompt_tokens,
                ask.output_wanted,
                ask.output_least,
                ask.multiplier,
                ask.lease_ms,
                ask.tail,
                _SERVER_CLOCK,
            ),
        )
        _check_echo(reply, ask.rid)
        return ReserveReply(ReserveCode(reply[0]), *reply[2:])

    async def extend(self, payer: str, rid: str, progress_tokens: int, lease_ms: int) -> bool:
        keys = account_keys(payer, self._shards)
        reply = await self._calls.run(
            self._scripts["extend"],
            (keys.holds, keys.of_shard.leases),
            (rid, keys.member(rid), progress_tokens, lease_ms),
        )
        _check_echo(reply, rid)
        return bool(reply[0] == 1)

    async def settle(self, settlement: Settlement) -> Coroutine[Any, Any, SettleReply]:
        keys = account_keys(settlement.payer, self._shards)
        return await self._send_settle(settlement, keys.name, keys.shard)

    async def expire(self, lapsed: LapsedHold, settlement: Settlement) -> SettleReply:
        return await (await self._send_settle(settlement, lapsed.account, lapsed.shard))

    async def _send_settle(
        self, settlement: Settlement, account: str, shard: int
    ) -> Coroutine[Any, Any, SettleReply]:
        keys = keys_of_name(account, shard)
        of_shard = keys.of_shard
        reply = await self._calls.send(
            self._scripts["settle"],
            (
                of_shard.meta,
                keys.account,
                keys.holds,
                of_shard.leases,
                of_shard.outbox,
                of_shard.endings,
            ),
            (
                settlement.rid,
                keys.member(settlement.rid),
                settlement.kind,
                settlement.epoch,
                settlement.period_start_ms,
                settlement.charged_tokens,
                settlement.cost_nano_gbp,
                settlement.grace_ms,
                settlement.event_json,
                _SERVER_CLOCK,
            ),
        )
        return _settle_reply(reply, settlement.rid)

    async def entitle(self, entitlement: Entitlement, period_end_ms: int) -> EntitleCode:
        keys = account_keys(entitlement.payer, self._shards)
        reply = await self._calls.run(
            self._scripts["entitle"],
            (keys.of_shard.meta, keys.account),
            (
                entitlement.rev,
                entitlement.period_start_ms,
                period_end_ms,
                entitlement.adjusted_tokens,
            ),
        )
        return EntitleCode(reply[0])

    async def hydrate_begin(
        self, payer: str, period_start_ms: int, period_end_ms: int
    ) -> Hydration | None:
        reply = await self._hydrate(
            payer, ("begin", period_start_ms, period_end_ms, "", 0, 0, 0, 0)
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

    async def hydrate_finish(self, payer: str, hydration: Hydration, sums: LedgerSums) -> bool:
        reply = await self._hydrate(
            payer,
            (
                "finish",
                hydration.period_start_ms,
                hydration.period_start_ms,
                hydration.token,
                sums.settled_tokens,
                sums.adjusted_tokens,
                sums.cost_nano_gbp,
                sums.rev,
            ),
        )
        return bool(reply[0] == 3)

    async def snapshot(self, payer: str) -> Snapshot | None:
        keys = account_keys(payer, self._shards)
        reply = await self._calls.run(
            self._scripts["snapshot"],
            (keys.of_shard.meta, keys.account, keys.of_shard.outbox),
            (),
        )
        if reply[0] != 1:
            return None
        settled, adjusted, held, open_holds, nano_gbp, starts, ends, rev, epoch, stream_id = reply[
            1:
        ]
        return Snapshot(
            settled_tokens=settled,
            adjusted_tokens=adjusted,
            held_tokens=held,
            open_holds=open_holds,
            cost_nano_gbp=int(nano_gbp),
            period_start_ms=starts,
            period_end_ms=ends,
            rev=rev,
            epoch=epoch,
            stream_id=stream_id.decode(),
        )

    async def epoch(self, shard: int) -> int:
        return int(await self._calls.command("HGET", shard_keys(shard).meta, "e") or 0)

    async def open_shard(self, shard: int, epoch: int, cursor: str) -> int:
        keys = shard_keys(shard)
        reply = await self._calls.run(
            self._scripts["open"],
            (keys.meta, keys.outbox),
            (epoch, self._shards, SCHEMA_VERSION, cursor),
        )
        _, in_force, shards, schema = reply
        if shards != self._shards or schema != SCHEMA_VERSION:
            raise StoreUnavailable(
                f"Redis was opened with {shards} shards and schema {schema}, this gateway has "
                f"{self._shards} and {SCHEMA_VERSION}: set redis.shards to {shards}"
            )
        return int(in_force)

    async def _hydrate(self, payer: str, args: tuple[str | int, ...]) -> list[Any]:
        keys = account_keys(payer, self._shards)
        of_shard = keys.of_shard
        return await self._calls.run(
            self._scripts["hydrate"],
            (of_shard.meta, keys.account, keys.holds, of_shard.outbox),
            (*args, _SERVER_CLOCK),
        )


async def _settle_reply(reply: Coroutine[Any, Any, list[Any]], rid: str) -> SettleReply:
    fields = await reply
    _check_echo(fields, rid)
    code, _, used, held, limit, overdraft, stream_id = fields
    return SettleReply(SettleCode(code), used, held, limit, overdraft, stream_id.decode())


def _check_echo(reply: list[Any], rid: str) -> None:
    if len(reply) < 2 or reply[1] != rid.encode():
        raise StoreUnavailable("the reply belongs to another call")
