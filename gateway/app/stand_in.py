"""The stand-in put together, with the real tokenizer.

It counts by its own statement of OpenAI's formula; only the vocabulary is the gateway's.
"""

from __future__ import annotations

from typing import Any

from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.app.children import Say
from gateway.app.signals import stop_signal
from gateway.standin import StandIn, StandInSettings

_ENCODING = "o200k_base"


def stand_in_settings(tokenizer: BpeTokenizer, **chosen: Any) -> StandInSettings:
    """What a stand-in is told, with this tokenizer; ValueError for what makes no sense."""
    tokenizer.load(_ENCODING)
    return StandInSettings(lambda text: tokenizer.count(text, _ENCODING), **chosen)


async def run_stand_in(settings: StandInSettings, say: Say) -> None:
    """Run a stand-in until SIGTERM or SIGINT. OSError when it cannot listen there."""
    stop = stop_signal()
    stand_in = StandIn(settings)
    say({"openai": await stand_in.start()})
    await stop.wait()
    await stand_in.stop()
