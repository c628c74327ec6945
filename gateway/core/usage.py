"""What an upstream says that a call used, judged: what contradicts itself is no figure.

Every API wraps the same counts in an object of its own; the readers of those objects are beside
their APIs, and what they share is here. How tokens become charges is not known here.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

TOKENS_MAX: Final = 2**40
"""No call uses a trillion tokens; a larger figure is a fault of whoever wrote it."""

Tokens = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]
"""A believable count, for decoders."""

LABEL_CHARS_MAX: Final = 128
"""Ids and service tiers go into headers, logs and the ledger; OpenAI's ids have 38 characters."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens as the upstream reports them. Those from the cache, those written to it and audio
    input are part of the prompt; reasoning and audio output are part of the output."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cache_write_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0


class Apart(msgspec.Struct, frozen=True, gc=False):
    """Wire values of counts that only some models have, each with a price of its own."""

    cache_write: Any = None
    audio_input: Any = None
    audio_output: Any = None


_NOTHING_APART: Final = Apart()


def believe(usage: Usage | None, wrote_text: bool) -> Usage | None:
    """The usage, or None when it claims no output although text was seen."""
    if usage is not None and wrote_text and not usage.output_tokens:
        return None
    return usage


def usage_of(
    prompt: Any, cached: Any, output: Any, reasoning: Any, apart: Apart = _NOTHING_APART
) -> Usage | None:
    """The usage of these wire values, or None when prompt or output is no believable count.

    The parts are clamped to their wholes. Totals are not read: where one differs from the sum,
    nothing says which of them is wrong.
    """
    prompt_tokens, output_tokens = _tokens(prompt), _tokens(output)
    if not prompt_tokens or output_tokens is None:
        return None
    return Usage(
        prompt_tokens,
        _part(cached, prompt_tokens),
        output_tokens,
        _part(reasoning, output_tokens),
        _part(apart.cache_write, prompt_tokens),
        _part(apart.audio_input, prompt_tokens),
        _part(apart.audio_output, output_tokens),
    )


def detail(details: Any, name: str) -> Any:
    """A count of a details object, which may be missing or of any shape."""
    return details.get(name) if isinstance(details, dict) else None


def label(text: str | None) -> str | None:
    """An id or a name of upstream, None when it is missing or unfit for a header."""
    if text and len(text) <= LABEL_CHARS_MAX and text.isascii() and text.isprintable():
        return text
    return None


def _tokens(value: Any) -> int | None:
    if type(value) is int and 0 <= value <= TOKENS_MAX:  # bool is an int, and no count
        return value
    return None


def _part(value: Any, whole_tokens: int) -> int:
    """A count that is part of another; 0 when it is none."""
    tokens = _tokens(value)
    if not tokens:
        return 0
    return tokens if tokens < whole_tokens else whole_tokens
