"""How many tokens OpenAI will count for the prompt of a /responses request.

The items are rewritten as the messages of a chat and counted as one; what a chat does not have is
added. Plain text is within one token of what OpenAI reports, tools and calls are some tokens over.
Time and memory are linear in the request. What is refused is not known here.

Sources: usage recorded from the API in the tests of pydantic/pydantic-ai (commit 4fda389, gpt-4o to
gpt-5.6) and coder/aibridge (d59c7ef, custom tools); openai/harmony for what stands around calls;
openai/codex (`estimate_reasoning_length`) for the form of the rule of encrypted reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.core.prompt.chat import Count, count_chat_prompt, grows

CHANNEL_TOKENS: Final = 2  # <|channel|> and its name, in what the assistant said
RESULT_TOKENS: Final = 6  # an output is headed by its function's name, recipient and channel
NAME_CHARS_MAX: Final = 64  # OpenAI's bound on the name of a function
CUSTOM_TOOL_TOKENS: Final = 12  # a custom tool's frame beside its JSON; 7 were measured

SEALED_OVERHEAD_BYTES: Final = 600
SEALED_TOKENS_IN_TEN_BYTES: Final = 3
"""Encrypted reasoning: what it holds beside the thoughts, and the most tokens seen in the rest."""

_CALLS: Final = ("function_call", "custom_tool_call")
_OUTPUTS: Final = ("function_call_output", "custom_tool_call_output")


def count_responses_prompt(body: Mapping[str, Any], count: Count) -> int:
    """Prompt tokens of a /responses request, as `count` (text -> tokens) counts for its model.

    Encrypted reasoning cannot be read here and counts by its length.
    """
    given = body.get("input")
    items = given if isinstance(given, list) else [{"role": "user", "content": given}]
    known = [item for item in items if isinstance(item, dict)]
    tools = _list(body.get("tools"))
    messages = [_as_message(item) for item in items]
    if body.get("instructions"):
        messages.append({"role": "developer", "content": body["instructions"]})
    chat = {
        "messages": messages,
        "tools": [_as_chat_tool(tool) for tool in tools],
        "tool_choice": body.get("tool_choice"),
        "response_format": _as_response_format(body.get("text")),
    }
    tokens = count_chat_prompt(chat, count)
    tokens += sum(CHANNEL_TOKENS for item in known if _by_assistant(item))
    tokens += sum(CUSTOM_TOOL_TOKENS for tool in tools if _is_custom(tool))
    return tokens + _count_results(known, count) + sum(map(count_sealed, known))


def has_no_more_tokens_than_bytes(body: Mapping[str, Any]) -> bool:
    """As in chats; and the name of a call counts again with each of its outputs, so no call may
    have several."""
    given = body.get("input")
    outputs = [
        str(item.get("call_id"))
        for item in (given if isinstance(given, list) else ())
        if isinstance(item, dict) and item.get("type") in _OUTPUTS
    ]
    grown = grows(body.get("tools")) or grows(body.get("text"))
    return not grown and len(outputs) == len(set(outputs))


def count_sealed(item: Mapping[str, Any]) -> int:
    """Tokens of an item's encrypted reasoning, 0 without one. It is base64."""
    sealed = item.get("encrypted_content")
    if item.get("type") != "reasoning" or not isinstance(sealed, str):
        return 0
    return max(0, len(sealed) * 3 // 4 - SEALED_OVERHEAD_BYTES) * SEALED_TOKENS_IN_TEN_BYTES // 10


def _count_results(items: list[dict[str, Any]], count: Count) -> int:
    """What heads the outputs of calls: they name the call only by its id."""
    heads: dict[str, int] = {}
    tokens = 0
    for item in items:
        call_id, name = item.get("call_id"), item.get("name")
        known_by = call_id if isinstance(call_id, str) else ""
        if item.get("type") in _CALLS and isinstance(name, str):
            heads[known_by] = count(name[:NAME_CHARS_MAX])
        elif item.get("type") in _OUTPUTS:
            tokens += RESULT_TOKENS + heads.get(known_by, 0)
    return tokens


def _by_assistant(item: dict[str, Any]) -> bool:
    return item.get("type") in _CALLS or item.get("role") == "assistant"


def _as_message(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    kind = item.get("type")
    if kind in _CALLS:
        return {"role": "assistant", "tool_calls": [{"function": item}]}
    if kind in _OUTPUTS:
        return {"role": "tool", "content": item.get("output")}
    if kind == "reasoning":
        # A summary is for people: the model is shown the thoughts themselves, if they are there.
        told = [] if item.get("encrypted_content") else _list(item.get("summary"))
        return {"role": "assistant", "content": [*told, *_list(item.get("content"))]}
    # Tools join a system message in chats of older models only.
    return {**item, "role": "developer"} if item.get("role") == "system" else item


def _is_custom(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type") == "custom"


def _as_chat_tool(tool: Any) -> Any:
    """What is more than a chat's function goes in as its JSON: a format, a schema of the output."""
    whole = _is_custom(tool) or (isinstance(tool, dict) and tool.get("output_schema"))
    return {"custom": tool} if whole else tool


def _as_response_format(text: Any) -> Any:
    shown = text.get("format") if isinstance(text, dict) else None
    if not isinstance(shown, dict) or "schema" not in shown:
        return None
    kept = {key: shown[key] for key in ("name", "description", "schema") if key in shown}
    return {"json_schema": kept}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
