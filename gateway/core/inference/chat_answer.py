"""What an answer of a chat, or of a completion, says: usage, text, ids, ends.

Reads whole answers (`read_completion`) and the chunks of a stream (`read_chunk`). Nothing here
raises, whatever the bytes are: what cannot be read is an answer without usage whose text is all of
it, so that it is relayed, estimated and never booked at zero. A usage that contradicts itself or
the text is None. How tokens become charges, and how text is counted, is not known here.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from gateway.core.inference.chat_usage import UsualUsage, read_usage
from gateway.core.usage import Usage, believe, label

_TEXT_KEYS: Final = frozenset(
    {"content", "refusal", "reasoning_content", "reasoning", "text", "name", "arguments", "input"}
    | {"transcript"}
)


class _Function(msgspec.Struct, frozen=True, gc=False):
    name: str | None = None
    arguments: str | None = None
    input: str | None = None


class _ToolCall(msgspec.Struct, frozen=True, gc=False):
    function: _Function | None = None
    custom: _Function | None = None


class _Audio(msgspec.Struct, frozen=True, gc=False):
    transcript: str | None = None


class _Message(msgspec.Struct, frozen=True, gc=False):
    """A whole message or the delta of one; `reasoning*` is what other upstreams send."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    audio: _Audio | None = None


class _Choice(msgspec.Struct, frozen=True, gc=False):
    delta: _Message | None = None
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct, frozen=True, gc=False):
    """What both kinds of answers share. The fields are the upstream's, unjudged: read the
    properties. A Struct because decoding straight into it takes a third of any other way; gc=False
    because decoded JSON holds no cycles."""

    wire_id: str | None = msgspec.field(default=None, name="id")
    wire_tier: str | None = msgspec.field(default=None, name="service_tier")
    wire_usage: Any = msgspec.field(default=None, name="usage")
    choices: list[_Choice] | None = None
    error: Any = None

    @property
    def id(self) -> str | None:
        """The upstream's id of the answer, None when it is missing or unfit for a header."""
        return label(self.wire_id)

    @property
    def service_tier(self) -> str | None:
        """The tier that served the call, None when it is missing or unfit for a header."""
        return label(self.wire_tier)

    @property
    def usage(self) -> Usage | None:
        """The usage as far as this answer can tell. A stream's text lies in other chunks: there,
        ask `believe` once more at the end."""
        usage = read_usage(self.wire_usage)
        if usage is None or usage.output_tokens:
            return usage
        return believe(usage, wrote_text=bool(self.texts()))

    @property
    def is_error(self) -> bool:
        """True for an error object, also one inside a stream with status 200."""
        return bool(self.error)

    def texts(self) -> list[str]:
        """The pieces of text the model wrote, in order, for counting: content, refusals, calls."""
        found: list[str] = []
        for choice in self.choices or ():
            message = choice.delta or choice.message
            if choice.text:
                found.append(choice.text)
            if message is not None:
                _message_texts(message, found)
        return found


class Completion(_Answer, frozen=True, gc=False):
    """A whole answer."""

    @property
    def finish_reasons(self) -> list[str]:
        """Why each choice ended, as far as it says so."""
        return [choice.finish_reason for choice in self.choices or () if choice.finish_reason]


class _UsualCompletion(Completion, frozen=True, gc=False):
    """One whose usage is of OpenAI's own shape, as nearly all are."""

    wire_usage: UsualUsage | None = msgspec.field(default=None, name="usage")


class Chunk(_Answer, frozen=True, gc=False):
    """The data of one event of a stream."""

    @property
    def is_done(self) -> bool:
        """True for the [DONE] that ends a stream."""
        return self is _DONE

    @property
    def is_usage(self) -> bool:
        """True for the chunk about the call as a whole that comes when usage was asked for."""
        return self.wire_usage is not None and self.choices == []

    def only_text(self, tier_so_far: str | None) -> str | None:
        """The content of a chunk that has one choice and nothing new beside it, else None."""
        if self.wire_usage is not None or self.error is not None:
            return None
        if self.wire_tier != tier_so_far and self.wire_tier is not None:
            return None
        if not self.choices or len(self.choices) > 1:
            return None
        choice = self.choices[0]
        delta = choice.delta
        if delta is None or choice.text is not None:
            return None
        return delta.content if delta == _Message(content=delta.content) else None


_Said = TypeVar("_Said", Completion, Chunk)
_DONE: Final = Chunk()
_usual_decoder = msgspec.json.Decoder(_UsualCompletion)
_completion_decoder = msgspec.json.Decoder(Completion)
_chunk_decoder = msgspec.json.Decoder(Chunk)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_completion(raw: bytes) -> Completion:
    """The body of an answer that is not a stream. Never raises."""
    try:
        return _usual_decoder.decode(raw)
    except _UNREADABLE:
        pass
    try:
        return _completion_decoder.decode(raw)
    except _UNREADABLE:
        return Completion(**_read_leniently(raw))


def read_chunk(data: bytes, name: str = "") -> Chunk:
    """The data of one event, and the event's name. Never raises: what is not JSON is an opaque
    chunk to be relayed."""
    if name == "error":
        return msgspec.structs.replace(read_chunk(data), error=True)
    if data == b"[DONE]":
        return _DONE
    try:
        return _chunk_decoder.decode(data)
    except _UNREADABLE:
        return _DONE if data.strip() == b"[DONE]" else Chunk(**_read_leniently(data))


def without_echo(said: _Said, prompt: str | None) -> _Said:
    """The same without the prompt that its texts begin with; None: they are nothing else."""
    if not said.choices:
        return said
    choices = [
        msgspec.structs.replace(
            choice, text=None if prompt is None else (choice.text or "").removeprefix(prompt)
        )
        for choice in said.choices
    ]
    return msgspec.structs.replace(said, choices=choices)


def _message_texts(message: _Message, found: list[str]) -> None:
    if message.content:
        found.append(message.content)
    if message.refusal:
        found.append(message.refusal)
    if message.reasoning_content:
        found.append(message.reasoning_content)
    if message.reasoning:
        found.append(message.reasoning)
    if message.audio and message.audio.transcript:
        found.append(message.audio.transcript)
    if message.function_call:
        _call_texts(message.function_call, found)
    for call in message.tool_calls or ():
        called = call.function or call.custom
        if called:
            _call_texts(called, found)


def _call_texts(call: _Function, found: list[str]) -> None:
    found.extend(text for text in (call.name, call.arguments, call.input) if text)


def _read_leniently(raw: bytes) -> dict[str, Any]:
    """Fields for an answer that is not of OpenAI's shape: each field that has the right type."""
    try:
        document = msgspec.json.decode(raw)
    except _UNREADABLE:
        document = None
    if not isinstance(document, dict):
        return {"choices": [_Choice(text=raw.decode("utf-8", "replace"))]}
    labels = {"wire_id": document.get("id"), "wire_tier": document.get("service_tier")}
    choices = document.get("choices")
    written = [_Choice(text=all_texts(choices))] if choices else []
    return {
        **{name: label for name, label in labels.items() if isinstance(label, str)},
        "wire_usage": document.get("usage"),
        "choices": None if choices is None else written,
        "error": document.get("error"),
    }


def all_texts(root: Any) -> str:
    """All text below `root` that a model wrote. Not recursive: the depth is the upstream's."""
    found: list[str] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            found.append(node)
        elif isinstance(node, list):
            waiting.extend(reversed(node))
        elif isinstance(node, dict):
            items = reversed(node.items())
            waiting.extend(v for k, v in items if k in _TEXT_KEYS or not isinstance(v, str))
    return "".join(found)
