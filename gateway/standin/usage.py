"""The usage of a call: its true figures, what is told of them, and in which API's words.

A directive may have other figures told, none at all, or text instead of numbers; whoever reports
asks here, so that all APIs lie alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Manner = Literal["honest", "none", "text"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call; each of the later figures is a part of the prompt or the completion."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    image_tokens: int = 0
    audio_in_tokens: int = 0
    audio_out_tokens: int = 0
    accepted_tokens: int = 0
    rejected_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def of_chat(self) -> dict[str, Any]:
        """As a chat tells it; figures that few models tell are left out when they are 0."""
        prompt = {"cached_tokens": self.cached_tokens, "audio_tokens": self.audio_in_tokens}
        if self.cache_write_tokens:
            prompt["cache_write_tokens"] = self.cache_write_tokens
        if self.image_tokens:
            prompt["image_tokens"] = self.image_tokens
        return {
            **self.of_completions(),
            "prompt_tokens_details": prompt,
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning_tokens,
                "audio_tokens": self.audio_out_tokens,
                "accepted_prediction_tokens": self.accepted_tokens,
                "rejected_prediction_tokens": self.rejected_tokens,
            },
        }

    def of_responses(self) -> dict[str, Any]:
        """As a response tells it."""
        return {
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {
                "cache_write_tokens": self.cache_write_tokens,
                "cached_tokens": self.cached_tokens,
            },
            "output_tokens": self.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.total_tokens,
        }

    def of_completions(self) -> dict[str, Any]:
        """As a completion tells it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }

    def of_embeddings(self) -> dict[str, Any]:
        """As embeddings tell it, which have no completion."""
        return {"prompt_tokens": self.prompt_tokens, "total_tokens": self.total_tokens}


@dataclass(frozen=True, slots=True)
class Report:
    """What is told of the `true` usage: other figures, or these in some manner."""

    true: Usage
    order: Usage | Manner = "honest"

    @property
    def told(self) -> Usage:
        """The figures to tell."""
        return self.order if isinstance(self.order, Usage) else self.true

    @property
    def left_out(self) -> bool:
        """No usage is told."""
        return self.order == "none"

    @property
    def readable(self) -> bool:
        """False when nobody can count with what is told."""
        return self.order not in ("none", "text")

    def shown(self, figures: dict[str, Any]) -> dict[str, Any]:
        """The told figures, in one API's words, as they go onto the wire."""
        if self.order == "text":
            return {n: str(v) if isinstance(v, int) else v for n, v in figures.items()}
        return figures
