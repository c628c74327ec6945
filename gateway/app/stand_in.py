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
from gateway.config.values import parse_address
from gateway.ports.tasks import spawn
from gateway.standin import StandIn, StandInSettings

_ENCODING = "o200k_base"
USER_HEADER = "x-quota-user"


async def run_stand_in(
    listen: str, chunk_tokens: int, require_key: str | None, compatible: bool = False
) -> None:
    """Run a stand-in until SIGTERM or SIGINT. ValueError or OSError when it cannot listen there."""
    stop = stop_signal()
    address = parse_address(listen)
    tokenizer = BpeTokenizer()
    tokenizer.load(_ENCODING)
    settings = StandInSettings(
        count_tokens=lambda text: tokenizer.count(text, _ENCODING),
        host=address.host,
        port=address.port,
        chunk_tokens=chunk_tokens,
        require_key=require_key,
        compatible=compatible,
    )
    stand_in = StandIn(settings)
    say_ready(openai=await stand_in.start())
    await stop.wait()
    await stand_in.stop()


@asynccontextmanager
async def running_stand_in() -> AsyncIterator[str]:
    """A stand-in on any port for as long as the block lasts; its base URL.

    Its vocabulary loads beside everything else that starts; a call that comes sooner waits for it.
    """
    tokenizer = BpeTokenizer()
    stand_in = StandIn(StandInSettings(lambda text: tokenizer.count(text, _ENCODING)))
    url = await stand_in.start()
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
