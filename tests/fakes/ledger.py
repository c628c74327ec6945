"""A ledger and a directory in memory; either may be away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.core.event import LedgerRow
from gateway.core.identity import Identity
from gateway.core.period import Calendar
from gateway.core.quota.entitle import PACKS_MAX, Entitlement, LedgerSums, Pack
from gateway.ports.directory import Adjustment, PackCredit
from gateway.ports.ledger import (
    BookReply,
    Conflict,
    Cursor,
    DeadEntry,
    LedgerUnavailable,
    TakeBack,
    Watermark,
)
from tests.fakes.doubles import counted_twice

_UNKNOWN = Cursor(0, "0-0", "")


class FakeDirectory:
    """Fulfils ports.directory.Directory. `asked` counts the look-ups of keys. Packs have no end
    here: there is no clock. `people` has each user's own row; a test makes a member of a team by
    writing to it."""

    def __init__(self) -> None:
        self.people: dict[str, Identity] = {}
        self.keys: dict[bytes, str] = {}
        self.key_ids: dict[str, bytes] = {}
        self.services: set[bytes] = set()
        self.adjustments: dict[str, Adjustment] = {}
        self.credits: dict[str, PackCredit] = {}
        self.spent: dict[str, int] = {}
        self.refunded: set[str] = set()
        self.projected: dict[str, int] = {}
        self.asked = 0
        self.away = False

    def _reach(self) -> None:
        if self.away:
            raise LedgerUnavailable("the directory is away")

    async def identity_of_key(self, digest: bytes) -> Identity | None:
        self.asked += 1
        self._reach()
        found = self._identity(self.keys.get(digest, ""))
        return found and replace(found, is_service=digest in self.services)

    async def identity_of_user(self, user_id: str) -> Identity | None:
        self._reach()
        return self._identity(user_id)

    async def as_payer(self, user_id: str) -> Identity | None:
        self._reach()
        row = self.people.get(user_id)
        return row and replace(row, payer=user_id)

    async def entitlement(
        self, payer: str, member: str | None, period_start_ms: int
    ) -> Entitlement | None:
        self._reach()
        identity = self.people.get(member or payer)
        if identity is None or (member is not None and identity.payer != payer):
            return None
        return Entitlement(
            payer,
            identity.rev,
            period_start_ms,
            self.adjusted(payer, member, period_start_ms),
            () if member else self.packs(payer),
            member,
        )

    async def create_user(
        self, user_id: str, tier: str, calendar: Calendar, email: str | None = None
    ) -> Identity:
        self._reach()
        if user_id in self.people:
            raise Conflict(f"user {user_id} exists")
        self.people[user_id] = Identity(user_id, user_id, tier, 1, calendar, email=email)
        return self.people[user_id]

    async def set_calendar(self, user_id: str, calendar: Calendar) -> Identity:
        payer = self._person(user_id).payer
        for each in list(self.people.values()):
            if each.payer == payer:
                self.people[each.user_id] = replace(each, rev=each.rev + 1, calendar=calendar)
        return self.people[user_id]

    async def credit_pack(self, credit: PackCredit) -> Identity:
        payer = self._person(credit.user_id).payer
        before = self.credits.get(credit.payment_ref)
        if before is not None:
            if (self.people[before.user_id].payer, before.tokens) != (payer, credit.tokens):
                raise Conflict(f"payment {credit.payment_ref} was credited already")
            return self.people[credit.user_id]
        if sum(pack.tokens > 0 for pack in self.packs(payer)) >= PACKS_MAX:
            raise Conflict(f"{payer} has {PACKS_MAX} packs to spend")
        self.credits[credit.payment_ref] = credit
        return self._change(credit.user_id, with_payer=True)

    async def set_tier(self, user_id: str, tier: str) -> Identity:
        return self._change(user_id, tier)

    async def claim_tier(self, user_id: str, tier: str, claimed_ms: int) -> Identity:
        if self._person(user_id).tier_set_ms >= claimed_ms:
            return self.people[user_id]
        self._change(user_id, tier)
        self.people[user_id] = replace(self.people[user_id], tier_set_ms=claimed_ms)
        return self.people[user_id]

    async def adjust(self, adjustment: Adjustment) -> Identity:
        self.adjustments[adjustment.event_id] = adjustment
        return self._change(adjustment.user_id, with_payer=True)

    async def create_key(
        self, key_id: str, user_id: str, digest: bytes, is_service: bool = False
    ) -> Identity:
        self.keys[digest] = user_id
        self.services |= {digest} if is_service else set()
        self.key_ids[key_id] = digest
        return self._change(user_id)

    async def revoke_key(self, key_id: str) -> Identity:
        if key_id not in self.key_ids:
            raise Conflict(f"there is no key {key_id}")
        return self._change(self.keys.pop(self.key_ids[key_id]))

    async def unprojected(self, rows_max: int) -> Sequence[Identity]:
        self._reach()
        waiting = [who for who in self.people.values() if who.rev > self.rev_projected(who.user_id)]
        return [self._identity(who.user_id) or who for who in waiting[:rows_max]]

    async def changed_lately(self, within_s: int, after: str, rows_max: int) -> Sequence[Identity]:
        self._reach()
        found = [who for user_id, who in sorted(self.people.items()) if user_id > after]
        return found[:rows_max]

    async def mark_projected(self, user_id: str, rev: int) -> None:
        self._reach()
        self.projected[user_id] = max(rev, self.rev_projected(user_id))

    async def raise_revision(self, payer: str, past: int) -> None:
        self._reach()
        for who in list(self.people.values()):
            if who.payer == payer and who.rev <= past:
                self.people[who.user_id] = replace(who, rev=past + 1)

    async def users(self) -> Sequence[Identity]:
        return list(self.people.values())

    def rev_projected(self, user_id: str) -> int:
        return self.projected.get(user_id, 0)

    def adjusted(self, payer: str, member: str | None, period_start_ms: int) -> int:
        return sum(
            each.tokens
            for each in self.adjustments.values()
            if each.period_start_ms == period_start_ms
            and self.people[each.user_id].payer == payer
            and member in (None, each.user_id)
        )

    def packs(self, payer: str) -> tuple[Pack, ...]:
        """By end, with what is left of them by the ledger."""
        told = [
            Pack(
                each.pack_id,
                0
                if each.pack_id in self.refunded
                else max(0, each.tokens - self.spent.get(each.pack_id, 0)),
                each.ends_ms,
            )
            for each in self.credits.values()
            if self.people[each.user_id].payer == payer
        ]
        return tuple(sorted(told, key=lambda pack: (pack.ends_ms, pack.pack_id)))

    def _identity(self, user_id: str) -> Identity | None:
        """The user's row beside its payer's, as the view `identities` has it."""
        row = self.people.get(user_id)
        payer = row and self.people.get(row.payer)
        if row is None or payer is None or row.member is None:
            return row
        return replace(
            row, tier=payer.tier, rev=payer.rev, calendar=payer.calendar, member_rev=row.rev
        )

    def _person(self, user_id: str) -> Identity:
        self._reach()
        if user_id not in self.people:
            raise Conflict(f"there is no user {user_id}")
        return self.people[user_id]

    def _change(self, user_id: str, tier: str | None = None, with_payer: bool = False) -> Identity:
        before = self._person(user_id)
        self.people[user_id] = replace(before, rev=before.rev + 1, tier=tier or before.tier)
        if with_payer and before.payer != user_id:
            payer = self._person(before.payer)
            self.people[before.payer] = replace(payer, rev=payer.rev + 1)
        return self.people[user_id]


class FakeLedger:
    """Fulfils ports.ledger.Ledger. `refuse_books` batches fail before anything is committed, and
    `unclosed` periods wait to be closed."""

    def __init__(self, directory: FakeDirectory) -> None:
        self._directory = directory
        self.rows: dict[str, LedgerRow] = {}
        self.buried: list[DeadEntry] = []
        self.at: dict[int, Cursor] = {}
        self.leads = True  # nobody else does
        self.locked = False
        self.away = False
        self.refuse_books = 0
        self.sums_asked = 0
        self.cursors_asked = 0
        self.partitions: list[int] = []
        self.used: dict[str, int] = {}
        self.unclosed = 0
        self.alive: list[str] = []
        self.closings: list[int] = []

    def _reach(self) -> None:
        if self.away:
            raise LedgerUnavailable("the ledger is away")

    async def lock_shards(self, shards: int) -> bool:
        self._reach()
        self.locked = self.leads
        return self.locked

    def lock_lost(self) -> bool:
        return not self.locked

    def unlock_shards(self) -> None:
        self.locked = False

    async def cursors(self) -> dict[int, Cursor]:
        self.cursors_asked += 1
        self._reach()
        return dict(self.at)

    async def note_server(self, shards: int, server_id: str) -> None:
        self._reach()
        for shard in range(shards):
            self.at[shard] = replace(self.at.get(shard, _UNKNOWN), server_id=server_id)

    async def book(
        self, rows: Sequence[LedgerRow], dead: Sequence[DeadEntry], take_back: TakeBack
    ) -> BookReply:
        self._reach()
        if self.refuse_books:
            self.refuse_books -= 1
            raise LedgerUnavailable("the ledger went away between read and commit")
        known = {(row.event_id, row.period_ms): row for row in self.rows.values()}
        corrections, too_much = counted_twice(known, rows)
        if too_much:
            await take_back(too_much)
        new = []
        for row in (*rows, *corrections):
            if self.rows.setdefault(row.event_id, row) is row:
                new.append(row)
        for row in new:
            for pack_id, tokens in row.pack_split:
                self._directory.spent[pack_id] = self._directory.spent.get(pack_id, 0) + tokens
        new_dead = [entry for entry in dead if entry not in self.buried]
        self.buried += new_dead
        self._pass_by(rows, dead)
        repeated = len(rows) + len(corrections) - len(new)
        return BookReply(new, repeated, len(new_dead))

    def _pass_by(self, rows: Sequence[LedgerRow], dead: Sequence[DeadEntry]) -> None:
        read = [(row.shard, row.epoch, row.stream_id) for row in rows]
        read += [(entry.shard, 0, entry.stream_id) for entry in dead]
        for shard, epoch, stream_id in read:
            before = self.at.get(shard, _UNKNOWN)
            furthest = max(before.stream_id, stream_id, key=_order)
            self.at[shard] = Cursor(max(before.epoch, epoch), furthest, before.server_id)

    async def sums(
        self, payer: str, member: str | None, period_start_ms: int, until: Watermark
    ) -> LedgerSums | None:
        self.sums_asked += 1
        self._reach()
        cursor, moment = self.at.get(until.shard, _UNKNOWN), _moment(until)
        if until.stream_id != "0-0" and _moment(cursor) < moment:
            return None
        rows = [
            row
            for row in self.rows.values()
            if (row.event.payer, row.period_ms) == (payer, period_start_ms)
            and member in (None, row.event.user_id)
            and (row.epoch < until.epoch or _moment(row) <= moment)
        ]
        return LedgerSums(
            settled_tokens=sum(row.charged_tokens for row in rows),
            from_packs=0 if member else sum(row.from_packs for row in rows),
            adjusted_tokens=self._directory.adjusted(payer, member, period_start_ms),
            cost_nano_gbp=sum(row.cost_nano_gbp for row in rows),
            rev=self._directory.people[member or payer].rev,
            packs=() if member else self._directory.packs(payer),
        )

    async def raise_epoch(self, shard: int, seen: int) -> tuple[int, str]:
        self._reach()
        before = self.at.get(shard, _UNKNOWN)
        if before.epoch <= seen:
            self.at[shard] = replace(before, epoch=seen + 1, raised_at=before.stream_id)
        return self.at[shard].epoch, before.stream_id

    async def alive_gateways(self, me: str | None) -> Sequence[str]:
        self._reach()
        if me is not None and me not in self.alive:
            self.alive.append(me)
        return tuple(self.alive)

    async def used_by_tier(self, now_ms: int) -> dict[str, int]:
        self._reach()
        return self.used

    async def prepare_partitions(self, now_ms: int) -> None:
        self._reach()
        self.partitions.append(now_ms)

    async def close_periods(self, now_ms: int, rows_max: int) -> int:
        self._reach()
        self.closings.append(now_ms)
        closed = min(rows_max, self.unclosed)
        self.unclosed -= closed
        return closed


def _moment(at: Cursor | Watermark | LedgerRow) -> tuple[int, tuple[int, int]]:
    return at.epoch, _order(at.stream_id)


def _order(stream_id: str) -> tuple[int, int]:
    ms, _, number = stream_id.partition("-")
    return int(ms), int(number)
