"""How the prompt of a call is counted before it is held: by its bytes, or exactly.

A tokenizer on bytes never makes more tokens of a text than it has bytes. So where much is left, the
length of the body is held and nothing is counted; near a limit every token is. A call that fits is
never refused because of the bound: whoever is refused under it asks again with the exact figure.
"""

from __future__ import annotations

import asyncio

import msgspec

from gateway.core.inference.request import Count, InferenceRequest
from gateway.core.models import Model
from gateway.core.quota.reserve import Limits
from gateway.flow.room import Rooms
from gateway.ports.tokenizer import Tokenizer, is_large


class PromptCount(msgspec.Struct, frozen=True, gc=False):
    """Tokens of a prompt. `is_bound`: there are at most so many, they were not counted."""

    tokens: int
    is_bound: bool


class PromptCounter:
    """Counts prompts for holds, and afterwards for answers that tell no usage."""

    def __init__(self, tokenizer: Tokenizer, rooms: Rooms) -> None:
        self._tokenizer = tokenizer
        self._rooms = rooms

    async def for_hold(
        self, request: InferenceRequest, body_bytes: int, model: Model, payer: str, limits: Limits
    ) -> PromptCount:
        """What to hold for the prompt. Refused when the model cannot take what is in it.

        The bound is not for payers whose tokens a minute are limited: what a hold takes of a minute
        is not given back when it ends.
        """
        wanted, _ = request.output_bounds(model)
        if (
            limits.tokens_a_minute is None
            and self._rooms.take(payer, body_bytes + wanted * request.choices)
            and request.text_only  # last, because it looks through the whole request
        ):
            return PromptCount(body_bytes, is_bound=True)
        return PromptCount(await self.exactly(request, body_bytes, model), is_bound=False)

    async def exactly(self, request: InferenceRequest, body_bytes: int, model: Model) -> int:
        """Tokens of the prompt by the model's vocabulary; of a large body, in a thread."""
        if is_large(body_bytes):
            return await asyncio.to_thread(request.count_prompt, model, self.counter(model))
        return request.count_prompt(model, self.counter(model))

    def counter(self, model: Model) -> Count:
        """Counts a text in the model's vocabulary, on the caller's thread."""
        return lambda text: self._tokenizer.count(text, model.tokenizer)
