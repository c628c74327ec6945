"""Opening shards: what Redis does not know, the ledger decides.

A shard without meta is new, or its server lost everything. Either way the ledger grants the next
epoch, which makes every older account in Redis ask for hydration instead of counting as zero.
"""

from __future__ import annotations

from gateway.core.identity import shard_of
from gateway.ports.ledger import Ledger
from gateway.ports.quota_store import QuotaStore


class Shards:
    """Opens shards; every step may be repeated, also by several gateways at once."""

    def __init__(self, store: QuotaStore, ledger: Ledger, shards: int) -> None:
        self._store = store
        self._ledger = ledger
        self._shards = shards

    def of(self, payer: str) -> int:
        """The shard of a payer."""
        return shard_of(payer, self._shards)

    async def open_all(self) -> None:
        """Open every shard that is not; before traffic."""
        for shard in range(self._shards):
            await self.open(shard)

    async def open(self, shard: int) -> int:
        """The epoch in force. Opening an open shard changes nothing.

        Two gateways may both be granted an epoch; the first to reach Redis opens it, the other
        finds it open. An epoch that nobody uses does no harm.
        """
        epoch = await self._store.epoch(shard)
        if epoch:
            return await self._store.open_shard(shard, epoch, "0-0")
        seen, _ = (await self._ledger.cursors()).get(shard, (0, "0-0"))
        granted, cursor = await self._ledger.raise_epoch(shard, seen)
        return await self._store.open_shard(shard, granted, cursor)
