"""The input of a response: a text, or items, checked for form and counted.

A message counts as in a chat, and instructions as one more message. The call of a function counts
its name and arguments, the output of one its text; thoughts handed back and items that belong to
hosted tools count nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.standin import fields
from gateway.standin.counting import (
    TOKENS_PER_MESSAGE,
    CountTokens,
    prompt_tokens,
    texts_of,
)
from gateway.standin.errors import ErrorAnswer, Refused, invalid
from gateway.standin.fields import Body

Item = Mapping[str, Any]

_ROLES = ("assistant", "system", "developer", "user")
_TEXT_PARTS = ("input_text", "output_text", "refusal")
_PARTS = (*_TEXT_PARTS, "input_image", "input_file", "input_audio")
_KINDS_UNCOUNTED = (
    *("reasoning", "compaction", "custom_tool_call", "custom_tool_call_output"),
    *("web_search_call", "file_search_call", "computer_call", "computer_call_output"),
    *("code_interpreter_call", "image_generation_call", "local_shell_call"),
    *("local_shell_call_output", "shell_call", "shell_call_output", "apply_patch_call"),
    *("apply_patch_call_output", "mcp_call", "mcp_list_tools", "mcp_approval_request"),
    "mcp_approval_response",
)
_KINDS = ("message", "function_call", "function_call_output", "item_reference", *_KINDS_UNCOUNTED)


@dataclass(frozen=True, slots=True)
class Items:
    """The checked input, instructions included."""

    messages: list[dict[str, Any]]
    calls: list[Item]
    outputs: list[Item]
    last_text: str

    def tokens(self, count_tokens: CountTokens) -> int:
        """What all of it counts."""
        total = prompt_tokens(self.messages, count_tokens)
        for call in self.calls:
            total += TOKENS_PER_MESSAGE + count_tokens(call["name"] + call["arguments"])
        for output in self.outputs:
            total += TOKENS_PER_MESSAGE
            total += sum(map(count_tokens, texts_of(output["output"])))
        return total


def read_items(body: Body) -> Items:
    """The input of a body; Refused with OpenAI's words when it has another form."""
    given = body.get("input")
    if given is None:
        raise fields.missing("input")
    if not isinstance(given, str | list):
        raise fields.wrong_type("input", "a string or an array of objects", given)
    if not given and isinstance(given, list):
        raise fields.empty("input")
    listed = [{"role": "user", "content": given}] if isinstance(given, str) else given
    items = Items([], [], [], "")
    if instructions := fields.words(body, "instructions"):
        items.messages.append({"role": "developer", "content": instructions})
    for at, item in enumerate(listed):
        _sort_in(items, item, f"input[{at}]")
    last = listed[-1]
    return Items(
        items.messages,
        items.calls,
        items.outputs,
        "\n".join(texts_of(last.get("content", last.get("output")))),
    )


def _sort_in(items: Items, item: object, at: str) -> None:
    if not isinstance(item, dict):
        raise fields.wrong_type(at, "an object", item)
    bare = "item_reference" if set(item) == {"id"} else "message"
    kind = fields.one_of(item.get("type", bare), _KINDS, f"{at}.type")
    if kind == "message":
        items.messages.append(_message(item, at))
    elif kind == "function_call":
        _check_words(item, at, ("call_id", "name", "arguments"))
        items.calls.append(item)
    elif kind == "function_call_output":
        _check_output(items, item, at)
        items.outputs.append(item)
    elif kind == "item_reference":
        raise Refused(
            ErrorAnswer(404, f"Item with id '{item.get('id')}' not found.", param="input")
        )


def _message(item: dict[str, Any], at: str) -> dict[str, Any]:
    if item.get("role") is None:
        raise fields.missing(f"{at}.role")
    fields.one_of(item["role"], _ROLES, f"{at}.role")
    content = item.get("content")
    if content is None:
        raise fields.missing(f"{at}.content")
    if not isinstance(content, str | list):
        raise fields.wrong_type(f"{at}.content", "a string or an array of objects", content)
    for number, part in enumerate(content if isinstance(content, list) else ()):
        within = f"{at}.content[{number}]"
        if not isinstance(part, dict):
            raise fields.wrong_type(within, "an object", part)
        kind = fields.one_of(part.get("type"), _PARTS, f"{within}.type")
        if kind in _TEXT_PARTS:
            _check_words(part, within, ("refusal" if kind == "refusal" else "text",))
    return item


def _check_output(items: Items, item: dict[str, Any], at: str) -> None:
    _check_words(item, at, ("call_id",))
    if not isinstance(item.get("output"), str | list):
        raise fields.wrong_type(f"{at}.output", "a string or an array", item.get("output"))
    called = item["call_id"]
    if all(call["call_id"] != called for call in items.calls):
        problem = f"No tool call found for function call output with call_id {called}."
        raise invalid(problem, "input")


def _check_words(item: dict[str, Any], at: str, names: tuple[str, ...]) -> None:
    for name in names:
        if item.get(name) is None:
            raise fields.missing(f"{at}.{name}")
        fields.words(item, name, f"{at}.")
