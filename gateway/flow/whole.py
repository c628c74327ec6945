"""Whether a server of Redis has all that was seen of a shard, or has gone back in time.

What a server loses it loses from the newest on: a restart without its last second, a replica that
had not heard of it. So whoever still finds there the newest that it knows of has lost nothing. Of
what makes an event, that is the event; of calls under way, their holds. Refuses to know what is to
be done about a loss, and what is brought back without being asked for (entitlements: see
`jobs.project`).
"""

from __future__ import annotations

from typing import Protocol

from gateway.core.event import stream_position
from gateway.ports.ledger import Cursor
from gateway.ports.quota_store import QuotaStore, ShardState

UNKNOWN = ShardState(0, "0-0")


class OpenCalls(Protocol):
    """Calls under way in this process. The store is one that needs nobody's acceptance."""

    async def say_again(self, store: QuotaStore, shard: int, epoch: int) -> int:
        """Hold in a shard's new epoch what is open of older ones: how many."""
        ...

    async def are_known(self, store: QuotaStore, shard: int, epoch: int) -> bool:
        """Whether the store has every hold of this epoch that is open here."""
        ...


class NoCalls:
    """Fulfils OpenCalls for a process that takes none."""

    async def say_again(self, store: QuotaStore, shard: int, epoch: int) -> int:
        return 0

    async def are_known(self, store: QuotaStore, shard: int, epoch: int) -> bool:
        return True


async def has_events(
    store: QuotaStore, shard: int, state: ShardState, seen: ShardState, cursor: Cursor | None
) -> bool:
    """Whether Redis, being at `state`, has every event that this process has `seen` and that the
    ledger has booked up to its `cursor`."""
    booked = ShardState(cursor.epoch, cursor.stream_id) if cursor else UNKNOWN
    if not state.epoch or not state.is_readable or order(state) < max(order(seen), order(booked)):
        return False
    # Somebody who had seen less may have written since: then the newest id hides the loss.
    newest = [seen]
    # What was booked before this epoch began may be lost: that is why it began.
    if cursor and cursor.stream_id != cursor.raised_at and booked != seen:
        newest.append(booked)
    for place in newest:
        is_event = place.epoch == state.epoch and place.stream_id != UNKNOWN.stream_id
        is_booked = cursor is None or order(place) <= order(booked)
        if is_event and not await store.has_event(shard, place.stream_id, is_booked):
            return False
    return True


def order(state: ShardState) -> tuple[int, tuple[int, int]]:
    """Of two places of a shard, the later one has the greater."""
    return state.epoch, stream_position(state.stream_id)
