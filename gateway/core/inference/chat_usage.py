"""The usage object of a chat, or of a completion: OpenAI's own shape, and any other.

Nearly every answer has OpenAI's shape, so that is decoded into place (`UsualUsage`), and nothing
in it need be looked up. What does not fit in is read from plain values. Both are judged alike.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.core.usage import Apart, Tokens, Usage, detail, usage_of


class _PromptParts(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: Tokens = 0
    cache_write_tokens: Tokens = 0
    audio_tokens: Tokens = 0


class _OutputParts(msgspec.Struct, frozen=True, gc=False):
    reasoning_tokens: Tokens = 0
    audio_tokens: Tokens = 0


class UsualUsage(msgspec.Struct, frozen=True, gc=False):
    """A usage of OpenAI's own shape, whose counts are believable each for itself."""

    prompt_tokens: Tokens
    completion_tokens: Tokens
    prompt_tokens_details: _PromptParts | None = None
    completion_tokens_details: _OutputParts | None = None

    def judged(self) -> Usage | None:
        """The usage, or None when no prompt was read. Parts are clamped to their wholes."""
        whole, output = self.prompt_tokens, self.completion_tokens
        of_prompt = self.prompt_tokens_details or _NO_PROMPT_PARTS
        of_output = self.completion_tokens_details or _NO_OUTPUT_PARTS
        cached, written = of_prompt.cached_tokens, of_prompt.cache_write_tokens
        heard, spoken = of_prompt.audio_tokens, of_output.audio_tokens
        reasoning = of_output.reasoning_tokens
        if whole and cached + written + heard <= whole and reasoning + spoken <= output:
            return Usage(whole, cached, output, reasoning, written, heard, spoken)
        return usage_of(whole, cached, output, reasoning, Apart(written, heard, spoken))


_NO_PROMPT_PARTS: Final = _PromptParts()
_NO_OUTPUT_PARTS: Final = _OutputParts()


def read_usage(wire: Any) -> Usage | None:
    """Chat's usage object, or None when it is missing, zero, negative, absurd or not integers."""
    if type(wire) is UsualUsage:
        return wire.judged()
    if not isinstance(wire, dict):
        return None
    prompt, output = wire.get("prompt_tokens_details"), wire.get("completion_tokens_details")
    return usage_of(
        wire.get("prompt_tokens"),
        detail(prompt, "cached_tokens"),
        wire.get("completion_tokens"),
        detail(output, "reasoning_tokens"),
        Apart(
            cache_write=detail(prompt, "cache_write_tokens"),
            audio_input=detail(prompt, "audio_tokens"),
            audio_output=detail(output, "audio_tokens"),
        ),
    )
