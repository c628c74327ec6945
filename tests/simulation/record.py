"""The simulated Postgres: a ledger and a directory behind links; replies to commits may be lost.

The ledger is what its statements promise: a row is known by its id and period, everything else
follows from rows that were new, cursors and epochs never go back. The directory is the one that
other tests use, asked through the network.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from gateway.core.event import LedgerRow, stream_position
from gateway.core.identity import Identity
from gateway.core.period import Calendar
from gateway.core.quota.entitle import Entitlement, LedgerSums
from gateway.ports.directory import Adjustment, PackCredit
from gateway.ports.ledger import (
    GATEWAY_ALIVE_S,
    BookReply,
    Cursor,
    DeadEntry,
    LedgerUnavailable,
    TakeBack,
    Watermark,
)
from tests.fakes.doubles import counted_twice
from tests.fakes.ledger import FakeDirectory
from tests.simulation.loop import PROCESS, Process
from tests.simulation.network import Link, Place

_T = TypeVar("_T")
_UNKNOWN = Cursor(0, "0-0", "")


class Record(Place):
    """What Postgres holds."""

    def __init__(self) -> None:
        super().__init__(LedgerUnavailable, "postgres")
        self.directory = FakeDirectory()
        self.rows: dict[tuple[str, int], LedgerRow] = {}
        self.of_payer: dict[str, list[LedgerRow]] = {}
        self.of_rid: dict[str, list[LedgerRow]] = {}
        self.dead: list[DeadEntry] = []
        self.cursors: dict[int, Cursor] = {}
        self.seen_s: dict[str, float] = {}
        self.drainer: Process | None = None

    def commit(self, rows: Sequence[LedgerRow], dead: Sequence[DeadEntry]) -> BookReply:
        new = []
        for row in rows:
            if self.rows.setdefault((row.event_id, row.period_ms), row) is row:
                new.append(row)
                self.of_payer.setdefault(row.event.payer, []).append(row)
                self.of_rid.setdefault(row.event.event_id, []).append(row)
                for pack_id, tokens in row.pack_split:
                    spent = self.directory.spent
                    spent[pack_id] = spent.get(pack_id, 0) + tokens
        self.dead += dead
        self.pass_by(rows)
        return BookReply(new, len(rows) - len(new), len(dead))

    def pass_by(self, rows: Sequence[LedgerRow]) -> None:
        """Cursors go past these rows."""
        for row in rows:
            before = self.cursors.get(row.shard, _UNKNOWN)
            furthest = max(before.stream_id, row.stream_id, key=stream_position)
            epoch = max(before.epoch, row.epoch)
            self.cursors[row.shard] = replace(before, epoch=epoch, stream_id=furthest)

    def raise_epoch(self, shard: int, seen: int) -> tuple[int, str]:
        before = self.cursors.get(shard, _UNKNOWN)
        if before.epoch <= seen:
            self.cursors[shard] = replace(before, epoch=seen + 1, raised_at=before.stream_id)
        return self.cursors[shard].epoch, before.stream_id

    def sums(
        self, payer: str, member: str | None, period_start_ms: int, until: Watermark
    ) -> LedgerSums | None:
        moment = _moment(until)
        if until.stream_id != "0-0" and _moment(self.cursors.get(until.shard, _UNKNOWN)) < moment:
            return None
        rows = [
            row
            for row in self.of_payer.get(payer, ())
            if row.period_ms == period_start_ms
            and member in (None, row.event.user_id)
            and (row.epoch < until.epoch or _moment(row) <= moment)
        ]
        return LedgerSums(
            settled_tokens=sum(row.charged_tokens for row in rows),
            from_packs=0 if member else sum(row.from_packs for row in rows),
            adjusted_tokens=self.directory.adjusted(payer, member, period_start_ms),
            cost_nano_gbp=sum(row.cost_nano_gbp for row in rows),
            rev=self.directory.people[member or payer].rev,
            packs=() if member else self.directory.packs(payer),
        )

    def alive(self, me: str | None, now_s: float) -> list[str]:
        if me is not None:
            self.seen_s[me] = now_s
        return [each for each, at_s in self.seen_s.items() if now_s - at_s < GATEWAY_ALIVE_S]

    def lock(self, process: Process | None) -> bool:
        """The lock lives as long as its holder."""
        if self.drainer is None or self.drainer.dead:
            self.drainer = process
        return self.drainer is process


class SimLedger:
    """Fulfils ports.ledger.Ledger."""

    def __init__(self, link: Link, record: Record) -> None:
        self._link, self._record = link, record
        self._me = PROCESS.get()

    async def lock_shards(self, shards: int) -> bool:
        return await self._link.call("lock_shards", lambda: self._record.lock(self._me))

    def lock_lost(self) -> bool:
        return self._record.drainer is not self._me

    def unlock_shards(self) -> None:
        if not self.lock_lost():
            self._record.drainer = None

    async def cursors(self) -> dict[int, Cursor]:
        return await self._link.call("cursors", lambda: dict(self._record.cursors))

    async def note_server(self, shards: int, server_id: str) -> None:
        def note() -> None:
            for shard in range(shards):
                at = self._record.cursors.get(shard, _UNKNOWN)
                self._record.cursors[shard] = replace(at, server_id=server_id)

        await self._link.call("note_server", note)

    async def book(
        self, rows: Sequence[LedgerRow], dead: Sequence[DeadEntry], take_back: TakeBack
    ) -> BookReply:
        late_rows, too_much = await self._link.call(
            "insert", lambda: counted_twice(self._record.rows, rows)
        )
        if too_much:
            await take_back(too_much)
        booked = [*rows, *late_rows]
        return await self._link.call("commit", lambda: self._record.commit(booked, dead))

    async def sums(
        self, payer: str, member: str | None, period_start_ms: int, until: Watermark
    ) -> LedgerSums | None:
        return await self._link.call(
            "sums", lambda: self._record.sums(payer, member, period_start_ms, until)
        )

    async def raise_epoch(self, shard: int, seen: int) -> tuple[int, str]:
        return await self._link.call("raise_epoch", lambda: self._record.raise_epoch(shard, seen))

    async def alive_gateways(self, me: str | None) -> Sequence[str]:
        air = self._link.air
        return await self._link.call("alive", lambda: self._record.alive(me, air.loop.time()))

    async def used_by_tier(self, now_ms: int) -> dict[str, int]:
        used: dict[str, int] = {}
        for row in self._record.rows.values():
            used[row.event.tier] = used.get(row.event.tier, 0) + row.charged_tokens
        return used

    async def prepare_partitions(self, now_ms: int) -> None: ...

    async def close_periods(self, now_ms: int, rows_max: int) -> int:
        return 0  # no period is over for an hour in a world that lasts a minute


class SimDirectory:
    """Fulfils ports.directory.Directory."""

    def __init__(self, link: Link, record: Record) -> None:
        self._link, self._record = link, record

    async def _ask(self, name: str, ask: Callable[[FakeDirectory], Coroutine[Any, Any, _T]]) -> _T:
        return await self._link.call(name, lambda: _at_once(ask(self._record.directory)))

    async def identity_of_key(self, digest: bytes) -> Identity | None:
        return await self._ask("identity_of_key", lambda each: each.identity_of_key(digest))

    async def identity_of_user(self, user_id: str) -> Identity | None:
        return await self._ask("identity_of_user", lambda each: each.identity_of_user(user_id))

    async def entitlement(
        self, payer: str, member: str | None, period_start_ms: int
    ) -> Entitlement | None:
        return await self._ask(
            "entitlement", lambda each: each.entitlement(payer, member, period_start_ms)
        )

    async def as_payer(self, user_id: str) -> Identity | None:
        return await self._ask("as_payer", lambda each: each.as_payer(user_id))

    async def create_user(
        self, user_id: str, tier: str, calendar: Calendar, email: str | None = None
    ) -> Identity:
        return await self._ask(
            "create", lambda each: each.create_user(user_id, tier, calendar, email)
        )

    async def claim_tier(self, user_id: str, tier: str, claimed_ms: int) -> Identity:
        return await self._ask(
            "claim_tier", lambda each: each.claim_tier(user_id, tier, claimed_ms)
        )

    async def set_calendar(self, user_id: str, calendar: Calendar) -> Identity:
        return await self._ask("set_calendar", lambda each: each.set_calendar(user_id, calendar))

    async def credit_pack(self, credit: PackCredit) -> Identity:
        return await self._ask("credit_pack", lambda each: each.credit_pack(credit))

    async def set_tier(self, user_id: str, tier: str) -> Identity:
        return await self._ask("set_tier", lambda each: each.set_tier(user_id, tier))

    async def adjust(self, adjustment: Adjustment) -> Identity:
        return await self._ask("adjust", lambda each: each.adjust(adjustment))

    async def create_key(
        self, key_id: str, user_id: str, digest: bytes, is_service: bool = False
    ) -> Identity:
        return await self._ask(
            "create_key", lambda each: each.create_key(key_id, user_id, digest, is_service)
        )

    async def revoke_key(self, key_id: str) -> Identity:
        return await self._ask("revoke_key", lambda each: each.revoke_key(key_id))

    async def raise_revision(self, payer: str, past: int) -> None:
        await self._ask("raise_revision", lambda each: each.raise_revision(payer, past))

    async def unprojected(self, rows_max: int) -> Sequence[Identity]:
        return await self._ask("unprojected", lambda each: each.unprojected(rows_max))

    async def changed_lately(self, within_s: int, after: str, rows_max: int) -> Sequence[Identity]:
        return await self._ask(
            "changed_lately", lambda each: each.changed_lately(within_s, after, rows_max)
        )

    async def mark_projected(self, user_id: str, rev: int) -> None:
        await self._ask("mark_projected", lambda each: each.mark_projected(user_id, rev))

    async def users(self) -> Sequence[Identity]:
        return await self._ask("users", lambda each: each.users())


def _at_once(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    raise AssertionError("it waits")


def _moment(at: Cursor | Watermark | LedgerRow) -> tuple[int, tuple[int, int]]:
    return at.epoch, stream_position(at.stream_id)
