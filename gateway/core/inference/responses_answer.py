"""What an answer of /responses says: usage, text, ids, ends.

Reads whole answers (`read_answer`) and the events of a stream (`read_event`). Nothing here raises,
whatever the bytes are: what cannot be read is an answer without usage whose text is all of it, so
that it is relayed, estimated and never booked at zero. A usage that contradicts itself or the text
is None. How tokens become charges, and how text is counted, is not known here.

Source of the shapes: `openai.types.responses` of OpenAI's Python package, version 3.54.0.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.core.inference.chat_answer import all_texts
from gateway.core.usage import Apart, Usage, believe, detail, label, usage_of

_LAST: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_ERRORS: Final = frozenset({"error", "response.failed"})
_TEXT_DELTAS: Final = frozenset(
    {"response.output_text.delta", "response.function_call_arguments.delta"}
    | {"response.reasoning_summary_text.delta", "response.reasoning_text.delta"}
)
_SOUND: Final = "response.audio.delta"
_OPAQUE: Final = "opaque.delta"  # what is given to an event that cannot be read and has no name


class _Part(msgspec.Struct, frozen=True, gc=False):
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct, frozen=True, gc=False):
    """A message, a call or reasoning; what calls that run upstream hold is not known here."""

    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    summary: list[_Part] | None = None
    content: list[_Part] | None = None


class ResponsesAnswer(msgspec.Struct, frozen=True, gc=False):
    """A whole answer, or the state of one in an event. The fields are the upstream's, unjudged:
    read the properties. gc=False because decoded JSON holds no cycles."""

    wire_id: str | None = msgspec.field(default=None, name="id")
    wire_tier: str | None = msgspec.field(default=None, name="service_tier")
    wire_usage: Any = msgspec.field(default=None, name="usage")
    output: list[_Item] | None = None

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
        """The usage as far as this answer can tell."""
        usage = read_usage(self.wire_usage)
        if usage is None or usage.output_tokens:
            return usage
        return believe(usage, wrote_text=bool(self.texts()))

    def texts(self) -> list[str]:
        """The pieces of text the model wrote, for counting: messages, calls, reasoning."""
        found: list[str] = []
        for item in self.output or ():
            found.extend(text for text in (item.name, item.arguments, item.input) if text)
            for part in (*(item.summary or ()), *(item.content or ())):
                found.extend(text for text in (part.text, part.refusal) if text)
        return found


class ResponsesEvent(msgspec.Struct, frozen=True, gc=False):
    """The data of one event of a stream."""

    kind: str = msgspec.field(default="", name="type")
    delta: Any = None
    item: _Item | None = None
    response: ResponsesAnswer | None = None
    error: Any = None

    @property
    def id(self) -> str | None:
        """The id of the whole answer, in those events that tell it."""
        return self.response.id if self.response else None

    @property
    def service_tier(self) -> str | None:
        """The tier that served the call. Until the end an answer names the one asked for."""
        return self.response.service_tier if self.response and self.is_done else None

    @property
    def usage(self) -> Usage | None:
        """The usage of the call, in its last event."""
        return self.response.usage if self.response and self.is_done else None

    @property
    def is_done(self) -> bool:
        """True for the event that ends the answer, and for a [DONE], which some upstreams send."""
        return self.kind in _LAST or self is _DONE

    @property
    def is_error(self) -> bool:
        """True for an error, which a response.failed may follow, and for a failed answer."""
        return bool(self.error) or self.kind in _ERRORS

    def texts(self) -> list[str]:
        """The text that is new in this event; in the last one, all of the answer's.

        A call's name comes only with the start of its item. Everything but that and the deltas
        repeats what was told before.
        """
        if self.kind.endswith(".delta"):
            has_text = isinstance(self.delta, str) and self.delta and self.kind != _SOUND
            return [self.delta] if has_text else []
        if self.kind == "response.output_item.added":
            return [self.item.name] if self.item and self.item.name else []
        return self.response.texts() if self.response and self.is_done else []

    def only_text(self, tier_so_far: str | None) -> str | None:
        """The text of a delta, None for any other event."""
        if self.kind in _TEXT_DELTAS and self.response is None and self.error is None:
            return self.delta if type(self.delta) is str else None
        return None


_DONE: Final = ResponsesEvent()
_answer_decoder = msgspec.json.Decoder(ResponsesAnswer)
_event_decoder = msgspec.json.Decoder(ResponsesEvent)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_answer(raw: bytes) -> ResponsesAnswer:
    """The body of an answer that is not a stream. Never raises."""
    try:
        return _answer_decoder.decode(raw)
    except _UNREADABLE:
        document = _object(raw)
    if document is None:
        return ResponsesAnswer(output=[_Item(input=raw.decode("utf-8", "replace"))])
    return _odd_answer(document)


def read_event(data: bytes, name: str = "") -> ResponsesEvent:
    """The data of one event, and the event's name. Never raises: what is not JSON is an opaque
    event to be relayed, whose text is all of it, unless its name says that it holds none."""
    try:
        event = _event_decoder.decode(data)
    except _UNREADABLE:
        if data.strip() == b"[DONE]":
            return _DONE
        event = _odd_event(data, name)
    return event if event.kind else msgspec.structs.replace(event, kind=name)


def read_usage(wire: Any) -> Usage | None:
    """The usage object of /responses, or None when it is missing, zero, negative, absurd or not
    integers."""
    if not isinstance(wire, dict):
        return None
    return usage_of(
        wire.get("input_tokens"),
        detail(wire.get("input_tokens_details"), "cached_tokens"),
        wire.get("output_tokens"),
        detail(wire.get("output_tokens_details"), "reasoning_tokens"),
        Apart(cache_write=detail(wire.get("input_tokens_details"), "cache_write_tokens")),
    )


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(raw)
    except _UNREADABLE:
        return None
    return document if isinstance(document, dict) else None


def _odd_event(data: bytes, name: str) -> ResponsesEvent:
    """An event that is not of OpenAI's shape: each field that has the right type."""
    document = _object(data)
    if document is None:
        return ResponsesEvent(kind=name or _OPAQUE, delta=data.decode("utf-8", "replace"))
    kind, item, response = (document.get(field) for field in ("type", "item", "response"))
    called = item.get("name") if isinstance(item, dict) else None
    return ResponsesEvent(
        kind=kind if isinstance(kind, str) else "",
        delta=document.get("delta"),
        item=_Item(name=called) if isinstance(called, str) else None,
        response=_odd_answer(response) if isinstance(response, dict) else None,
        error=document.get("error"),
    )


def _odd_answer(document: dict[str, Any]) -> ResponsesAnswer:
    wire_id, tier = document.get("id"), document.get("service_tier")
    text = all_texts(document.get("output"))
    return ResponsesAnswer(
        wire_id=wire_id if isinstance(wire_id, str) else None,
        wire_tier=tier if isinstance(tier, str) else None,
        wire_usage=document.get("usage"),
        output=[_Item(input=text)] if text else None,
    )
