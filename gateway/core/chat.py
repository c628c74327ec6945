"""What the gateway knows of a chat completion's request: what it may ask, and what is sent on.

A field that would let a call reach stored objects, run hosted tools or spend what is not metered
is refused by name; a field unknown here goes through. The cap sent upstream is always the cap held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.json_body import encode, read_object
from gateway.core.plan import Model
from gateway.core.refusal import Case, Refused

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
    """A chat request as judged. `output_tokens_asked` is the caller's cap, None when it has none.

    `body` is this gateway's own copy; `asked_usage`: the client wants the stream's usage chunk.
    """

    body: Mapping[str, Any]
    model: str
    stream: bool
    asked_usage: bool
    choices: int
    output_tokens_asked: int | None


def judge_chat(raw: bytes) -> ChatRequest:
    """Read a chat request; Refused when it is malformed or asks for what is not available."""
    body = read_object(raw)
    for name in _UNSUPPORTED:
        # An empty object counts as asking: `web_search_options: {}` is how a search is switched on.
        if body.get(name) is not None and body[name] is not False:
            raise _unsupported(name, "is not available through this gateway")
    if body.get("modalities") not in (None, ["text"]):
        raise _unsupported("modalities", "other than text are not available through this gateway")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _invalid("model", "a model's name")
    _judge_messages(body.get("messages"))
    _judge_tools(body.get("tools"))
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise _invalid("stream", "true or false")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _invalid("stream_options", "an object")
    return ChatRequest(
        body=body,
        model=model,
        stream=stream,
        asked_usage=options.get("include_usage") is True,
        choices=_whole(body, "n", CHOICES_MAX) or 1,
        output_tokens_asked=min(
            (cap for cap in (_whole(body, name, None) for name in _CAPS) if cap), default=None
        ),
    )


def output_bounds(request: ChatRequest, model: Model) -> tuple[int, int]:
    """(wanted, least) output tokens a choice: between them the cap may be lowered to fit."""
    wanted = min(
        request.output_tokens_asked or model.output_tokens_default, model.output_tokens_max
    )
    return wanted, min(wanted, model.output_tokens_min)


def upstream_body(request: ChatRequest, output_tokens: int, stream_usage: bool) -> bytes:
    """The body to send: the judged one with the held cap, nothing stored, and usage asked for.

    `metadata` is left out because upstream takes it only for completions that it stores.
    """
    body = {k: v for k, v in request.body.items() if k not in _CAPS and k != "metadata"}
    body["max_completion_tokens"] = output_tokens
    body["store"] = False
    if request.stream and stream_usage:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return encode(body)


def _judge_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise _invalid("messages", "a list of at least one message")
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _invalid(where, "an object with a role")
        if message.get("audio"):
            raise _unsupported(f"{where}.audio", "is not available through this gateway")
        content = message.get("content")
        if isinstance(content, list):
            for number, part in enumerate(content):
                _judge_part(f"{where}.content[{number}]", part)
        elif content is not None and not isinstance(content, str):
            raise _invalid(f"{where}.content", "text or a list of content parts")


def _judge_part(where: str, part: Any) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise _invalid(where, "an object with a type")
    kind = part["type"]
    if kind not in _METERED_PARTS:
        raise _unsupported(where, f"of type {kind[:40]!r} is not metered by this gateway yet")
    if not isinstance(part.get(kind), str):
        raise _invalid(f"{where}.{kind}", "text")


def _judge_tools(tools: Any) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        raise _invalid("tools", "a list")
    for place, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in _METERED_TOOLS:
            raise _unsupported(
                f"tools[{place}]", "is a tool that runs upstream; only functions are available"
            )


def _whole(body: Mapping[str, Any], name: str, most: int | None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or value < 1 or (most is not None and value > most):
        raise _invalid(name, f"a whole number from 1{f' to {most}' if most else ''}")
    return value


def _invalid(param: str, expected: str) -> Refused:
    return Refused(
        Case.INVALID_VALUE, f"Invalid value for '{param}': expected {expected}.", param=param
    )


def _unsupported(param: str, reason: str) -> Refused:
    return Refused(Case.UNSUPPORTED_PARAMETER, f"'{param}' {reason}.", param=param)
