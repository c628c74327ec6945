"""How many tokens a text is, in the vocabulary of a model.

Counting is pure and may be called from any thread. It takes processor time and nothing else:
25 to 85 µs per 1,000 characters, so a caller on the event loop asks `is_large` first and hands
large texts to a thread. Loading a vocabulary takes tenths of a second: do it before traffic.
"""

from __future__ import annotations

from typing import Final, Protocol

ENCODINGS: Final = frozenset({"o200k_base", "cl100k_base"})
"""The vocabularies that ship: gpt-4o and later models read o200k_base, gpt-4 and gpt-3.5 cl100k."""

LARGE_TEXT_CHARS: Final = 65_536
"""64 KB is about 5 ms of ordinary text and 15 ms of hostile text, which every other call on the
loop would wait for; handing it to a thread costs 0.1 ms. Most prompts are far below."""


class UnknownEncoding(ValueError):
    """No vocabulary of that name ships; the text lists those that do."""


class Tokenizer(Protocol):
    """Counts tokens. Both methods raise UnknownEncoding for a name outside of ENCODINGS."""

    def load(self, encoding: str) -> None:
        """Read the vocabulary now, so that no request waits for it. Repeating is free."""
        ...

    def count(self, text: str, encoding: str) -> int:
        """Tokens of `text`. Names of special tokens in it are ordinary text. Never raises on text:
        a lone surrogate counts as U+FFFD."""
        ...


def is_large(text_chars: int) -> bool:
    """True when a text of that length is to be counted in a thread, not on the event loop."""
    return text_chars > LARGE_TEXT_CHARS
