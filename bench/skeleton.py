"""A gateway without rules, for comparison: what is left when all that decides is taken away.

The gateway's own listener and upstream connections pass requests on. Given a Redis, each is held
and settled by the gateway's own scripts, the same amounts each time; told to read, it takes the
body apart, writes it anew, and takes the usage from the answer. Nobody is known, nothing is priced,
counted or explained.
"""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec
from msgspec.structs import replace

from bench.lanes import UPSTREAM_KEY
from bench.loops import fastest, new_loop
from bench.processes import ROOT
from gateway.adapters.redis_store.calls import open_connections
from gateway.adapters.redis_store.fast_calls import FastCalls
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.scripts import load_scripts, lua_folder
from gateway.adapters.upstream.direct import DirectUpstream
from gateway.app.proxy_terms import bounds_of, origins_of
from gateway.config import load
from gateway.core.quota.entitle import LedgerSums
from gateway.core.quota.reserve import Limits, ReserveAsk
from gateway.core.quota.settle import Settlement
from gateway.core.rid import Rids
from gateway.ports.upstream import UpstreamCall
from gateway.web.http_request import HttpRequest
from gateway.web.request import read_body
from gateway.web.response import Whole
from gateway.web.servers import listen_raw

_PAYER, _TIER, _SHARDS, _ROOM_TOKENS = "somebody", "full", 1, 2**39
_PERIOD_MS = (1, 2**49)  # any clock is in it
_HELD_TOKENS, _CHARGED_TOKENS = 1000, 300
_HEADERS = [("Content-Type", "application/json")]
_EVENT = b'{"payer":"somebody","tier":"full","charged_tokens":300}'


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Answer(msgspec.Struct):
    usage: _Usage


_answer = msgspec.json.Decoder(_Answer).decode


class Skeleton:
    """Answers requests. `store`: None where nothing is held."""

    def __init__(
        self, upstream: DirectUpstream, store: RedisQuotaStore | None, reads: bool
    ) -> None:
        self._upstream, self._store, self._reads = upstream, store, reads
        self._rids = Rids(os.urandom(8))
        limits = Limits(_ROOM_TOKENS)
        self._ask = ReserveAsk(
            "", _PAYER, _TIER, 0, *_PERIOD_MS, limits, _HELD_TOKENS, 0, 0, 1, 60_000, _EVENT
        )
        self._settlement = Settlement(
            *("", _PAYER, "settle", 1, _PERIOD_MS[0], _CHARGED_TOKENS, 0, _EVENT, _TIER),
            limit_tokens=_ROOM_TOKENS,
        )

    async def handle(self, request: HttpRequest) -> Whole:
        """One request."""
        body = await read_body(request, 2**26)
        rid = self._rids.next(0)
        if self._reads:
            body = msgspec.json.encode(msgspec.json.decode(body))
        if self._store is not None:
            reply = await self._store.reserve(replace(self._ask, rid=rid))
            assert reply.code > 0, reply
        call = UpstreamCall("openai", "", "/chat/completions", body, rid, _PAYER)
        source = await self._upstream.send(call)
        answer = await source.read()
        if self._reads:
            _answer(answer)
        if self._store is not None:
            await self._store.settle(replace(self._settlement, rid=rid))
        await source.close()
        return Whole(source.head.status, _HEADERS, answer)


async def open_store(redis_url: str) -> RedisQuotaStore:
    """A store with one account that has room for all that will come."""
    calls = FastCalls(open_connections(redis_url, 5.0), 5.0, lambda script, seconds: None)
    store = RedisQuotaStore(calls, load_scripts(lua_folder()), _SHARDS)
    await store.open_shard(0, 1, "0-0", 0, ())
    hydration = await store.hydrate_begin(_PAYER, None, *_PERIOD_MS)
    if hydration is not None:
        await store.hydrate_finish(_PAYER, None, hydration, LedgerSums(0, 0, 0, 0, 0))
    return store


async def main(port: int, upstream_url: str, redis_url: str, reads: bool) -> None:
    """Serve on 127.0.0.1 until killed. `redis_url`: empty where nothing is to be held."""
    told = {"QUOTA_OPENAI_BASE_URL": f"{upstream_url}/v1", "OPENAI_API_KEY": UPSTREAM_KEY}
    settings = load(ROOT / "config.yaml", {**os.environ, **told})
    store = await open_store(redis_url) if redis_url else None
    skeleton = Skeleton(DirectUpstream(origins_of(settings)), store, reads)
    await listen_raw(skeleton.handle, "127.0.0.1", port, bounds_of(settings))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=lambda: new_loop(fastest())) as runner:
        runner.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], "reads" in sys.argv))
