"""The drain: from the outbox in Redis to the ledger in Postgres, each event exactly once.

The ledger's own cursor says where to read on, so what was read but not committed is read again, and
a row that is there already changes nothing. Redis keeps what was drained for a while, in case
Postgres is restored from a backup, within bounds of age and size.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.event import EventError, LedgerRow, ledger_row
from gateway.ports.clock import Clock
from gateway.ports.ledger import DeadEntry, Ledger
from gateway.ports.metrics import JobsMetrics
from gateway.ports.quota_store import Outbox, OutboxEntry

BATCH_ROWS_MAX = 500  # a shard; one transaction takes 5 to 20 ms then
_WAIT_MS = 1000  # how long a read waits for an event; it returns at once when one comes
_TRIM_EVERY_S = 5.0
_NOT_LEADER_REST_S = 2.0
_log = logging.getLogger("gateway.drain")


@dataclass(frozen=True, slots=True)
class DrainTerms:
    """How much of the drained outbox stays in Redis: for `retain_s`, at most `retain_bytes`."""

    shards: int
    retain_s: int
    retain_bytes: int


class Drain:
    """Fulfils jobs.service.Step. One drain works at a time; others wait for its lock."""

    name = "drain"

    def __init__(
        self,
        outbox: Outbox,
        ledger: Ledger,
        terms: DrainTerms,
        metrics: JobsMetrics,
        clock: Clock,
    ) -> None:
        self._outbox = outbox
        self._ledger = ledger
        self._terms = terms
        self._metrics = metrics
        self._clock = clock
        self._trimmed_s = 0.0

    async def step(self) -> float:
        """Drain one batch of every shard that has one."""
        if not await self._ledger.lock_shards(self._terms.shards):
            return _NOT_LEADER_REST_S
        cursors = await self._cursors()
        entries = await self._outbox.read(cursors, BATCH_ROWS_MAX, _WAIT_MS)
        if entries:
            await self._book(entries)
        now_s = self._clock.monotonic_s()
        if now_s - self._trimmed_s >= _TRIM_EVERY_S:
            self._trimmed_s = now_s
            await self._trim()
        return 0.0

    async def drain_all(self) -> None:
        """Book everything that is in the outbox now (at shutdown, and for `ledger verify`)."""
        while True:
            cursors = await self._cursors()
            entries = await self._outbox.read(cursors, BATCH_ROWS_MAX, wait_ms=1)
            if not entries:
                return
            await self._book(entries)

    async def _cursors(self) -> dict[int, str]:
        known = await self._ledger.cursors()
        for shard, (epoch, _) in known.items():
            self._metrics.epoch(shard, epoch)
        return {shard: known.get(shard, (0, "0-0"))[1] for shard in range(self._terms.shards)}

    async def _book(self, entries: Sequence[OutboxEntry]) -> None:
        rows: list[LedgerRow] = []
        dead: list[DeadEntry] = []
        for entry in entries:
            try:
                rows.append(
                    ledger_row(entry.shard, entry.stream_id, entry.event_json, entry.script_part)
                )
            except EventError as error:
                dead.append(_dead(entry, str(error)))
        reply = await self._ledger.book(rows, dead)
        for row in reply.booked:
            self._metrics.booked(row)
        if reply.dead:
            self._metrics.dead(reply.dead)
            _log.error("%d outbox entries cannot be booked: see table ledger_dead", reply.dead)
        oldest_ms = min(_ms(entry.stream_id) for entry in entries)
        self._metrics.lag_seconds(max(0.0, (self._clock.now_ms() - oldest_ms) / 1000))

    async def _trim(self) -> None:
        """Drop what was drained long ago, and show what was not drained yet."""
        cursors = await self._cursors()
        keep_from = f"{self._clock.now_ms() - self._terms.retain_s * 1000}-0"
        bytes_max = self._terms.retain_bytes // self._terms.shards
        for shard, cursor in cursors.items():
            await self._outbox.trim(shard, keep_from, bytes_max, cursor)
            events, oldest_id = await self._outbox.backlog(shard, cursor)
            age_s = (self._clock.now_ms() - _ms(oldest_id)) / 1000 if oldest_id else 0.0
            self._metrics.outbox(shard, events, max(0.0, age_s))


def _ms(stream_id: str) -> int:
    return int(stream_id.split("-", 1)[0])


def _dead(entry: OutboxEntry, reason: str) -> DeadEntry:
    return DeadEntry(entry.shard, entry.stream_id, entry.event_json, entry.script_part, reason)
