"""The shares of capped tiers on Redis.

Promises what `gateway.ports.tier_shares.TierShares` says, by one script. How calls travel is not
known here.
"""

from __future__ import annotations

from gateway.adapters.redis_store.arguments import SERVER_CLOCK, given
from gateway.adapters.redis_store.calls import Calls
from gateway.adapters.redis_store.keys import shard_keys, tier_key
from gateway.adapters.redis_store.scripts import Script
from gateway.core.quota.shares import ShareAsk, ShareCode, ShareReply


class RedisTierShares:
    """Fulfils the port `TierShares`."""

    def __init__(self, calls: Calls, script: Script) -> None:
        self._calls = calls
        self._script = script

    async def share(self, ask: ShareAsk) -> ShareReply:
        keys = shard_keys(ask.shard)
        code, epoch, share, settled, held, stream_id, now_ms = await self._calls.run(
            self._script,
            (keys.meta, tier_key(ask.tier, ask.shard), keys.outbox),
            (
                ask.round, ask.period_start_ms, given(ask.epoch), given(ask.earlier_tokens),
                given(ask.wanted_tokens), given(ask.free_tokens), SERVER_CLOCK,
            ),
        )  # fmt: skip
        return ShareReply(
            ShareCode(code), epoch, share, settled, held, stream_id.decode(), now_ms
        )  # fmt: skip
