"""The KeptAnswers port on Redis: one string for each user's key, with a time to live.

Taking a key is one command, so of two gateways exactly one takes it. What comes back is handed on
only if it names the user and the key that were asked for: a reply that reached the wrong caller
must not become an answer to another user's call.
"""

from __future__ import annotations

from gateway.adapters.redis_store.calls import Calls, WrongReply
from gateway.adapters.redis_store.keys import answer_key
from gateway.adapters.redis_store.scripts import Script
from gateway.core.idempotency import (
    Remembered,
    RememberedError,
    decode_remembered,
    encode_remembered,
)
from gateway.ports.quota_store import StoreRejected

_ANY_MS = 1  # the script wants a time to live, also where nothing stays


class RedisAnswers:
    """Fulfils ports.answers.KeptAnswers. `keep` is the script of that name."""

    def __init__(self, calls: Calls, keep: Script, shards: int) -> None:
        self._calls = calls
        self._keep = keep
        self._shards = shards

    async def begin(self, running: Remembered, lives_ms: int) -> Remembered | None:
        mark = encode_remembered(running)
        # NX with GET: Redis 7.0 (https://redis.io/docs/latest/commands/set/, History).
        raw = await self._calls.command(
            "SET", self._key(running), mark, "NX", "GET", "PX", lives_ms
        )
        if raw is None or raw == mark:
            return None
        try:
            found = decode_remembered(raw)
        except RememberedError as error:
            raise StoreRejected(str(error)) from error
        if (found.user_id, found.key) != (running.user_id, running.key):
            raise WrongReply
        return found

    async def keep(self, running: Remembered, now: Remembered, lives_ms: int) -> bool:
        return await self._replace(running, encode_remembered(now), lives_ms)

    async def forget(self, running: Remembered) -> bool:
        return await self._replace(running, b"", _ANY_MS)

    async def _replace(self, running: Remembered, instead: bytes, lives_ms: int) -> bool:
        reply = await self._calls.run(
            self._keep,
            (self._key(running),),
            (running.rid, encode_remembered(running), instead, lives_ms),
            running.rid,
        )
        return bool(reply[0] == 1)

    def _key(self, running: Remembered) -> str:
        return answer_key(running.user_id, running.key, self._shards)
