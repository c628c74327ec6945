"""A response, asked for: the body of `POST /v1/responses`, judged as OpenAI judges it.

Promises that whoever holds a `ResponsesAsk` need not look at the body again, but for what the
answer repeats of it. Nothing is ever stored here, so whatever refers to something stored is
refused as OpenAI refuses what it does not find.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.standin import fields
from gateway.standin.chat_ask import cache_figures
from gateway.standin.directives import OF_THOUGHT, Directives
from gateway.standin.errors import ErrorAnswer, Refused, invalid
from gateway.standin.face import Face
from gateway.standin.fields import Body
from gateway.standin.items import Items, read_items
from gateway.standin.output import Output, Wanted, planned
from gateway.standin.reply import Setting
from gateway.standin.tools import calls_wanted, functions_in, schema_in
from gateway.standin.usage import Report, Usage

CAP_TOKENS_MIN = 16  # OpenAI's

_KNOWN_PARAMETERS = """
    access_programs background background_options context_management conversation image include
    input instructions max_output_tokens max_tool_calls metadata model moderation
    parallel_tool_calls previous_response_id prompt prompt_cache_key prompt_cache_options
    prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options
    temperature text tool_choice tools top_logprobs top_p truncation user
"""
_PARAMETERS = frozenset(_KNOWN_PARAMETERS.split())
_OBEYED = OF_THOUGHT | {"fail_after", "postscript"}
_SECRET_THOUGHTS = "reasoning.encrypted_content"


@dataclass(frozen=True, slots=True)
class ResponsesAsk:
    """What one call wants. `body` is what the answer repeats: its settings, as they came."""

    model: str
    stream: bool
    obfuscated: bool
    summarised: bool
    secret_thoughts: bool
    output: Output
    directives: Directives
    report: Report
    body: Mapping[str, Any]


def read_response(body: Body, setting: Setting) -> ResponsesAsk:
    """Judge a decoded body; raises Refused with OpenAI's 400."""
    if not setting.face.ignores_unknown:
        fields.known_only(body, _PARAMETERS)
    model = setting.model or fields.model_of(body)
    _check_stored(body)
    items = read_items(body)
    stream = fields.flag(body, "stream")
    orders = fields.orders(items.last_text, _OBEYED, stream, "input")
    functions, calls = calls_wanted(orders, functions_in(body), body.get("tool_choice"), "input")
    schema = schema_in(fields.mapping(body, "text").get("format"))
    cap = fields.number(body, "max_output_tokens", least=CAP_TOKENS_MIN)
    output = planned(orders, Wanted(cap, schema, functions, calls), setting.count_tokens)
    include = fields.listing(body, "include")
    return ResponsesAsk(
        model=model,
        stream=stream,
        obfuscated=_obfuscated(body, stream, setting.face),
        summarised=fields.mapping(body, "reasoning").get("summary") is not None,
        secret_thoughts=_SECRET_THOUGHTS in include,
        output=output,
        directives=orders,
        report=Report(_usage(items, output, orders, setting), orders.usage),
        body=body,
    )


def _usage(items: Items, output: Output, orders: Directives, setting: Setting) -> Usage:
    prompt_tokens = items.tokens(setting.count_tokens)
    return Usage(
        prompt_tokens,
        output.tokens,
        **cache_figures(orders, prompt_tokens),
        reasoning_tokens=output.reasoning_tokens,
    )


def _check_stored(body: Body) -> None:
    """Refuse what would need a memory, in OpenAI's words where it has some for that."""
    fields.metadata(body)
    fields.flag(body, "store")
    if (earlier := fields.words(body, "previous_response_id")) is not None:
        problem = f"Previous response with id '{earlier}' not found."
        raise invalid(problem, "previous_response_id", "previous_response_not_found")
    if (conversation := body.get("conversation")) is not None:
        raise Refused(ErrorAnswer(404, f"Conversation with id '{conversation}' not found."))
    if (prompt := body.get("prompt")) is not None:
        named = prompt.get("id") if isinstance(prompt, dict) else prompt
        raise Refused(ErrorAnswer(404, f"Prompt with id '{named}' not found."))
    if fields.flag(body, "background"):
        raise invalid("The stand-in runs nothing in the background.", "background")


def _obfuscated(body: Body, stream: bool, face: Face) -> bool:
    """Whether deltas carry padding. OpenAI's default is yes; here it has to be asked for."""
    options = fields.mapping(body, "stream_options")
    if options and not stream:
        raise invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            "stream_options",
        )
    if not face.ignores_unknown:
        fields.known_only(options, ("include_obfuscation",), "stream_options.")
    return fields.flag(options, "include_obfuscation", "stream_options.")
