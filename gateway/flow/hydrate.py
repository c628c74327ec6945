"""Bringing an account back from the ledger: at first sight, and after Redis lost it.

Two steps with a token, so that what is settled in between counts once: begin opens the account at
zero and tells the newest event's id; once the drain has booked up to that id, the ledger's sums are
added. Until then nothing is admitted: a missing counter is never read as zero (promise I8). After a
loss everybody comes at once; few fly at a time, some wait their turn, and the rest is told to ask
again, so that neither the ledger nor this process is overrun.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.core.event import stream_position
from gateway.core.period import Period
from gateway.core.quota.entitle import FinishCode, Hydration, LedgerSums
from gateway.flow.shards import Shards
from gateway.ports.ledger import Cursor, Ledger, LedgerUnavailable, Watermark
from gateway.ports.metrics import Metrics
from gateway.ports.quota_store import QuotaStore, StoreNotReady
from gateway.ports.tasks import spawn

AT_ONCE_MAX = 20  # an emptied Redis must not become a storm on Postgres
WAITING_MAX = 1_000  # flights, with those at once; a second or two brings back as many
_TURN_WAIT_S = 5.0
_WAIT_S = 5.0  # for the drain; it lags by milliseconds unless Postgres is in trouble
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.1
_READS_MAX = 3  # of sums that a projection overtook; each takes an operator's change


class Hydrator:
    """One flight an account at a time; further callers join it."""

    def __init__(self, store: QuotaStore, ledger: Ledger, shards: Shards, metrics: Metrics) -> None:
        self._store = store
        self._ledger = ledger
        self._shards = shards
        self._metrics = metrics
        self._flights: dict[tuple[str, str | None], asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)
        self._reading: asyncio.Task[dict[int, Cursor]] | None = None

    async def hydrate(self, payer: str, period: Period, member: str | None = None) -> None:
        """Returns with the account (and the member's) in force. StoreUnavailable or
        LedgerUnavailable: try later."""
        await self._join(payer, None, period)
        if member is not None:
            await self._join(payer, member, period)

    async def _join(self, payer: str, member: str | None, period: Period) -> None:
        account = (payer, member)
        flight = self._flights.get(account)
        if flight is None:
            if len(self._flights) >= WAITING_MAX:
                raise self._refused("too many accounts wait to be brought back already")
            flight = spawn(self._fly(account, period), f"hydrate {payer}", awaited=True)
            self._flights[account] = flight
            flight.add_done_callback(lambda _: self._flights.pop(account, None))
        await asyncio.shield(flight)

    async def _fly(self, account: tuple[str, str | None], period: Period) -> None:
        # What this process must send again comes first: it is part of what is summed.
        await self._shards.caught_up(self._shards.of(account[0]))
        hydration = await self._begin(account, period)
        if hydration.ready:
            return
        for _ in range(_READS_MAX):
            sums = await self._sums(account, hydration)
            code = await self._store.hydrate_finish(*account, hydration, sums)
            if code is not FinishCode.OLDER:
                self._metrics.hydrated("finished" if code is FinishCode.FINISHED else "joined")
                return
        raise StoreNotReady("the entitlement changes faster than it can be read")

    def _refused(self, why: str) -> LedgerUnavailable:
        """The ledger's errors say that nothing is held, so there is nothing to be released."""
        self._metrics.hydrated("refused")
        return LedgerUnavailable(why)

    async def _begin(self, account: tuple[str, str | None], period: Period) -> Hydration:
        for _ in range(2):
            hydration = await self._store.hydrate_begin(*account, period.start_ms, period.end_ms)
            if hydration is not None:
                return hydration
            await self._shards.open(self._shards.of(account[0]))
        raise StoreNotReady("the shard closed again while it was being opened")

    async def _sums(self, account: tuple[str, str | None], hydration: Hydration) -> LedgerSums:
        """One read, once the drain is there: what is waited for is the shard's cursor, which all
        accounts under way share, so that a storm asks the ledger once an account."""
        until = Watermark(self._shards.of(account[0]), hydration.epoch, hydration.stream_id)
        pause_s, waited_s = _FIRST_PAUSE_S, 0.0
        while waited_s < _WAIT_S:
            if hydration.stream_id == "0-0" or await self._is_booked(until):
                async with self._turn():
                    sums = await self._ledger.sums(*account, hydration.period_start_ms, until)
                if sums is not None:
                    return sums
            await asyncio.sleep(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._metrics.hydrated("timed_out")
        raise StoreNotReady("the ledger has not caught up with the outbox")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_TURN_WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            raise self._refused("too many accounts came first") from None
        try:
            yield
        finally:
            self._turns.release()

    async def _is_booked(self, until: Watermark) -> bool:
        if self._reading is None:
            self._reading = spawn(self._ledger.cursors(), "read cursors", awaited=True)
            self._reading.add_done_callback(self._forget_reading)
        cursor = (await asyncio.shield(self._reading)).get(until.shard)
        return cursor is not None and (cursor.epoch, stream_position(cursor.stream_id)) >= (
            until.epoch,
            stream_position(until.stream_id),
        )

    def _forget_reading(self, _: object) -> None:
        self._reading = None
