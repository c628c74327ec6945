"""What the gateway knows of a chat completion's request: what it may ask, and what is sent on.

A field that would let a call reach stored objects, run hosted tools or spend what is not metered
is refused by name; a field unknown here goes through. The cap sent upstream is always the cap held;
with a prediction none may be sent, so what the model can write at most is held.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.core.inference.caps import CAPS, asked_cap, cap_bounds
from gateway.core.inference.chat_answer import Chunk, Completion, read_chunk, read_completion
from gateway.core.inference.chat_words import broken_chunk, closing_chunks
from gateway.core.inference.completing import CHOICES_MAX, STORED, asked_usage, sent_body
from gateway.core.inference.fields import (
    flag,
    invalid,
    model_of,
    refuse_fields,
    service_tier_of,
    unsupported,
    whole,
)
from gateway.core.inference.picture_parts import Picture, count_pictures, judge_picture
from gateway.core.inference.request import Closing, Count, Sending, StreamEvent
from gateway.core.json_body import encode, read_object
from gateway.core.models import Model
from gateway.core.prompt.chat import (
    count_chat_prompt,
    count_content,
    has_no_more_tokens_than_bytes,
)
from gateway.core.refusal import Case
from gateway.core.sse import SseEvent

# A stored prompt, and a search that is billed by the call.
_UNSUPPORTED = STORED | {"prompt", "web_search_options"}
# What a body is looked through for only where it has one of these; most have none.
_OPTIONS = frozenset(
    {"audio", "modalities", "n", "prediction", "service_tier", "stream_options", "tools"}
)
_MODALITIES = ("text", "audio")
_METERED_PARTS = ("text", "refusal", "image_url", "input_audio")
_METERED_TOOLS = ("function", "custom")


class ChatRequest(msgspec.Struct, frozen=True, gc=False):
    """A chat request as judged. `output_tokens_asked` is the caller's cap, None when it has none;
    `asked_usage`: the client wants the stream's usage chunk; `predicted`: the content that it
    foresees; `sound`: the first field that needs a model which hears or speaks."""

    body: Mapping[str, Any]
    model: str
    stream: bool
    asked_usage: bool = False
    choices: int = 1
    output_tokens_asked: int | None = None
    predicted: Any = None
    sound: str | None = None
    service_tier: str | None = None
    pictures: tuple[Picture, ...] = ()

    @property
    def text_only(self) -> bool:
        if self.pictures or self.sound is not None or self.predicted is not None:
            return False
        return has_no_more_tokens_than_bytes(self.body)

    def count_prompt(self, model: Model, count: Count) -> int:
        """With the prediction: what of it is not used is billed beside the answer."""
        if self.sound and not model.takes_audio:
            raise unsupported(
                self.sound, f"needs a model with audio; '{self.model[:100]}' has none"
            )
        shown_tokens = count_pictures(self.pictures, model)
        predicted_tokens = count_content(self.predicted, count) * self.choices
        return shown_tokens + count_chat_prompt(self.body, count) + predicted_tokens

    def output_bounds(self, model: Model) -> tuple[int, int]:
        bounds = cap_bounds(self.model, self.output_tokens_asked, model)
        if self.predicted is not None:
            return model.output_tokens_max, model.output_tokens_max
        return bounds

    def upstream_body(self, sending: Sending) -> bytes:
        body = sent_body(self.body, self.stream, sending)
        if self.predicted is None:
            body[sending.dialect.cap_name] = sending.output_tokens
        if sending.dialect.knows_store:
            body["store"] = False
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
    model = model_of(body)
    pictures, heard = _judge_messages(body.get("messages"))
    if _OPTIONS.isdisjoint(body):
        return ChatRequest(
            body=body,
            model=model,
            stream=flag(body, "stream"),
            output_tokens_asked=asked_cap(body),
            sound=heard,
            pictures=pictures,
        )
    _judge_tools(body.get("tools"))
    return ChatRequest(
        body=body,
        model=model,
        stream=flag(body, "stream"),
        asked_usage=asked_usage(body),
        choices=whole(body, "n", CHOICES_MAX) or 1,
        output_tokens_asked=asked_cap(body),
        predicted=_predicted(body),
        sound=_spoken(body) or heard,
        service_tier=service_tier_of(body),
        pictures=pictures,
    )


def _predicted(body: Mapping[str, Any]) -> Any:
    """The content of the prediction, None without one. OpenAI takes no cap beside one ("Predicted
    Outputs", limitations), and leaving a caller's cap out would spend more than was asked for."""
    prediction = body.get("prediction")
    if prediction is None:
        return None
    content = prediction.get("content") if isinstance(prediction, dict) else None
    if isinstance(content, list):
        for number, part in enumerate(content):
            _judge_part(f"prediction.content[{number}]", part, ("text",))
    elif not isinstance(content, str):
        raise invalid("prediction", "an object whose content is text or a list of text parts")
    for name in CAPS:
        if body.get(name) is not None:
            raise unsupported(name, "is not available together with 'prediction'")
    return content


def _spoken(body: Mapping[str, Any]) -> str | None:
    """The field that asks for a spoken answer. A voice with an id is an object of the account."""
    modalities, audio = body.get("modalities"), body.get("audio")
    if modalities is not None and not (
        isinstance(modalities, list) and modalities and all(m in _MODALITIES for m in modalities)
    ):
        raise unsupported("modalities", "other than text and audio are not available here")
    if audio is not None and not isinstance(audio, dict):
        raise invalid("audio", "an object with a voice and a format")
    if audio and not isinstance(audio.get("voice", ""), str):
        raise unsupported(
            "audio.voice", "must be the name of a voice; stored ones are not available"
        )
    if modalities and "audio" in modalities:
        return "modalities"
    return "audio" if audio is not None else None


def _judge_messages(messages: Any) -> tuple[tuple[Picture, ...], str | None]:
    """The pictures in all messages, and where the first recording stands; Refused when a message is
    malformed. Where something stands is put into words only once somebody needs to know."""
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", "a list of at least one message")
    pictures: list[Picture] = []
    heard: str | None = None
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid(f"messages[{place}]", "an object with a role")
        if message.get("audio"):
            raise unsupported(f"messages[{place}].audio", "is not available through this gateway")
        content = message.get("content")
        if isinstance(content, str):
            continue
        if isinstance(content, list):
            for number, part in enumerate(content):
                if _is_text(part):
                    continue
                where = f"messages[{place}].content[{number}]"
                picture = _judge_part(where, part)
                if picture is not None:
                    pictures.append(picture)
                elif part["type"] == "input_audio":
                    heard = heard or where
        elif content is not None:
            raise invalid(f"messages[{place}].content", "text or a list of content parts")
    return tuple(pictures), heard


def _is_text(part: Any) -> bool:
    """True for the usual part; anything else is looked at closely."""
    return type(part) is dict and part.get("type") == "text" and isinstance(part.get("text"), str)


def _judge_part(where: str, part: Any, kinds: tuple[str, ...] = _METERED_PARTS) -> Picture | None:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise invalid(where, "an object with a type")
    kind = part["type"]
    if kind not in kinds:
        raise unsupported(where, f"of type {kind[:40]!r} is not metered by this gateway yet")
    held = part.get(kind)
    if kind == "image_url":
        if not isinstance(held, dict):
            raise invalid(f"{where}.image_url", "an object with a url")
        if held.get("file_id") is not None:
            raise unsupported(f"{where}.image_url.file_id", "is not available through this gateway")
        return judge_picture(where, held.get("url"), held.get("detail"))
    if kind == "input_audio":
        if not isinstance(held, dict) or not isinstance(held.get("data"), str):
            raise invalid(f"{where}.{kind}", "an object with data, in base64, and its format")
    elif not isinstance(held, str):
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
