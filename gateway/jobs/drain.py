"""The drain: from the outbox in Redis to the ledger in Postgres, each event exactly once.

The ledger's own cursor says where to read on, so what was read but not committed is read again, and
a row that is there already changes nothing. On another server than before everything there is read
from the beginning: it may have gone back in time and written past the cursor since. Redis keeps
what was drained for a while, in case Postgres is restored from a backup, within bounds of age and
size.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.event import EventError, LedgerRow, ledger_row, stream_position
from gateway.core.quota.settle import correction_of
from gateway.ports.clock import Clock
from gateway.ports.ledger import Cursor, DeadEntry, Ledger
from gateway.ports.metrics import JobsMetrics
from gateway.ports.outbox import Outbox, OutboxEntry
from gateway.ports.quota_store import QuotaStore

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
        stores: tuple[QuotaStore, Ledger],
        terms: DrainTerms,
        metrics: JobsMetrics,
        clock: Clock,
    ) -> None:
        self._outbox = outbox
        self._store, self._ledger = stores
        self._terms = terms
        self._metrics = metrics
        self._clock = clock
        self._trimmed_s = 0.0

    async def step(self) -> float:
        """Drain one batch of every shard that has one."""
        if not await self._ledger.lock_shards(self._terms.shards):
            return _NOT_LEADER_REST_S
        known = await self._known()
        await self._read_from_the_start(known)
        entries = await self._outbox.read(self._cursors(known), BATCH_ROWS_MAX, _WAIT_MS)
        if entries:
            await self._book(entries)
        now_s = self._clock.monotonic_s()
        if now_s - self._trimmed_s >= _TRIM_EVERY_S:
            self._trimmed_s = now_s
            await self._trim()
        return 0.0

    async def drain_all(self) -> None:
        """Book everything that is in the outbox now (at shutdown, and for `ledger verify`)."""
        await self._read_from_the_start(await self._known())
        while True:
            cursors = self._cursors(await self._known())
            entries = await self._outbox.read(cursors, BATCH_ROWS_MAX, wait_ms=1)
            if not entries:
                return
            await self._book(entries)

    async def _known(self) -> dict[int, Cursor]:
        known = await self._ledger.cursors()
        for shard, cursor in known.items():
            self._metrics.epoch(shard, cursor.epoch)
        return known

    def _cursors(self, known: dict[int, Cursor]) -> dict[int, str]:
        return {
            shard: known[shard].stream_id if shard in known else "0-0"
            for shard in range(self._terms.shards)
        }

    async def _read_from_the_start(self, known: dict[int, Cursor]) -> None:
        """On a server that is not the one noted: book again all that lies up to the cursors."""
        server_id = await self._outbox.server_id()
        if all(
            shard in known and known[shard].server_id == server_id
            for shard in range(self._terms.shards)
        ):
            return
        until = {shard: stream_position(cursor.stream_id) for shard, cursor in known.items()}
        reached = dict.fromkeys(until, "0-0")
        while reached:
            entries = await self._outbox.read(reached, BATCH_ROWS_MAX, wait_ms=1)
            again = [
                entry for entry in entries if stream_position(entry.stream_id) <= until[entry.shard]
            ]
            if again:
                await self._book(again)
            last = {entry.shard: entry.stream_id for entry in again}
            reached = {shard: last[shard] for shard in reached if shard in last}
        await self._ledger.note_server(self._terms.shards, server_id)

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
        reply = await self._ledger.book(rows, dead, self._take_back)
        for row in reply.booked:
            self._metrics.booked(row)
        if reply.dead:
            self._metrics.dead(reply.dead)
            _log.error("%d outbox entries cannot be booked: see table ledger_dead", reply.dead)
        oldest_ms = min(_ms(entry.stream_id) for entry in entries)
        self._metrics.lag_seconds(max(0.0, (self._clock.now_ms() - oldest_ms) / 1000))

    async def _take_back(self, rows: Sequence[LedgerRow]) -> None:
        """Redis counted these events twice, because it had lost what the ledger already had."""
        for row in rows:
            taken = await self._store.correct(correction_of(row))
            _log.warning("event %s came twice; taken back: %s", row.event_id, taken)

    async def _trim(self) -> None:
        """Drop what was drained long ago, and show what was not drained yet."""
        cursors = self._cursors(await self._known())
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
