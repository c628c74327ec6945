"""What the gateway knows of a chat completion's request: what it may ask, and what is sent on.

A field that would let a call reach stored objects, run hosted tools or spend what is not metered
is refused by name; a field unknown here goes through. The cap sent upstream is always the cap held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.inference.chat_answer import Chunk, Completion, read_chunk, read_completion
from gateway.core.inference.chat_words import broken_chunk, closing_chunks
from gateway.core.inference.fields import flag, invalid, model_of, refuse_fields, unsupported, whole
from gateway.core.inference.picture_parts import Picture, count_pictures, judge_picture
from gateway.core.inference.request import Closing, Count, Sending, StreamEvent
from gateway.core.json_body import encode, read_object
from gateway.core.models import Model
from gateway.core.prompt.chat import count_chat_prompt, has_no_more_tokens_than_bytes
from gateway.core.refusal import Case
from gateway.core.sse import SseEvent

CHOICES_MAX = 128  # OpenAI's own bound on n
_CAPS = ("max_completion_tokens", "max_tokens")
# Stored objects of the one upstream account, work that ends after its answer, and spending that is
# not metered yet.
_UNSUPPORTED = (
    "audio",
    "background",
    "container",
    "conversation",
    "prediction",
    "previous_response_id",
    "prompt",
    "web_search_options",
)
_METERED_PARTS = ("text", "refusal")
_METERED_TOOLS = ("function", "custom")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat request as judged. `output_tokens_asked` is the caller's cap, None when it has none;
    `asked_usage`: the client wants the stream's usage chunk."""

    body: Mapping[str, Any]
    model: str
    stream: bool
    asked_usage: bool
    choices: int
    output_tokens_asked: int | None
    pictures: tuple[Picture, ...] = ()

    @property
    def text_only(self) -> bool:
        return not self.pictures and has_no_more_tokens_than_bytes(self.body)

    def count_prompt(self, model: Model, count: Count) -> int:
        return count_pictures(self.pictures, model) + count_chat_prompt(self.body, count)

    def output_bounds(self, model: Model) -> tuple[int, int]:
        wanted = min(
            self.output_tokens_asked or model.output_tokens_default, model.output_tokens_max
        )
        return wanted, min(wanted, model.output_tokens_min)

    def upstream_body(self, sending: Sending) -> bytes:
        """`metadata` is left out because upstream takes it only for completions that it stores."""
        body = {k: v for k, v in self.body.items() if k not in (*_CAPS, "metadata", "store")}
        body["model"] = sending.model
        body[sending.dialect.cap_name] = sending.output_tokens
        if sending.dialect.knows_store:
            body["store"] = False
        if not sending.dialect.stream_usage:
            body.pop("stream_options", None)
        elif self.stream:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return encode(body)

    def read_whole(self, raw: bytes) -> Completion:
        return read_completion(raw)

    def read_event(self, event: SseEvent) -> Chunk:
        return read_chunk(event.data or b"", event.name)

    def hides(self, event: StreamEvent) -> bool:
        return not self.asked_usage and isinstance(event, Chunk) and event.is_usage

    def closing_events(self, closing: Closing) -> bytes:
        return closing_chunks(closing)

    def broken_event(self, case: Case, message: str, events: int) -> bytes:
        return broken_chunk(case, message)


def judge_chat(raw: bytes) -> ChatRequest:
    """Read a chat request; Refused when it is malformed or asks for what is not available."""
    body = read_object(raw)
    refuse_fields(body, _UNSUPPORTED)
    if body.get("modalities") not in (None, ["text"]):
        raise unsupported("modalities", "other than text are not available through this gateway")
    model = model_of(body)
    pictures = _judge_messages(body.get("messages"))
    _judge_tools(body.get("tools"))
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise invalid("stream_options", "an object")
    return ChatRequest(
        body=body,
        model=model,
        stream=flag(body, "stream"),
        asked_usage=options.get("include_usage") is True,
        choices=whole(body, "n", CHOICES_MAX) or 1,
        output_tokens_asked=min(
            (cap for cap in (whole(body, name) for name in _CAPS) if cap), default=None
        ),
        pictures=tuple(pictures),
    )


def _judge_messages(messages: Any) -> list[Picture]:
    """Refused when a message is malformed; the pictures in all of them."""
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", "a list of at least one message")
    pictures: list[Picture] = []
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid(where, "an object with a role")
        if message.get("audio"):
            raise unsupported(f"{where}.audio", "is not available through this gateway")
        content = message.get("content")
        if isinstance(content, list):
            for number, part in enumerate(content):
                picture = _judge_part(f"{where}.content[{number}]", part)
                if picture is not None:
                    pictures.append(picture)
        elif content is not None and not isinstance(content, str):
            raise invalid(f"{where}.content", "text or a list of content parts")
    return pictures


def _judge_part(where: str, part: Any) -> Picture | None:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise invalid(where, "an object with a type")
    kind = part["type"]
    held = part.get(kind)
    if kind == "image_url":
        if not isinstance(held, dict):
            raise invalid(f"{where}.image_url", "an object with a url")
        if held.get("file_id") is not None:
            raise unsupported(f"{where}.image_url.file_id", "is not available through this gateway")
        return judge_picture(where, held.get("url"), held.get("detail"))
    if kind not in _METERED_PARTS:
        raise unsupported(where, f"of type {kind[:40]!r} is not metered by this gateway yet")
    if not isinstance(held, str):
        raise invalid(f"{where}.{kind}", "text")
    return None


def _judge_tools(tools: Any) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        raise invalid("tools", "a list")
    for place, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in _METERED_TOOLS:
            raise unsupported(
                f"tools[{place}]", "is a tool that runs upstream; only functions are available"
            )
