"""Counting an answer that did not count itself: no usage came, or it cannot be believed.

The prompt counts exactly, also where only a bound was held for it; the text as the model's own
vocabulary splits it. What comes out is never called measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.core.hold import Hold
from gateway.core.inference.request import Count, InferenceRequest
from gateway.core.models import ModelTable
from gateway.core.usage import Usage
from gateway.flow.prompt_count import PromptCounter
from gateway.ports.tokenizer import is_large


class Estimator:
    """Counts prompts and texts in a model's vocabulary; large ones in a thread."""

    def __init__(self, prompts: PromptCounter, models: ModelTable) -> None:
        self._prompts = prompts
        self._models = models

    def counter(self, model: str) -> Count:
        """Counts a text in the model's vocabulary, on the caller's thread."""
        return self._prompts.counter(self._models[model])

    async def usage(self, hold: Hold, request: InferenceRequest, texts: Sequence[str]) -> Usage:
        """Usage of an answer: its prompt, plus these texts."""
        count, text = self.counter(hold.model), "".join(texts)
        output = await asyncio.to_thread(count, text) if is_large(len(text)) else count(text)
        return await self.usage_of(hold, request, output)

    async def usage_of(self, hold: Hold, request: InferenceRequest, output_tokens: int) -> Usage:
        """Usage of an answer whose text was counted on its way."""
        prompt_tokens = hold.prompt_tokens
        if hold.prompt_is_bound:  # then it is the body's length
            model = self._models[hold.model]
            prompt_tokens = await self._prompts.exactly(request, hold.prompt_tokens, model)
        return Usage(prompt_tokens, 0, output_tokens, 0)
