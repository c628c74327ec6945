"""Faults to be found: parts that break one promise each, in the places of the product's own.

Each is a mistake that somebody could make and that no single call shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from gateway.core.event import LedgerRow
from gateway.core.quota.entitle import FinishCode, Hydration, LedgerSums
from gateway.core.quota.reserve import ReserveAsk, ReserveReply
from gateway.core.quota.settle import LapsedHold, Settlement, SettleReply
from gateway.flow.settlements import Settlements
from gateway.ports.ledger import BookReply, DeadEntry, TakeBack
from tests.simulation.processes import Parts
from tests.simulation.record import SimLedger
from tests.simulation.stores import SimStore


class _SendsOnce(Settlements):
    """A settlement without a reply is dropped."""

    def _repeat(
        self, settlement: Settlement, met: int, reply: asyncio.Future[SettleReply] | None = None
    ) -> None: ...


class _LooksOnce(SimStore):
    """The sweeper's settlement does not look at the lease again."""

    async def expire(self, lapsed: LapsedHold, settlement: Settlement) -> SettleReply:
        def expire() -> SettleReply:
            leases = self._server.of(settlement.payer).shard.leases
            if (settlement.payer, settlement.rid) in leases:
                leases[(settlement.payer, settlement.rid)] = 0
            return self._settle(settlement)

        return await self._link.call("expire", expire, lapsed.rid)


class _ForgetsHolds(SimStore):
    """A reserve asks what is used, and not what is held."""

    def _reserve(self, ask: ReserveAsk) -> ReserveReply:
        model = self._server.of(ask.payer)
        account = model.shard.usable(ask.payer, None)
        held, name = account.held if account else 0, (ask.payer, None)
        if account:
            model.shard.accounts[name] = replace(account, held=0)
        reply = model.reserve(ask, self._server.now_ms())
        if account:
            model.shard.accounts[name].held += held
        self._auditor.reserved(ask, reply)
        return reply


class _BeginsAtZero(SimStore):
    """An account that Redis lost comes back without what was used."""

    async def hydrate_finish(
        self, payer: str, member: str | None, hydration: Hydration, sums: LedgerSums
    ) -> FinishCode:
        nothing = replace(sums, settled_tokens=0, from_packs=0, cost_nano_gbp=0)
        return await super().hydrate_finish(payer, member, hydration, nothing)


class _ReadsOnBeforeCommit(SimLedger):
    """The cursors go on before the rows are committed."""

    async def book(
        self, rows: Sequence[LedgerRow], dead: Sequence[DeadEntry], take_back: TakeBack
    ) -> BookReply:
        await self._link.call("pass by", lambda: self._record.pass_by(rows))
        return await super().book(rows, dead, take_back)


class _KeepsDoubles(SimLedger):
    """What Redis counted twice is not taken back."""

    async def book(
        self, rows: Sequence[LedgerRow], dead: Sequence[DeadEntry], take_back: TakeBack
    ) -> BookReply:
        return await self._link.call("commit", lambda: self._record.commit(rows, dead))


FAULTS: dict[str, tuple[Parts, str, tuple[int, ...]]] = {
    "a settlement is dropped without a reply": (Parts(settlements=_SendsOnce), "I2", (14, 21, 23)),
    "a sweeper does not look again": (Parts(store=_LooksOnce), "I5", (590, 986)),
    "a drain goes on before the commit": (Parts(ledger=_ReadsOnBeforeCommit), "I2", (7, 11, 20)),
    "a reserve forgets what is held": (Parts(store=_ForgetsHolds), "I1", (1, 4, 5)),
    "a lost account begins at zero": (Parts(store=_BeginsAtZero), "I3", (12, 14, 17)),
    "what was counted twice stays": (Parts(ledger=_KeepsDoubles), "I3", (80, 162, 237)),
}
"""By name: the faulty parts, the promise whose breach must be seen, and seeds that show it. A
change of the product moves what happens in a seed; if none shows it any more, find others."""
