"""Counting an answer that did not count itself: no usage came, or it cannot be believed.

The prompt counts as it was counted for the hold, the text as the model's own vocabulary splits it.
What comes out is never called measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.core.hold import Hold
from gateway.core.usage import Usage
from gateway.ports.tokenizer import Tokenizer, is_large


class Estimator:
    """Counts texts in a model's vocabulary; large ones in a thread."""

    def __init__(self, tokenizer: Tokenizer, encodings: dict[str, str]) -> None:
        self._tokenizer = tokenizer
        self._encodings = encodings

    def counter(self, model: str) -> Callable[[str], int]:
        """Counts a text in the model's vocabulary, on the caller's thread."""
        encoding = self._encodings[model]
        return lambda text: self._tokenizer.count(text, encoding)

    async def usage(self, hold: Hold, texts: Sequence[str]) -> Usage:
        """Usage of an answer: the prompt as it was counted for the hold, plus these texts."""
        count, text = self.counter(hold.model), "".join(texts)
        output = await asyncio.to_thread(count, text) if is_large(len(text)) else count(text)
        return Usage(
            prompt_tokens=hold.prompt_tokens,
            cached_tokens=0,
            output_tokens=output,
            reasoning_tokens=0,
        )
