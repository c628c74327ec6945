"""What a prompt counts.

The formula for texts is OpenAI's published one for chat messages. It stands here a second time on
purpose: the gateway has its own, and two statements that agree prove more than one. Pictures and
sound count by plain rules of the stand-in's own; tool definitions do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

CountTokens = Callable[[str], int]
Message = Mapping[str, Any]

# OpenAI's figures: each message is wrapped in <|start|>role<|message|>…<|end|>, a name takes one
# more, and every answer is primed with <|start|>assistant<|message|>.
TOKENS_PER_MESSAGE = 3
TOKENS_PER_NAME = 1
TOKENS_PER_PRIMING = 3

# What gpt-4o takes for a picture in low detail, and for one of 1024 by 1024 pixels.
PICTURE_TOKENS_LOW = 85
PICTURE_TOKENS = 765
# A tenth of a second of sound at 16,000 samples of two bytes: about what OpenAI calls a token.
SOUND_BYTES_PER_TOKEN = 3_200

_PICTURES = ("image_url", "input_image")
_SOUND = "input_audio"


def texts_of(content: object) -> list[str]:
    """The texts of a message's content: the string that it is, or the text parts of the list."""
    if isinstance(content, str):
        return [content]
    texts = (part.get("text") for part in parts_of(content))
    return [text for text in texts if isinstance(text, str)]


def parts_of(content: object) -> list[dict[str, Any]]:
    """The parts of a message's content when it is a list of them."""
    if not isinstance(content, list):
        return []
    return [part for part in content if isinstance(part, dict)]


def message_tokens(message: Message, count_tokens: CountTokens) -> int:
    """Tokens of one message with its wrapping, pictures and sound included."""
    content = message.get("content")
    total = TOKENS_PER_MESSAGE + count_tokens(message["role"])
    total += sum(map(count_tokens, texts_of(content)))
    if isinstance(name := message.get("name"), str):
        total += TOKENS_PER_NAME + count_tokens(name)
    return total + picture_tokens([message]) + sound_tokens([message])


def prompt_tokens(messages: Iterable[Message], count_tokens: CountTokens) -> int:
    """Tokens of a chat prompt by OpenAI's formula."""
    return TOKENS_PER_PRIMING + sum(message_tokens(each, count_tokens) for each in messages)


def picture_tokens(messages: Iterable[Message]) -> int:
    """Tokens of the pictures: 85 in low detail, else 765, whatever their size."""
    total = 0
    for part in (part for message in messages for part in parts_of(message.get("content"))):
        if part.get("type") in _PICTURES:
            shown = part.get("image_url")
            described = shown if isinstance(shown, dict) else part
            low = described.get("detail") == "low"
            total += PICTURE_TOKENS_LOW if low else PICTURE_TOKENS
    return total


def sound_tokens(messages: Iterable[Message]) -> int:
    """Tokens of the sound: one for each 3,200 bytes begun, whatever the format."""
    total = 0
    for part in (part for message in messages for part in parts_of(message.get("content"))):
        sound = part.get(_SOUND)
        data = sound.get("data") if isinstance(sound, dict) else None
        if isinstance(data, str):
            size_bytes = len(data) * 3 // 4
            total += -(-size_bytes // SOUND_BYTES_PER_TOKEN)
    return total
