"""Text of an exact number of tokens.

Every piece of the sentence is one token of o200k_base, and stays one token wherever the text is
cut, because each opens a new word or is a punctuation mark. So n pieces are n tokens, whether the
reader counts the whole or chunk by chunk.
"""

from __future__ import annotations

PIECES = (
    *(" Hello", "!", " Your", " words", " arrived", ","),
    *(" and", " here", " is", " an", " answer", "."),
)
SENTENCE_TOKENS = len(PIECES)


def text(start: int, tokens: int) -> str:
    """Exactly `tokens` tokens of the endless text, from its token `start` on.

    Holds no character that JSON must escape; only the very first word lacks its space.
    """
    offset = start % SENTENCE_TOKENS
    sentences = PIECES * ((offset + tokens) // SENTENCE_TOKENS + 1)
    written = "".join(sentences[offset : offset + tokens])
    return written[1:] if start == 0 else written
