"""What the gateway knows of a /responses request: what it may ask, and what is sent on.

What would reach stored objects, run hosted tools, work on after its answer or spend more than is
held is refused by name; a field unknown here goes through. The cap sent upstream is always the cap
held, and nothing is stored there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.core.inference.caps import cap_bounds
from gateway.core.inference.fields import (
    flag,
    invalid,
    model_of,
    refuse_fields,
    service_tier_of,
    unsupported,
    whole,
)
from gateway.core.inference.picture_parts import Picture, count_pictures
from gateway.core.inference.request import Closing, Count, Sending, StreamEvent
from gateway.core.inference.responses_answer import (
    ResponsesAnswer,
    ResponsesEvent,
    read_answer,
    read_event,
)
from gateway.core.inference.responses_input import judge_input, judge_tool_choice, judge_tools
from gateway.core.inference.responses_words import broken_event, closing_event
from gateway.core.json_body import encode, read_object
from gateway.core.models import Model
from gateway.core.prompt.responses import (
    count_responses_prompt,
    has_no_more_tokens_than_bytes,
)
from gateway.core.refusal import Case
from gateway.core.sse import SseEvent

# Stored objects and rights of the one upstream account, work that ends after its answer, and
# compaction, which is another call within the call.
_UNSUPPORTED = frozenset(
    {
        "access_programs",
        "background",
        "background_options",
        "container",
        "context_management",
        "conversation",
        "file_ids",
        "previous_response_id",
        "prompt",
        "tool_resources",
        "vector_store_ids",
    }
)
_CACHE_KEPT = "30m"
# The others belong to hosted tools.
_INCLUDED = ("message.output_text.logprobs", "reasoning.encrypted_content")


class ResponsesRequest(msgspec.Struct, frozen=True, gc=False):
    """A request as judged. `output_tokens_asked` is the caller's cap, None when it has none."""

    body: Mapping[str, Any]
    model: str
    stream: bool
    output_tokens_asked: int | None
    service_tier: str | None
    pictures: tuple[Picture, ...]

    @property
    def choices(self) -> int:
        return 1

    @property
    def text_only(self) -> bool:
        return not self.pictures and has_no_more_tokens_than_bytes(self.body)

    def count_prompt(self, model: Model, count: Count) -> int:
        return count_pictures(self.pictures, model) + count_responses_prompt(self.body, count)

    def output_bounds(self, model: Model) -> tuple[int, int]:
        return cap_bounds(self.model, self.output_tokens_asked, model)

    def upstream_body(self, sending: Sending) -> bytes:
        """Usage is not asked for: it comes with the last event anyway. `metadata` stays, because
        upstream takes it here whether it stores the answer or not."""
        body = {name: value for name, value in self.body.items() if name != "store"}
        body["model"] = sending.model
        body["max_output_tokens"] = sending.output_tokens
        if sending.dialect.knows_store:
            body["store"] = False
        return encode(body)

    def read_whole(self, raw: bytes) -> ResponsesAnswer:
        return read_answer(raw)

    def read_event(self, event: SseEvent) -> ResponsesEvent:
        return read_event(event.data or b"", event.name)

    def hides(self, event: StreamEvent) -> bool:
        return False

    def closing_events(self, closing: Closing) -> bytes:
        return closing_event(closing)

    def broken_event(self, case: Case, message: str, events: int) -> bytes:
        return broken_event(case, message, events)


def judge_responses(raw: bytes) -> ResponsesRequest:
    """Read a /responses request; Refused when it is malformed or asks for what is not available."""
    body = read_object(raw)
    refuse_fields(body, _UNSUPPORTED)
    model = model_of(body)
    pictures = judge_input(body.get("input"))
    if not isinstance(body.get("instructions", ""), str | None):
        raise invalid("instructions", "text")
    judge_tools(body.get("tools"))
    judge_tool_choice(body.get("tool_choice"))
    _judge_included(body.get("include"))
    _judge_reasoning(_options(body, "reasoning"))
    _judge_caching(_options(body, "prompt_cache_options"))
    _options(body, "stream_options")
    return ResponsesRequest(
        body=body,
        model=model,
        stream=flag(body, "stream"),
        output_tokens_asked=whole(body, "max_output_tokens"),
        service_tier=service_tier_of(body),
        pictures=pictures,
    )


def _options(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(name, "an object")
    return value


def _judge_included(include: Any) -> None:
    if include is None:
        return
    if not isinstance(include, list):
        raise invalid("include", "a list")
    for place, wanted in enumerate(include):
        if wanted not in _INCLUDED:
            raise unsupported(
                f"include[{place}]",
                f"is not available through this gateway; available: {', '.join(_INCLUDED)}",
            )


def _judge_reasoning(reasoning: dict[str, Any]) -> None:
    """Mode `pro` reads the prompt many times over: 1,549 tokens were billed for one of 18
    (gpt-5.6-sol, recorded in the tests of pydantic/pydantic-ai)."""
    if reasoning.get("mode") not in (None, "standard"):
        raise unsupported("reasoning.mode", "other than 'standard' is not metered yet")


def _judge_caching(options: dict[str, Any]) -> None:
    """A cache that is kept for longer than usual is written at a price of its own, which usage does
    not tell apart; one that is filled in advance is billed without an answer."""
    if options.get("ttl") not in (None, _CACHE_KEPT):
        raise unsupported("prompt_cache_options.ttl", f"other than '{_CACHE_KEPT}' is not priced")
    if options.get("prewarm"):
        raise unsupported("prompt_cache_options.prewarm", "is billed without an answer")
    if options.get("comparison_response_id") is not None:
        raise unsupported("prompt_cache_options.comparison_response_id", "names a stored answer")
