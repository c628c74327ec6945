"""What the caps of whole tiers are handed out with: rounds, shards in Redis, sums in the ledger.

Two processes may hand out at the same time: of two rounds the newer one wins in each shard. All
may raise StoreUnavailable or LedgerUnavailable: the outcome is unknown, and the next round tells.
"""

from __future__ import annotations

from typing import Protocol

from gateway.core.quota.shares import ShareAsk, ShareReply
from gateway.ports.ledger import Watermark


class TierShares(Protocol):
    """Shares as the shards keep them."""

    async def share(self, ask: ShareAsk) -> ShareReply:
        """Look at a shard's share of a cap, or change it."""
        ...


class TierLedger(Protocol):
    """What the ledger knows of capped tiers."""

    async def next_round(self) -> int:
        """A number that is larger than every one before, whoever got that."""
        ...

    async def settled_before(self, tier: str, period_start_ms: int, until: Watermark) -> int | None:
        """What epochs before `until.epoch` settled in a tier's period on that shard, in tokens;
        None while the ledger has not booked everything up to `until`."""
        ...
