"""The record, kept in Postgres: the ledger nobody edits, its sums and the drain's cursors.

LedgerUnavailable means "try later" (the server is away, slow or failing over); other trouble with
what was written is told apart by the adapter and never raised for a single bad row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.event import LedgerRow
from gateway.core.quota.entitle import LedgerSums


class LedgerUnavailable(Exception):
    """Postgres did not answer, or not in time; nothing was changed or the change is repeatable."""


class Conflict(ValueError):
    """What is asked for contradicts what the ledger holds; the text says how."""


class Unknown(Conflict):
    """What is to be changed is not there."""


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
class Cursor:
    """How far a shard is booked: up to the event `stream_id`, in epoch `epoch` of the server that
    called itself `server_id` ('': not noted yet). `raised_at` is how far it was when this epoch
    began: Redis may have lost what came after that in the epoch before."""

    epoch: int
    stream_id: str
    server_id: str
    raised_at: str = "0-0"


@dataclass(frozen=True, slots=True)
class Watermark:
    """A moment of one shard: everything up to its event `stream_id` of epoch `epoch`."""

    shard: int
    epoch: int
    stream_id: str


GATEWAY_ALIVE_S = 15
"""Three times as long as a gateway takes to say again that it is alive."""

TakeBack = Callable[[Sequence[LedgerRow]], Awaitable[None]]
"""Is given rows that Redis counted twice, and returns once it counts them once."""


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

    async def cursors(self) -> dict[int, Cursor]:
        """By shard. Absent: nothing known yet."""
        ...

    async def note_server(self, shards: int, server_id: str) -> None:
        """Every shard has been read from its beginning on the server of this id."""
        ...

    async def book(
        self, rows: Sequence[LedgerRow], dead: Sequence[DeadEntry], take_back: TakeBack
    ) -> BookReply:
        """Rows, sums and cursors in one transaction; rows that the server rejects become dead.

        May be repeated: what was booked or buried before changes nothing. Cursors go to the
        highest stream id given, never back. A row whose id is booked under another (epoch, stream
        id) was counted twice by Redis; such rows are handed to `take_back` before the commit, so
        what raises there is read and handed over again. Where such a row settles a hold that is
        booked as expired, the difference is booked as its correction, which is among `booked`, and
        only the rest of the row is handed over, which charges as much as the expiry did.
        """
        ...

    async def sums(
        self, payer: str, member: str | None, period_start_ms: int, until: Watermark
    ) -> LedgerSums | None:
        """Sums of an account's rows up to `until` (of a member: the rows of that user); None
        while the cursor is not there yet. With the packs of the payer that may still be spent."""
        ...

    async def raise_epoch(self, shard: int, seen: int) -> tuple[int, str]:
        """Raise the shard's epoch above `seen` if it is not; the (epoch, cursor) that hold now.

        So of several that saw the same epoch one raises it, and all get the same answer. A shard
        the ledger does not know begins at epoch `seen` + 1 with cursor '0-0'.
        """
        ...

    async def alive_gateways(self, me: str | None) -> Sequence[str]:
        """Gateways that said within GATEWAY_ALIVE_S that they are alive; `me` says it now (None:
        whoever asks is no gateway)."""
        ...

    async def used_by_tier(self, now_ms: int) -> dict[str, int]:
        """Tokens used in the periods that run now, summed over each tier's payers."""
        ...

    async def prepare_partitions(self, now_ms: int) -> None:
        """Make the partitions of the month before `now_ms`, its own and the next three (UTC)."""
        ...

    async def close_periods(self, now_ms: int, rows_max: int) -> int:
        """Book a period_close entry for payers' periods that ended an hour or longer before
        `now_ms` and have none yet; how many were booked, at most `rows_max`."""
        ...
