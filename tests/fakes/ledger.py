"""A ledger and a directory in memory; either may be away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.core.event import LedgerRow
from gateway.core.identity import Identity
from gateway.ports.ledger import Adjustment, BookReply, Conflict, DeadEntry, LedgerUnavailable
from gateway.ports.quota_store import Entitlement, LedgerSums


class FakeDirectory:
    """Fulfils ports.ledger.Directory. `asked` counts the look-ups of keys."""

    def __init__(self) -> None:
        self.people: dict[str, Identity] = {}
        self.keys: dict[bytes, str] = {}
        self.key_ids: dict[str, bytes] = {}
        self.adjustments: dict[str, Adjustment] = {}
        self.projected: dict[str, int] = {}
        self.asked = 0
        self.away = False

    def _reach(self) -> None:
        if self.away:
            raise LedgerUnavailable("the directory is away")

    async def identity_of_key(self, digest: bytes) -> Identity | None:
        self.asked += 1
        self._reach()
        return self.people.get(self.keys.get(digest, ""))

    async def identity_of_user(self, user_id: str) -> Identity | None:
        self._reach()
        return self.people.get(user_id)

    async def entitlement(self, payer: str, period_start_ms: int) -> Entitlement | None:
        self._reach()
        identity = self.people.get(payer)
        if identity is None:
            return None
        adjusted = self.adjusted(payer, period_start_ms)
        return Entitlement(payer, identity.rev, period_start_ms, adjusted)

    async def create_user(self, user_id: str, tier: str, anchor_day: int, zone: str) -> Identity:
        self._reach()
        if user_id in self.people:
            raise Conflict(f"user {user_id} exists")
        self.people[user_id] = Identity(user_id, user_id, tier, 1, anchor_day, zone)
        return self.people[user_id]

    async def set_tier(self, user_id: str, tier: str) -> Identity:
        return self._change(user_id, tier)

    async def adjust(self, adjustment: Adjustment) -> Identity:
        self.adjustments[adjustment.event_id] = adjustment
        return self._change(adjustment.user_id)

    async def create_key(self, key_id: str, user_id: str, digest: bytes) -> Identity:
        self.keys[digest] = user_id
        self.key_ids[key_id] = digest
        return self._change(user_id)

    async def revoke_key(self, key_id: str) -> Identity:
        if key_id not in self.key_ids:
            raise Conflict(f"there is no key {key_id}")
        return self._change(self.keys.pop(self.key_ids[key_id]))

    async def unprojected(self, rows_max: int) -> Sequence[Identity]:
        self._reach()
        waiting = [who for who in self.people.values() if who.rev > self.rev_projected(who.user_id)]
        return waiting[:rows_max]

    async def mark_projected(self, user_id: str, rev: int) -> None:
        self._reach()
        self.projected[user_id] = max(rev, self.rev_projected(user_id))

    async def users(self) -> Sequence[Identity]:
        return list(self.people.values())

    def rev_projected(self, user_id: str) -> int:
        return self.projected.get(user_id, 0)

    def adjusted(self, payer: str, period_start_ms: int) -> int:
        return sum(
            each.tokens
            for each in self.adjustments.values()
            if (each.user_id, each.period_start_ms) == (payer, period_start_ms)
        )

    def _change(self, user_id: str, tier: str | None = None) -> Identity:
        self._reach()
        before = self.people.get(user_id)
        if before is None:
            raise Conflict(f"there is no user {user_id}")
        self.people[user_id] = replace(before, rev=before.rev + 1, tier=tier or before.tier)
        return self.people[user_id]


class FakeLedger:
    """Fulfils ports.ledger.Ledger. `refuse_books` batches fail before anything is committed."""

    def __init__(self, directory: FakeDirectory) -> None:
        self._directory = directory
        self.rows: dict[str, LedgerRow] = {}
        self.buried: list[DeadEntry] = []
        self.at: dict[int, tuple[int, str]] = {}
        self.leads = True
        self.away = False
        self.refuse_books = 0
        self.sums_asked = 0
        self.partitions: list[int] = []
        self.used: dict[str, int] = {}

    def _reach(self) -> None:
        if self.away:
            raise LedgerUnavailable("the ledger is away")

    async def lock_shards(self, shards: int) -> bool:
        self._reach()
        return self.leads

    def lock_lost(self) -> bool:
        return not self.leads

    def unlock_shards(self) -> None:
        self.leads = False

    async def cursors(self) -> dict[int, tuple[int, str]]:
        self._reach()
        return dict(self.at)

    async def book(self, rows: Sequence[LedgerRow], dead: Sequence[DeadEntry]) -> BookReply:
        self._reach()
        if self.refuse_books:
            self.refuse_books -= 1
            raise LedgerUnavailable("the ledger went away between read and commit")
        new = [row for row in rows if row.event_id not in self.rows]
        self.rows.update((row.event_id, row) for row in new)
        self.buried += dead
        read = [(row.shard, row.stream_id) for row in rows]
        read += [(entry.shard, entry.stream_id) for entry in dead]
        for shard, stream_id in read:
            epoch, cursor = self.at.get(shard, (1, "0-0"))
            self.at[shard] = (epoch, max(cursor, stream_id, key=_order))
        return BookReply(new, len(rows) - len(new), len(dead))

    async def sums(
        self, payer: str, period_start_ms: int, shard: int, epoch: int, stream_id: str
    ) -> LedgerSums | None:
        self.sums_asked += 1
        self._reach()
        _, cursor = self.at.get(shard, (epoch, "0-0"))
        if _order(cursor) < _order(stream_id):
            return None
        rows = [
            row
            for row in self.rows.values()
            if (row.event.payer, row.period_ms) == (payer, period_start_ms)
        ]
        return LedgerSums(
            settled_tokens=sum(row.charged_tokens for row in rows),
            adjusted_tokens=self._directory.adjusted(payer, period_start_ms),
            cost_nano_gbp=sum(row.cost_nano_gbp for row in rows),
            rev=self._directory.people[payer].rev,
        )

    async def raise_epoch(self, shard: int, seen: int) -> tuple[int, str]:
        self._reach()
        epoch, cursor = self.at.get(shard, (0, "0-0"))
        if epoch == seen:
            self.at[shard] = (seen + 1, cursor)
        return self.at[shard]

    async def used_by_tier(self, now_ms: int) -> dict[str, int]:
        self._reach()
        return self.used

    async def prepare_partitions(self, now_ms: int) -> None:
        self._reach()
        self.partitions.append(now_ms)


def _order(stream_id: str) -> tuple[int, int]:
    ms, _, number = stream_id.partition("-")
    return int(ms), int(number)
