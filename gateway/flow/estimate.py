"""Counting an answer that did not count itself: no usage came, or it cannot be believed.

The prompt counts as it was counted for the hold, the text as the model's own vocabulary splits it.
What comes out is never called measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.core.answer import Usage
from gateway.core.hold import Hold
from gateway.ports.tokenizer import Tokenizer, is_large


class Estimator:
    """Counts texts in a model's vocabulary; large ones in a thread."""

    def __init__(self, tokenizer: Tokenizer, encodings: dict[str, str]) -> None:
        self._tokenizer = tokenizer
        self._encodings = encodings

    def count_now(self, model: str, texts: Sequence[str]) -> int:
        """Tokens of the texts put together, on the caller's thread."""
        return self._tokenizer.count("".join(texts), self._encodings[model])

    async def usage(self, hold: Hold, texts: Sequence[str]) -> Usage:
        """Usage of an answer: the prompt as it was counted for the hold, plus these texts."""
        if is_large(sum(map(len, texts))):
            output = await asyncio.to_thread(self.count_now, hold.model, texts)
        else:
            output = self.count_now(hold.model, texts)
        return Usage(
            prompt_tokens=hold.prompt_tokens,
            cached_tokens=0,
            output_tokens=output,
            reasoning_tokens=0,
        )
