"""The ports of Redis on the simulated server: store, outbox and leases, each behind a link."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.core.quota.entitle import (
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
from gateway.ports.outbox import OutboxEntry
from gateway.ports.quota_store import ShardState
from tests.simulation.auditor import Auditor
from tests.simulation.loop import PROCESS
from tests.simulation.network import Link
from tests.simulation.server import SHARDS, SimServer


class SimStore:
    """Fulfils ports.quota_store.QuotaStore. The auditor sees what happens at the server."""

    def __init__(self, link: Link, server: SimServer, auditor: Auditor) -> None:
        self._link, self._server, self._auditor = link, server, auditor
        self._me = PROCESS.get()

    async def reserve(self, ask: ReserveAsk) -> ReserveReply:
        return await self._link.call("reserve", lambda: self._reserve(ask), ask.rid)

    def _reserve(self, ask: ReserveAsk) -> ReserveReply:
        reply = self._server.of(ask.payer).reserve(ask, self._server.now_ms())
        self._auditor.reserved(ask, reply)
        return reply

    async def extend(self, payer: str, rid: str, progress_tokens: int, lease_ms: int) -> bool:
        def extend() -> bool:
            until_ms = self._server.now_ms() + lease_ms
            done = self._server.of(payer).extend((payer, rid), progress_tokens, until_ms)
            if done:
                self._auditor.extended(rid, until_ms)
            return done

        return await self._link.call("extend", extend, rid)

    async def reassert(self, told: OpenCall) -> ReassertReply:
        def reassert() -> ReassertReply:
            now_ms = self._server.now_ms()
            code = self._server.of(told.payer).reassert(told, now_ms)
            if code is ReassertCode.HELD:
                self._auditor.held_again(told.rid, now_ms + told.lease_ms)
            return ReassertReply(code, now_ms)

        return await self._link.call("reassert", reassert, told.rid)

    async def settle(self, settlement: Settlement) -> asyncio.Future[SettleReply]:
        reply = await self._link.send(
            settlement.kind, lambda: self._settle(settlement), settlement.rid
        )
        reply.add_done_callback(lambda done: self._auditor.confirmed(settlement, done, self._me))
        return reply

    async def expire(self, lapsed: LapsedHold, settlement: Settlement) -> SettleReply:
        return await self._link.call("expire", lambda: self._settle(settlement), lapsed.rid)

    def _settle(self, settlement: Settlement) -> SettleReply:
        model = self._server.of(settlement.payer)
        stream_id, now_ms = self._server.next_id(model), self._server.now_ms()
        reply = model.settle(settlement, now_ms, stream_id)
        self._auditor.settled(settlement, reply)
        if reply.stream_id:
            self._server.tell_readers()
        return reply

    async def correct(self, correction: Correction) -> bool:
        def correct() -> bool:
            return self._server.of(correction.payer).correct(correction, self._server.now_ms())

        return await self._link.call("correct", correct, correction.rid)

    async def entitle(self, entitlement: Entitlement, period_end_ms: int) -> EntitleReply:
        def entitle() -> EntitleReply:
            model = self._server.of(entitlement.payer)
            return model.entitle(entitlement, period_end_ms, self._server.now_ms())

        return await self._link.call("entitle", entitle)

    async def hydrate_begin(
        self, payer: str, member: str | None, period_start_ms: int, period_end_ms: int
    ) -> Hydration | None:
        def begin() -> Hydration | None:
            period_ms, now_ms = (period_start_ms, period_end_ms), self._server.now_ms()
            return self._server.of(payer).hydrate_begin(payer, member, period_ms, now_ms)

        return await self._link.call("hydrate_begin", begin, payer)

    async def hydrate_finish(
        self, payer: str, member: str | None, hydration: Hydration, sums: LedgerSums
    ) -> FinishCode:
        def finish() -> FinishCode:
            model = self._server.of(payer)
            return model.hydrate_finish(payer, member, hydration.token, sums)

        return await self._link.call("hydrate_finish", finish, payer)

    async def snapshot(self, payer: str, member: str | None = None) -> Snapshot | None:
        return await self._link.call(
            "snapshot", lambda: self._server.of(payer).snapshot(payer, member)
        )

    async def forget(self, account: str, shard: int) -> bool:
        def forget() -> bool:
            return self._server.models[shard].forget(account, None, self._server.now_ms())

        return await self._link.call("forget", forget)

    async def epochs(self) -> dict[int, int]:
        return await self._link.call(
            "epochs", lambda: {shard: self._server.state(shard).epoch for shard in range(SHARDS)}
        )

    async def has_event(self, shard: int, stream_id: str, is_booked: bool) -> bool:
        return await self._link.call(
            "has_event", lambda: self._server.has_event(shard, stream_id, is_booked)
        )

    async def known(self, calls: Sequence[tuple[str, str]]) -> Sequence[bool]:
        if not calls:
            return ()
        return await self._link.call("known", lambda: self._server.known(calls))

    async def shard_state(self, shard: int) -> ShardState:
        return await self._link.call("shard_state", lambda: self._server.state(shard))

    async def open_shard(
        self, shard: int, epoch: int, cursor: str, quiet_ms: int, awaited: Sequence[str]
    ) -> int:
        return await self._link.call(
            "open_shard",
            lambda: self._server.open_shard(shard, epoch, cursor, quiet_ms, awaited),
        )

    async def caught_up(self, shard: int, epoch: int, gateway_id: str) -> None:
        await self._link.call(
            "caught_up", lambda: self._server.models[shard].caught_up(epoch, gateway_id)
        )


class SimOutbox:
    """Fulfils ports.outbox.Outbox."""

    def __init__(self, link: Link, server: SimServer) -> None:
        self._link, self._server = link, server

    async def server_id(self) -> str:
        return await self._link.call("server_id", lambda: self._server.server_id)

    async def read(
        self, cursors: dict[int, str], rows_max: int, wait_ms: int
    ) -> Sequence[OutboxEntry]:
        asked = dict(cursors)
        found = await self._link.call("read", lambda: self._server.read(asked, rows_max))
        if found or wait_ms <= 1:
            return found
        await self._server.next_event(wait_ms / 1000)
        return await self._link.call("read", lambda: self._server.read(asked, rows_max))

    async def at(self, cursors: dict[int, str]) -> Sequence[OutboxEntry]:
        return await self._link.call("at", lambda: self._server.at(cursors))

    async def backlog(self, shard: int, cursor: str) -> tuple[int, str | None]:
        found = await self._link.call("backlog", lambda: self._server.read({shard: cursor}, 1000))
        return len(found), found[0].stream_id if found else None

    async def trim(self, shard: int, before_id: str, bytes_max: int, cursor: str) -> None:
        await self._link.call("trim", lambda: self._server.trim(shard, before_id, cursor))


class SimLeases:
    """Fulfils ports.quota_store.Leases."""

    def __init__(self, link: Link, server: SimServer) -> None:
        self._link, self._server = link, server

    async def lapsed(self, shard: int, grace_ms: int, rows_max: int) -> Sequence[LapsedHold]:
        return await self._link.call(
            "lapsed", lambda: self._server.lapsed(shard, grace_ms, rows_max)
        )

    async def count(self, shard: int) -> int:
        return await self._link.call("count", lambda: len(self._server.models[shard].shard.leases))

    async def accounts(self, position: int, rows_max: int) -> tuple[int, Sequence[tuple[str, int]]]:
        def accounts() -> tuple[int, Sequence[tuple[str, int]]]:
            found = [
                (payer, shard)
                for shard, model in enumerate(self._server.models)
                for payer, member in model.shard.accounts
                if member is None
            ]
            return 0, found

        return await self._link.call("accounts", accounts)
