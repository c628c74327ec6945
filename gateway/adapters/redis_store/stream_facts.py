"""What a server tells of a stream without reading it: how far it is, and what was taken out of it.

Promises to tell an entry that was trimmed from one that the server has lost. Refuses to know what
the entries are. https://redis.io/docs/latest/commands/xinfo-stream/
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.adapters.redis_store.calls import Calls
from gateway.core.event import stream_position

NO_ID = "0-0"


class StreamFacts(NamedTuple):
    """Ids of a stream: of the newest entry it ever had, of the oldest that it has (None: it has
    none), and the highest that was deleted by name, as `lua/open.lua` does to go on from there.
    `removed`: how many it has no more, by whatever way."""

    newest_id: str = NO_ID
    oldest_id: str | None = None
    deleted_id: str = NO_ID
    removed: int = 0

    def had(self, stream_id: str) -> bool:
        """Of an entry that is not there: whether it was, and was taken out. Entries are trimmed
        from the oldest on."""
        at = stream_position(stream_id)
        if at > stream_position(self.newest_id):
            return False
        was_trimmed = self.removed > (self.deleted_id != NO_ID)  # one may be that of `open`
        is_before_all = self.oldest_id is None or at < stream_position(self.oldest_id)
        return (was_trimmed and is_before_all) or at <= stream_position(self.deleted_id)


async def stream_facts(calls: Calls, key: str) -> StreamFacts:
    """Those of the stream under `key`, which may not be there."""
    if not await calls.command("EXISTS", key):
        return StreamFacts()
    info: Any = await calls.command("XINFO", "STREAM", key)
    told = info if isinstance(info, dict) else dict(zip(info[::2], info[1::2], strict=True))
    oldest = told[b"first-entry"]
    return StreamFacts(
        newest_id=told[b"last-generated-id"].decode(),
        oldest_id=oldest[0].decode() if oldest else None,
        deleted_id=told[b"max-deleted-entry-id"].decode(),
        removed=told[b"entries-added"] - told[b"length"],
    )
