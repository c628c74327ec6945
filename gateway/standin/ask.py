"""A chat completion, asked for: the request body, judged as OpenAI judges it.

Promises that whoever holds a `ChatAsk` need not look at the body again. Judges form only: any
model name is served, and parameters that change nothing here are accepted as long as OpenAI
knows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.standin.counting import CountTokens, Usage, prompt_tokens, texts_of
from gateway.standin.directives import DirectiveError, Directives, read_directives
from gateway.standin.errors import Refused, invalid

CHOICES_MAX = 128  # OpenAI's

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_NUMBERS_MAX = 2**31 - 1
_KNOWN_PARAMETERS = """
    messages model audio frequency_penalty function_call functions logit_bias logprobs
    max_completion_tokens max_tokens metadata modalities moderation n parallel_tool_calls
    prediction presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention
    reasoning_effort response_format safety_identifier seed service_tier stop store stream
    stream_options temperature tool_choice tools top_logprobs top_p user verbosity
    web_search_options
"""
_PARAMETERS = frozenset(_KNOWN_PARAMETERS.split())


@dataclass(frozen=True, slots=True)
class ChatAsk:
    """What one call wants. `cap_tokens` is a choice's limit, None when the request names none."""

    model: str
    prompt_tokens: int
    choices: int
    cap_tokens: int | None
    stream: bool
    include_usage: bool
    service_tier: str
    directives: Directives

    @property
    def endless(self) -> bool:
        return self.directives.never_ends

    @property
    def write_tokens(self) -> int:
        """Tokens to write a choice: what is wanted, cut at the cap unless told to ignore it."""
        wanted = self.directives.write
        if self.cap_tokens is None or self.directives.ignore_cap:
            return wanted
        return min(wanted, self.cap_tokens)

    @property
    def finish_reason(self) -> str:
        return "stop" if self.write_tokens == self.directives.write else "length"

    @property
    def usage_readable(self) -> bool:
        """False when usage shall be left out, or told in a form that nobody can count with."""
        return self.directives.usage not in ("none", "text")

    @property
    def usage(self) -> Usage:
        """The usage to report when all is written: the true one, unless told to lie."""
        if isinstance(self.directives.usage, Usage):
            return self.directives.usage
        return Usage(self.prompt_tokens, self.write_tokens * self.choices)


def read_ask(body: object, count_tokens: CountTokens) -> ChatAsk:
    """Judge a decoded body; raises Refused with OpenAI's 400."""
    if not isinstance(body, dict):
        raise invalid("Invalid body: expected a JSON object.", code="invalid_type")
    unknown = next((name for name in body if name not in _PARAMETERS), None)
    if unknown is not None:
        raise invalid(f"Unknown parameter: '{unknown}'.", unknown, "unknown_parameter")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("you must provide a model parameter")
    messages = _messages(body)
    stream = _flag(body, "stream")
    tier = body.get("service_tier")
    return ChatAsk(
        model=model,
        prompt_tokens=prompt_tokens(messages, count_tokens),
        choices=_number(body, "n", CHOICES_MAX) or 1,
        cap_tokens=_cap(body),
        stream=stream,
        include_usage=_include_usage(body, stream),
        service_tier=tier if tier in ("flex", "priority") else "default",
        directives=_directives(messages, stream),
    )


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if messages is None:
        raise _missing("messages")
    if not isinstance(messages, list):
        raise _wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise invalid(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got "
            "an empty array instead.",
            "messages",
            "empty_array",
        )
    for at, message in enumerate(messages):
        _check_message(f"messages[{at}]", message)
    return messages


def _check_message(at: str, message: object) -> None:
    if not isinstance(message, dict):
        raise _wrong_type(at, "an object", message)
    role = message.get("role")
    if role is None:
        raise _missing(f"{at}.role")
    if role not in _ROLES:
        supported = ", ".join(f"'{name}'" for name in _ROLES)
        raise invalid(
            f"Invalid value: '{role}'. Supported values are: {supported}.",
            f"{at}.role",
            "invalid_value",
        )
    content = message.get("content")
    if content is None and role != "assistant":
        raise _missing(f"{at}.content")
    if not isinstance(content, str | list | None):
        raise _wrong_type(f"{at}.content", "a string or an array of objects", content)


def _directives(messages: list[dict[str, Any]], stream: bool) -> Directives:
    try:
        directives = read_directives("\n".join(texts_of(messages[-1].get("content"))))
    except DirectiveError as error:
        raise invalid(str(error), "messages", "stand_in_directive") from error
    needs_stream = directives.error_after is not None or directives.hold_after is not None
    if needs_stream and not stream:
        problem = "stand-in directives 'error_after' and 'hold_after' need 'stream': true"
        raise invalid(problem, "messages", "stand_in_directive")
    return directives


def _cap(body: dict[str, Any]) -> int | None:
    cap = _number(body, "max_completion_tokens", _NUMBERS_MAX)
    older = _number(body, "max_tokens", _NUMBERS_MAX)
    if cap is not None and older is not None:
        raise invalid(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            "max_tokens",
            "invalid_parameter_combination",
        )
    return older if cap is None else cap


def _include_usage(body: dict[str, Any], stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            "stream_options",
        )
    if not isinstance(options, dict):
        raise _wrong_type("stream_options", "an object", options)
    return _flag(options, "include_usage", "stream_options.")


def _flag(body: dict[str, Any], name: str, within: str = "") -> bool:
    value = body.get(name)
    if not isinstance(value, bool | None):
        raise _wrong_type(within + name, "a boolean", value)
    return bool(value)


def _number(body: dict[str, Any], name: str, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(name, "an integer", value)
    if value < 1:
        raise _out_of_range(name, "below_min", f">= 1, but got {value}")
    if value > most:
        raise _out_of_range(name, "above_max", f"<= {most}, but got {value}")
    return value


def _missing(name: str) -> Refused:
    return invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def _out_of_range(name: str, side: str, found: str) -> Refused:
    return invalid(
        f"Invalid '{name}': integer {side.replace('_', ' ')}imum value. "
        f"Expected a value {found} instead.",
        name,
        f"integer_{side}_value",
    )


def _wrong_type(name: str, expected: str, value: object) -> Refused:
    kinds = {bool: "a boolean", int: "an integer", float: "a decimal number", str: "a string"}
    found = kinds.get(type(value), "an array" if isinstance(value, list) else "an object")
    return invalid(
        f"Invalid type for '{name}': expected {expected}, but got {found} instead.",
        name,
        "invalid_type",
    )
