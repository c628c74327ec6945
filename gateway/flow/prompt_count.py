"""Counting a prompt exactly, in the vocabulary of its model.

Small ones are counted at once, large ones beside the event loop. Whether a prompt has to be counted
at all is not decided here: where much is left, its bytes are bound enough.
"""

from __future__ import annotations

import asyncio

from gateway.core.inference.request import Count, InferenceRequest
from gateway.core.models import Model
from gateway.ports.tokenizer import Tokenizer, is_large


class PromptCounter:
    """Counts prompts before a hold, and afterwards for answers that tell no usage."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    async def exactly(self, request: InferenceRequest, body_bytes: int, model: Model) -> int:
        """Tokens of the prompt by the model's vocabulary; of a large body, in a thread."""
        if is_large(body_bytes):
            return await asyncio.to_thread(request.count_prompt, model, self.counter(model))
        return request.count_prompt(model, self.counter(model))

    def counter(self, model: Model) -> Count:
        """Counts a text in the model's vocabulary, on the caller's thread."""
        return lambda text: self._tokenizer.count(text, model.tokenizer)
