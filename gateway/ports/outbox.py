"""The outbox: the shards' event streams in Redis, written by the scripts and read by the drain.

What was read is still there until it is trimmed, so a reader keeps nothing but a position. May
raise StoreUnavailable, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class OutboxEntry(NamedTuple):
    """One event of a shard's outbox, both parts raw."""

    shard: int
    stream_id: str
    event_json: bytes
    script_part: bytes


class Outbox(Protocol):
    """The shards' event streams."""

    async def server_id(self) -> str:
        """Another one than before: the server was started anew, or another took over, and it may
        have gone back in time."""
        ...

    async def read(
        self, cursors: dict[int, str], rows_max: int, wait_ms: int
    ) -> Sequence[OutboxEntry]:
        """Entries after each shard's cursor, `rows_max` a shard; waits `wait_ms` for the first."""
        ...

    async def at(self, cursors: dict[int, str]) -> Sequence[OutboxEntry]:
        """The entries that the cursors name, of those shards in which they still are."""
        ...

    async def backlog(self, shard: int, cursor: str) -> tuple[int, str | None]:
        """How many entries lie past the cursor (counted to 1,000), and the oldest one's id."""
        ...

    async def trim(self, shard: int, before_id: str, bytes_max: int, cursor: str) -> None:
        """Drop entries older than `before_id`; when still over `bytes_max`, all up to `cursor`.

        Never drops an entry past the cursor: it has not reached the ledger yet.
        """
        ...
