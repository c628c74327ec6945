"""Settlements that Redis confirmed a while ago, in case it loses them before the ledger has them.

Redis may lose its newest writes (a failover, a restart without its last second, an emptied server).
What it then no longer has, and the ledger not yet, is sent again from here, under the same rids.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from gateway.core.event import stream_position
from gateway.core.quota.settle import Settlement
from gateway.ports.quota_store import ShardState

# The drain lags by milliseconds; this is some ten seconds of a busy gateway, about 20 MB.
RECENT_MAX = 20_000
# In place of a stream id that is not known: past all that a ledger has booked. What is sent again
# although it is booked is told apart there, by its rid.
_ANYWHERE = f"{2**63 - 1}-0"


class RecentSettlements:
    """The newest `recent_max` confirmed settlements with an event; older ones are dropped."""

    def __init__(self, recent_max: int = RECENT_MAX) -> None:
        self._recent_max = recent_max
        self._kept: OrderedDict[str, tuple[Settlement, int, ShardState]] = OrderedDict()

    def keep(self, settlement: Settlement, shard: int, place: ShardState) -> None:
        """The event of this settlement is at `place` (epoch, stream id) of the shard's outbox."""
        kept, rid = self._kept, settlement.rid
        if rid in kept:
            kept.move_to_end(rid)
        kept[rid] = (settlement, shard, place)
        if len(kept) > self._recent_max:
            kept.popitem(last=False)

    def keep_unplaced(self, settlement: Settlement, shard: int, epoch: int) -> None:
        """Its event is in the shard's outbox, but the reply that said where was lost."""
        if settlement.rid not in self._kept:
            self.keep(settlement, shard, ShardState(epoch, _ANYWHERE))

    def newest(self, shard: int, epoch: int, until: str) -> str | None:
        """The newest event of a shard's `epoch` that is kept, of those up to `until`."""
        limit = stream_position(until)
        return max(
            (
                place.stream_id
                for _, of_shard, place in self._kept.values()
                if (of_shard, place.epoch) == (shard, epoch)
                and stream_position(place.stream_id) <= limit
            ),
            key=stream_position,
            default=None,
        )

    def lost(self, shard: int, epoch: int, raised_at: str) -> Sequence[Settlement]:
        """Those of a shard that may be neither in Redis nor in the ledger since `epoch` began, with
        the ledger at `raised_at`. What came even before the last epoch is always among them."""
        booked = stream_position(raised_at)
        return [
            settlement
            for settlement, of_shard, place in self._kept.values()
            if of_shard == shard
            and place.epoch < epoch
            and (place.epoch < epoch - 1 or stream_position(place.stream_id) > booked)
        ]
