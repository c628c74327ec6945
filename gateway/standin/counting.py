"""What a call counts: the tokens of a prompt, and a usage as OpenAI reports it.

The prompt formula is OpenAI's published one for chat messages. It stands here a second time on
purpose: the gateway has its own, and two statements that agree prove more than one. Pictures,
audio and tool definitions are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CountTokens = Callable[[str], int]

# OpenAI's figures: each message is wrapped in <|start|>role<|message|>…<|end|>, a name takes one
# more, and every answer is primed with <|start|>assistant<|message|>.
TOKENS_PER_MESSAGE = 3
TOKENS_PER_NAME = 1
TOKENS_PER_PRIMING = 3


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call; cached are part of the prompt, reasoning part of the completion."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        """The object that OpenAI puts under `usage`."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning_tokens,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


def texts_of(content: object) -> list[str]:
    """The texts of a message's content: the string that it is, or the text parts of the list."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return []
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return [text for text in texts if isinstance(text, str)]


def prompt_tokens(messages: Iterable[Mapping[str, Any]], count_tokens: CountTokens) -> int:
    """Tokens of a chat prompt by OpenAI's formula."""
    total = TOKENS_PER_PRIMING
    for message in messages:
        total += TOKENS_PER_MESSAGE + count_tokens(message["role"])
        total += sum(map(count_tokens, texts_of(message.get("content"))))
        if isinstance(name := message.get("name"), str):
            total += TOKENS_PER_NAME + count_tokens(name)
    return total
