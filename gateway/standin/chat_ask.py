"""A chat completion, asked for: the request body, judged as OpenAI judges it.

Promises that whoever holds a `ChatAsk` need not look at the body again. Judges form only: any
model name is served, and parameters that change nothing here are accepted as long as OpenAI
knows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gateway.standin import fields
from gateway.standin.counting import picture_tokens, prompt_tokens, sound_tokens, texts_of
from gateway.standin.directives import OF_THOUGHT, Directives
from gateway.standin.errors import invalid
from gateway.standin.face import Face
from gateway.standin.fields import Body
from gateway.standin.output import Output, Wanted, planned
from gateway.standin.reply import Setting
from gateway.standin.tools import calls_wanted, functions_in, schema_in
from gateway.standin.usage import Report, Usage

CHOICES_MAX = 128  # OpenAI's

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_KNOWN_PARAMETERS = """
    messages model audio frequency_penalty function_call functions logit_bias logprobs
    max_completion_tokens max_tokens metadata modalities moderation n parallel_tool_calls
    prediction presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention
    reasoning_effort response_format safety_identifier seed service_tier stop store stream
    stream_options temperature tool_choice tools top_logprobs top_p user verbosity
    web_search_options
"""
_PARAMETERS = frozenset(_KNOWN_PARAMETERS.split())
_OBEYED = OF_THOUGHT | {"predicted"}

Voice = Literal["content", "refusal", "audio"]


@dataclass(frozen=True, slots=True)
class ChatAsk:
    """What one call wants. `voice` is where the text goes; `output` is that of each choice."""

    model: str
    choices: int
    stream: bool
    include_usage: bool
    service_tier: str
    voice: Voice
    output: Output
    directives: Directives
    report: Report

    @property
    def finish_reason(self) -> str:
        if self.output.cut:
            return "length"
        return "tool_calls" if self.output.calls else "stop"


def read_chat(body: Body, setting: Setting) -> ChatAsk:
    """Judge a decoded body; raises Refused with OpenAI's 400."""
    face = setting.face
    if not face.ignores_unknown:
        fields.known_only(body, _PARAMETERS)
    model = setting.model or fields.model_of(body)
    messages = _messages(body)
    _check_stored(body, face)
    stream = fields.flag(body, "stream")
    last = "\n".join(texts_of(messages[-1].get("content")))
    orders = fields.orders(last, _OBEYED, stream, "messages")
    functions, calls = calls_wanted(
        orders, functions_in(body, "function"), body.get("tool_choice"), "messages"
    )
    schema = schema_in(body.get("response_format"), "json_schema")
    wanted = Wanted(_cap(body, face), schema, functions, calls)
    output = planned(orders, wanted, setting.count_tokens)
    choices = fields.number(body, "n", CHOICES_MAX) or 1
    voice = _voice(body, orders)
    count = prompt_tokens(messages, setting.count_tokens)
    usage = Usage(
        count,
        output.tokens * choices + orders.predicted[1],
        **cache_figures(orders, count),
        reasoning_tokens=output.reasoning_tokens * choices,
        image_tokens=picture_tokens(messages),
        audio_in_tokens=sound_tokens(messages),
        audio_out_tokens=_spoken_tokens(output, voice) * choices,
        accepted_tokens=orders.predicted[0],
        rejected_tokens=orders.predicted[1],
    )
    return ChatAsk(
        model=model,
        choices=choices,
        stream=stream,
        include_usage=include_usage(body, stream, face),
        service_tier=tier_of(body),
        voice=voice,
        output=output,
        directives=orders,
        report=Report(usage, orders.usage),
    )


def cache_figures(orders: Directives, prompt_tokens: int) -> dict[str, int]:
    """Of so many prompt tokens, those read from the cache and those written to it."""
    cached = min(orders.cached, prompt_tokens)
    written = min(orders.cache_write, prompt_tokens - cached)
    return {"cached_tokens": cached, "cache_write_tokens": written}


def tier_of(body: Body) -> str:
    """The service tier that an answer names; "fast" is the newer name of "priority"."""
    tier = body.get("service_tier")
    if tier == "fast":
        return "priority"
    return tier if tier in ("flex", "priority") else "default"


def include_usage(body: Body, stream: bool, face: Face) -> bool:
    """Whether a stream shall end with its usage; a face that cannot know the wish refuses it."""
    if not face.knows_stream_options and "stream_options" in body:
        raise fields.unknown_parameter("stream_options")
    if body.get("stream_options") is None:
        return False
    if not stream:
        raise invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            "stream_options",
        )
    return fields.flag(fields.mapping(body, "stream_options"), "include_usage", "stream_options.")


def _messages(body: Body) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if messages is None:
        raise fields.missing("messages")
    if not isinstance(messages, list):
        raise fields.wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise fields.empty("messages")
    for at, message in enumerate(messages):
        _check_message(f"messages[{at}]", message)
    return messages


def _check_message(at: str, message: object) -> None:
    if not isinstance(message, dict):
        raise fields.wrong_type(at, "an object", message)
    role = message.get("role")
    if role is None:
        raise fields.missing(f"{at}.role")
    fields.one_of(role, _ROLES, f"{at}.role")
    content = message.get("content")
    if content is None and role != "assistant":
        raise fields.missing(f"{at}.content")
    if not isinstance(content, str | list | None):
        raise fields.wrong_type(f"{at}.content", "a string or an array of objects", content)


def _check_stored(body: Body, face: Face) -> None:
    """Metadata belongs to what is stored: OpenAI refuses it otherwise."""
    stored = fields.flag(body, "store")
    if fields.metadata(body) and not stored and not face.ignores_unknown:
        raise invalid("The 'metadata' parameter is only allowed when 'store' is enabled.")


def _cap(body: Body, face: Face) -> int | None:
    older = fields.number(body, "max_tokens")
    if face.ignores_unknown:
        return older
    cap = fields.number(body, "max_completion_tokens")
    if cap is not None and older is not None:
        raise invalid(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            "max_tokens",
            "invalid_parameter_combination",
        )
    return older if cap is None else cap


def _voice(body: Body, orders: Directives) -> Voice:
    modalities = body.get("modalities")
    spoken = isinstance(modalities, list) and "audio" in modalities
    if spoken and not fields.mapping(body, "audio"):
        raise fields.missing("audio")
    if orders.refuse:
        return "refusal"
    return "audio" if spoken else "content"


def _spoken_tokens(output: Output, voice: Voice) -> int:
    return output.parts[0].tokens if voice == "audio" and not output.calls else 0
