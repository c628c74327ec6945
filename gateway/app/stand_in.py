"""The stand-in put together: with the real tokenizer, and in place of the configured upstreams.

The stand-in counts by its own statement of OpenAI's formula; only the vocabulary is the gateway's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from msgspec import structs

from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.app.process import say_ready, stop_signal
from gateway.config import Settings
from gateway.config.values import Address, parse_address
from gateway.ports.tasks import spawn
from gateway.standin import StandIn, StandInSettings

_ENCODING = "o200k_base"
ANY_PORT = Address("127.0.0.1", 0)
USER_HEADER = "x-quota-user"


async def run_stand_in(listen: str, chunk_tokens: int, require_key: str | None) -> None:
    """Run a stand-in until SIGTERM or SIGINT. ValueError or OSError when it cannot listen there."""
    stop = stop_signal()
    address = parse_address(listen)
    async with running_stand_in(address, chunk_tokens, require_key) as url:
        say_ready(openai=url)
        await stop.wait()


@asynccontextmanager
async def running_stand_in(
    address: Address = ANY_PORT, chunk_tokens: int = 4, require_key: str | None = None
) -> AsyncIterator[str]:
    """A stand-in for as long as the block lasts; its base URL."""
    tokenizer = BpeTokenizer()
    stand_in = StandIn(
        StandInSettings(
            count_tokens=lambda text: tokenizer.count(text, _ENCODING),
            host=address.host,
            port=address.port,
            chunk_tokens=chunk_tokens,
            require_key=require_key,
        )
    )
    url = await stand_in.start()
    # Beside everything else that starts; a call that comes before it is done waits for it.
    loading = spawn(asyncio.to_thread(tokenizer.load, _ENCODING), "stand-in's vocabulary")
    try:
        yield url
    finally:
        await stand_in.stop()
        await asyncio.wait([loading])


def with_stand_in(settings: Settings, base_url: str) -> Settings:
    """The settings with every upstream replaced by the stand-in, which is told the user."""
    upstreams = {
        name: structs.replace(each, base_url=base_url, user_header=USER_HEADER)
        for name, each in settings.upstreams.items()
    }
    return replace(settings, upstreams=upstreams)
