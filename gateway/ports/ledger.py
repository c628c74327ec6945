"""The record, kept in Postgres: users, keys, and the ledger nobody edits.

LedgerUnavailable means "try later" (the server is away, slow or failing over); other trouble with
what was written is told apart by the adapter and never raised for a single bad row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.event import LedgerRow
from gateway.core.identity import Identity
from gateway.ports.quota_store import Entitlement, LedgerSums


class LedgerUnavailable(Exception):
    """Postgres did not answer, or not in time; nothing was changed or the change is repeatable."""


class Conflict(ValueError):
    """What is asked for contradicts what the ledger holds; the text says how."""


@dataclass(frozen=True, slots=True)
class DeadEntry:
    """An outbox entry that cannot become a row, kept raw with the reason."""

    shard: int
    stream_id: str
    event_json: bytes
    script_part: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class BookReply:
    """What one transaction of the drain did: rows that were new, rows that were there, bad rows."""

    booked: Sequence[LedgerRow]
    repeated: int
    dead: int


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A correction of what counts as used, by a person: tokens may be negative."""

    event_id: str
    user_id: str
    period_start_ms: int
    tokens: int
    reason: str
    author: str


class Ledger(Protocol):
    """Append-only rows, their sums and the drain's cursors."""

    async def lock_shards(self, shards: int) -> bool:
        """Become the one drainer; False: another is. May be called again to ask whether it holds.

        The lock lives as long as a connection of its own. `shards` is recorded at the first call;
        Conflict when the ledger was begun with another number.
        """
        ...

    def lock_lost(self) -> bool:
        """True while this process is not the drainer: stop draining and call `lock_shards`."""
        ...

    def unlock_shards(self) -> None:
        """Let another drain. Does not wait; may be called twice."""
        ...

    async def cursors(self) -> dict[int, tuple[int, str]]:
        """Shard -> (epoch, id of the last outbox entry booked). Absent: nothing known yet."""
        ...

    async def book(self, rows: Sequence[LedgerRow], dead: Sequence[DeadEntry]) -> BookReply:
        """Rows, sums and cursors in one transaction; rows that the server rejects become dead.

        May be repeated: what was booked or buried before changes nothing. Cursors go to the
        highest stream id given, never back.
        """
        ...

    async def sums(
        self, payer: str, period_start_ms: int, shard: int, epoch: int, stream_id: str
    ) -> LedgerSums | None:
        """Sums of all rows up to `stream_id` of `epoch`; None while the cursor is not there yet."""
        ...

    async def raise_epoch(self, shard: int, seen: int) -> tuple[int, str]:
        """Raise the shard's epoch if it is still `seen`; the (epoch, cursor) that hold now.

        A shard the ledger does not know begins at epoch `seen` + 1 with cursor '0-0'.
        """
        ...

    async def used_by_tier(self, now_ms: int) -> dict[str, int]:
        """Tokens used in the periods that run now, summed over each tier's payers."""
        ...

    async def prepare_partitions(self, now_ms: int) -> None:
        """Make the partitions of the month before `now_ms`, its own and the next three (UTC)."""
        ...


class Directory(Protocol):
    """Users and keys. A change raises the user's revision in the same transaction."""

    async def identity_of_key(self, digest: bytes) -> Identity | None:
        """None for an unknown, revoked or disabled key: the caller may not tell which."""
        ...

    async def identity_of_user(self, user_id: str) -> Identity | None: ...

    async def entitlement(self, payer: str, period_start_ms: int) -> Entitlement | None: ...

    async def create_user(self, user_id: str, tier: str, anchor_day: int, zone: str) -> Identity:
        """Conflict when the user exists."""
        ...

    async def set_tier(self, user_id: str, tier: str) -> Identity:
        """Conflict when there is no such user."""
        ...

    async def adjust(self, adjustment: Adjustment) -> Identity:
        """Book the adjustment entry and its sum. The same `event_id` again changes nothing.

        Conflict when there is no such user, or the id is booked with other content.
        """
        ...

    async def create_key(self, key_id: str, user_id: str, digest: bytes) -> Identity:
        """Conflict when there is no such user, or the key exists."""
        ...

    async def revoke_key(self, key_id: str) -> Identity:
        """Conflict when there is no such key. Revoking twice keeps the first time."""
        ...

    async def unprojected(self, rows_max: int) -> Sequence[Identity]:
        """Users whose revision Redis has not confirmed yet."""
        ...

    async def mark_projected(self, user_id: str, rev: int) -> None:
        """Redis has confirmed `rev`; a lower one than before changes nothing."""
        ...

    async def users(self) -> Sequence[Identity]: ...
