"""Bringing an account back from the ledger: at first sight, and after Redis lost it.

Two steps with a token, so that what is settled in between counts once: begin opens the account at
zero and tells the newest event's id; once the drain has booked up to that id, the ledger's sums are
added. Until then nothing is admitted: a missing counter is never read as zero (promise I8).
"""

from __future__ import annotations

import asyncio

from gateway.core.period import Period
from gateway.flow.shards import Shards
from gateway.ports.ledger import Ledger
from gateway.ports.metrics import Metrics
from gateway.ports.quota_store import Hydration, LedgerSums, QuotaStore, StoreUnavailable
from gateway.ports.tasks import spawn

AT_ONCE_MAX = 20  # an emptied Redis must not become a storm on Postgres
_WAIT_S = 5.0  # for the drain; it lags by milliseconds unless Postgres is in trouble
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.1


class Hydrator:
    """One flight an account at a time; further callers join it."""

    def __init__(self, store: QuotaStore, ledger: Ledger, shards: Shards, metrics: Metrics) -> None:
        self._store = store
        self._ledger = ledger
        self._shards = shards
        self._metrics = metrics
        self._flights: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)

    async def hydrate(self, payer: str, period: Period) -> None:
        """Returns with the account in force. StoreUnavailable or LedgerUnavailable: try later."""
        flight = self._flights.get(payer)
        if flight is None:
            flight = spawn(self._fly(payer, period), f"hydrate {payer}", awaited=True)
            self._flights[payer] = flight
            flight.add_done_callback(lambda _: self._flights.pop(payer, None))
        await asyncio.shield(flight)

    async def _fly(self, payer: str, period: Period) -> None:
        async with self._turns:
            hydration = await self._begin(payer, period)
            if hydration.ready:
                return
            sums = await self._sums(payer, hydration)
            finished = await self._store.hydrate_finish(payer, hydration, sums)
            self._metrics.hydrated("finished" if finished else "joined")

    async def _begin(self, payer: str, period: Period) -> Hydration:
        for _ in range(2):
            hydration = await self._store.hydrate_begin(payer, period.start_ms, period.end_ms)
            if hydration is not None:
                return hydration
            await self._shards.open(self._shards.of(payer))
        raise StoreUnavailable("the shard closed again while it was being opened")

    async def _sums(self, payer: str, hydration: Hydration) -> LedgerSums:
        shard, pause_s, waited_s = self._shards.of(payer), _FIRST_PAUSE_S, 0.0
        while waited_s < _WAIT_S:
            sums = await self._ledger.sums(
                payer,
                hydration.period_start_ms,
                shard,
                hydration.epoch,
                hydration.stream_id,
            )
            if sums is not None:
                return sums
            await asyncio.sleep(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._metrics.hydrated("timed_out")
        raise StoreUnavailable("the ledger has not caught up with the outbox")
