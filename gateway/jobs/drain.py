"""The drain: from the outbox in Redis to the ledger in Postgres, each event exactly once.

The ledger's own cursor says where to read on, so what was read but not committed is read again, and
a row that is there already changes nothing. While there is a backlog, the next batch is read as
Postgres books the one before it. On another server than before, everything there is read from the
beginning, unless it has what was booked last: it may have gone back in time and written past the
cursor since. Redis keeps what was drained for a while, in case Postgres is restored from a backup,
within bounds of age and size.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.core.event import EventError, LedgerRow, ledger_row, stream_position
from gateway.core.quota.settle import correction_of
from gateway.ports.clock import Clock
from gateway.ports.ledger import BookReply, Cursor, DeadEntry, Ledger, LedgerUnavailable
from gateway.ports.metrics import JobsMetrics
from gateway.ports.outbox import Outbox, OutboxEntry
from gateway.ports.quota_store import QuotaStore, StoreUnavailable

BATCH_ROWS_MAX = 500  # a shard; of sixteen shards that are all behind, a third of a second's work
_WAIT_MS = 1000  # how long a read waits for an event; it returns at once when one comes
# After what has come is booked. An event that comes alone is not kept waiting, and of a steady flow
# a transaction takes what came in this time: one costs as much as booking 100 rows.
_REST_S = 0.05
_TRIM_EVERY_S = 5.0
_NOT_LEADER_REST_S = 2.0
# A Redis that was started anew is back by then; so long, and a little, the others need to ask.
_CUT_OFF_S = 2.0
_GIVE_WAY_S = _NOT_LEADER_REST_S + 1.0
_log = logging.getLogger("gateway.drain")


@dataclass(frozen=True, slots=True)
class DrainTerms:
    """How much of the drained outbox stays in Redis: for `retain_s`, at most `retain_bytes`."""

    shards: int
    retain_s: int
    retain_bytes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that were read, made into rows where that is possible. `cursors` are those to read on
    from; `full`: some shard may have more."""

    rows: Sequence[LedgerRow]
    dead: Sequence[DeadEntry]
    cursors: dict[int, str]
    full: bool

    def __bool__(self) -> bool:
        return bool(self.rows or self.dead)


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
        self._server_id: str | None = None  # of which the ledger has all up to its cursors
        self._ahead: Batch | None = None  # read while what lies before it was being booked
        self._trimmed_s = self._not_before_s = 0.0
        self._cursors: dict[int, str] = {}  # as they were when the ledger was asked last
        self._read_s = 0.0  # when it last could, or began to try

    async def step(self) -> float:
        """Drain one batch of every shard that has one. Who is cut off from the outbox gives way:
        another gateway may not be, and nobody else drains while the lock is held."""
        if (wait_s := self._not_before_s - self._clock.monotonic_s()) > 0:
            await asyncio.sleep(wait_s)
        try:
            return await self._step()
        except StoreUnavailable:
            now_s = self._clock.monotonic_s()
            if now_s - self._read_s > _CUT_OFF_S:
                self._ledger.unlock_shards()
                self._not_before_s = now_s + _GIVE_WAY_S
            raise
        except LedgerUnavailable:
            await self._show_backlogs()
            raise

    async def _step(self) -> float:
        if self._ledger.lock_lost():
            # Postgres may have come back from a backup: what lies before this batch is not there.
            self._ahead = None
            self._read_s = self._clock.monotonic_s()
        if not await self._ledger.lock_shards(self._terms.shards):
            self._ahead = None
            return _NOT_LEADER_REST_S
        batch = await self._next(_WAIT_MS)
        if batch.full:
            self._ahead = await self._book_and_read_ahead(batch)
        elif batch:
            await self._book(batch)
        self._read_s = now_s = self._clock.monotonic_s()
        if now_s - self._trimmed_s >= _TRIM_EVERY_S:
            self._trimmed_s = now_s
            await self._trim()
        return _REST_S if batch and not batch.full else 0.0

    async def drain_all(self) -> None:
        """Book everything that is in the outbox now (at shutdown, and for `ledger verify`)."""
        while batch := await self._next(wait_ms=1):
            await self._book(batch)

    async def _next(self, wait_ms: int) -> Batch:
        """What follows the ledger's cursors, on a server of which it has all up to them."""
        while True:
            if self._server_id is None:
                self._server_id = await self._compare_server()
            batch, self._ahead = self._ahead, None
            if batch is None:
                batch = await self._read(_positions(await self._known(), self._terms), wait_ms)
            # Asked after reading: once something of another server is booked, what was booked last
            # does not tell any more whether that server has gone back in time.
            if await self._outbox.server_id() == self._server_id:
                return batch
            self._server_id = None

    async def _book_and_read_ahead(self, batch: Batch) -> Batch | None:
        """Book, and read what follows, decoded, while Postgres is at work; None: nothing does.
        Whichever fails, the ledger's cursors say again where to go on."""
        booked, ahead = await asyncio.gather(
            self._book(batch), self._read(batch.cursors, wait_ms=1), return_exceptions=True
        )
        if isinstance(booked, BaseException):
            raise booked
        if isinstance(ahead, BaseException):
            raise ahead
        return ahead or None

    async def _known(self) -> dict[int, Cursor]:
        known = await self._ledger.cursors()
        for shard, cursor in known.items():
            self._metrics.epoch(shard, cursor.epoch)
        self._cursors = _positions(known, self._terms)
        return known

    async def _read(self, cursors: dict[int, str], wait_ms: int) -> Batch:
        return _batch_of(await self._outbox.read(cursors, BATCH_ROWS_MAX, wait_ms), cursors)

    async def _compare_server(self) -> str:
        """The server's id. If it is not the one noted and may have gone back in time, all that lies
        there up to the cursors is booked again first."""
        server_id = await self._outbox.server_id()
        known = await self._known()
        if all(
            shard in known and known[shard].server_id == server_id
            for shard in range(self._terms.shards)
        ):
            return server_id
        until = {shard: at.stream_id for shard, at in known.items() if at.stream_id != "0-0"}
        if until:
            lacking = await self._lack_what_was_booked_last(until)
            await self._read_from_the_start({shard: until[shard] for shard in lacking})
        await self._ledger.note_server(self._terms.shards, server_id)
        return server_id

    async def _lack_what_was_booked_last(self, cursors: dict[int, str]) -> Iterable[int]:
        """A server that goes back in time loses the newest entries of a stream first: a shard that
        has the last one, and no other in its place, has lost none."""
        entries = await self._outbox.at(cursors)
        last = _batch_of(entries, cursors)
        doubles: list[LedgerRow] = []

        async def found(rows: Sequence[LedgerRow]) -> None:
            doubles.extend(rows)  # taken back when they are read from the start

        reply = await self._ledger.book(last.rows, last.dead, found)
        self._count(reply)
        if reply.booked or reply.dead or doubles:
            return cursors
        return cursors.keys() - {entry.shard for entry in entries}

    async def _read_from_the_start(self, cursors: Mapping[int, str]) -> None:
        until = {shard: stream_position(stream_id) for shard, stream_id in cursors.items()}
        reached = dict.fromkeys(until, "0-0")
        while reached:
            entries = await self._outbox.read(reached, BATCH_ROWS_MAX, wait_ms=1)
            again = [
                entry for entry in entries if stream_position(entry.stream_id) <= until[entry.shard]
            ]
            if again:
                await self._book(_batch_of(again, {}))
            last = {entry.shard: entry.stream_id for entry in again}
            reached = {shard: last[shard] for shard in reached if shard in last}

    async def _book(self, batch: Batch) -> None:
        self._count(await self._ledger.book(batch.rows, batch.dead, self._take_back))

    def _count(self, reply: BookReply) -> None:
        if reply.dead:
            self._metrics.dead(reply.dead)
            _log.error("%d outbox entries cannot be booked: see table ledger_dead", reply.dead)
        if reply.booked:
            self._metrics.booked(reply.booked)
            lag_ms = self._clock.now_ms() - min(row.at_ms for row in reply.booked)
            self._metrics.lag_seconds(max(0.0, lag_ms / 1000))

    async def _take_back(self, rows: Sequence[LedgerRow]) -> None:
        """Redis counted these events twice, because it had lost what the ledger already had."""
        for row in rows:
            taken = await self._store.correct(correction_of(row))
            _log.warning("event %s came twice; taken back: %s", row.event_id, taken)

    async def _trim(self) -> None:
        """Drop what was drained long ago, and show what was not drained yet."""
        await self._known()
        keep_from = f"{self._clock.now_ms() - self._terms.retain_s * 1000}-0"
        bytes_max = self._terms.retain_bytes // self._terms.shards
        for shard, cursor in self._cursors.items():
            try:
                await self._outbox.trim(shard, keep_from, bytes_max, cursor)
            except StoreUnavailable as error:
                _log.info("the outbox of shard %d is not trimmed: %s", shard, error)
        await self._show_backlogs()

    async def _show_backlogs(self) -> None:
        """Also while the ledger is away: what waits for it must be seen growing."""
        for shard, cursor in self._cursors.items():
            try:
                events, oldest_id = await self._outbox.backlog(shard, cursor)
            except StoreUnavailable:
                continue  # of a cluster, the other nodes may answer
            oldest_ms = stream_position(oldest_id)[0] if oldest_id else self._clock.now_ms()
            age_s = max(0.0, (self._clock.now_ms() - oldest_ms) / 1000)
            self._metrics.outbox(shard, events, age_s)


def _positions(known: Mapping[int, Cursor], terms: DrainTerms) -> dict[int, str]:
    return {
        shard: known[shard].stream_id if shard in known else "0-0" for shard in range(terms.shards)
    }


def _batch_of(entries: Sequence[OutboxEntry], cursors: dict[int, str]) -> Batch:
    """Entries read past `cursors`, in the order of each shard."""
    rows: list[LedgerRow] = []
    dead: list[DeadEntry] = []
    for entry in entries:
        try:
            rows.append(ledger_row(*entry))
        except EventError as error:
            dead.append(DeadEntry(*entry, str(error)))
    of_shard = Counter(entry.shard for entry in entries)
    return Batch(
        rows,
        dead,
        cursors | {entry.shard: entry.stream_id for entry in entries},
        full=any(count >= BATCH_ROWS_MAX for count in of_shard.values()),
    )
