"""Prompts of an exact number of tokens that ask the stand-in for an answer of an exact length.

The length is counted as OpenAI counts a chat of one message, the order to the stand-in included.
Counting every prompt would cost more than sending it, so the bulk is one word that is one token,
repeated; that this holds for the vocabulary at hand is checked once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.core.prompt.chat import count_chat_prompt

_WORD: Final = " the"  # four bytes, and one token in o200k_base and in cl100k_base
# Characters of the line with the order, its end included. A multiple of the word's length, so that
# a tokenizer that takes long texts in pieces (of a power of two) never cuts a word.
_OPENING_CHARS: Final = 24
_CHECKED_WORDS: Final = 5_000  # 20,000 characters: longer than a piece


class PromptWriter:
    """Writes prompts for one vocabulary, which `count` (text -> tokens) counts in."""

    def __init__(self, count: Callable[[str], int]) -> None:
        """ValueError when the word is not one token in this vocabulary."""
        self._count = count
        self._overhead_tokens = count_chat_prompt({"messages": [message("")]}, count)
        opening = _opening("@stand-in write=1")
        for words in (1, _CHECKED_WORDS):
            if count(opening + _WORD * words) != count(opening) + words:
                raise ValueError(f"{_WORD!r} is not one token in this vocabulary")

    def write(self, context_tokens: int, generated_tokens: int) -> str:
        """The text of a message whose chat has `context_tokens`, or as few as the order takes."""
        order = f"@stand-in write={generated_tokens}"
        wanted = context_tokens - self._overhead_tokens
        if wanted <= self._count(order):
            return order
        opening = _opening(order)
        return opening + _WORD * (wanted - self._count(opening))


def message(text: str) -> dict[str, str]:
    """The one message of a prompt."""
    return {"role": "user", "content": text}


def _opening(order: str) -> str:
    """The order as a line of its own: one token more than without the line's end."""
    return order.ljust(_OPENING_CHARS - 1) + "\n"
