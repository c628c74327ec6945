"""How many tokens OpenAI will count for the prompt of a chat request.

Plain chats are exact. Tools follow what has been measured at the API: OpenAI shows functions to
the model as TypeScript, so that text is written and counted. It errs upwards by a few tokens, and
what no rule is known for is counted as its JSON, so a prompt is never far undercounted. Time and
memory are linear in the request, which must be no deeper than the parser lets through (64).

Sources: OpenAI cookbook, "How to count tokens with tiktoken" (messages); hmarr/openai-chat-tokens
and pamelafox/openai-messages-token-helper (tools, choices, verified against the API);
forestwanglin/openai-java (tool calls); community.openai.com/t/538914 (several calls in a message);
openai/openai-cookbook issue 2140 (schemas of answers: their JSON without what is left out here).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Final

from gateway.core.prompt.sound import count_sound

Count = Callable[[str], int]

MESSAGE_TOKENS: Final = 3  # <|start|> … <|message|> … <|end|>
NAME_TOKENS: Final = 1
REPLY_TOKENS: Final = 3  # the reply is primed with <|start|>assistant<|message|>
TOOLS_TOKENS: Final = 9
TOOLS_WITH_SYSTEM_TOKENS: Final = -3  # tools join the system message: one header less, a newline
CHOSEN_TOOL_TOKENS: Final = 7
CALL_TOKENS: Final = 5  # one call in a message, beside its name and arguments
SEVERAL_CALLS_TOKENS: Final = 20  # several are wrapped in one call of a tool for parallel use,
SEVERAL_CALLS_EACH_TOKENS: Final = 9  # in which each is an object of its own
FORMAT_TOKENS: Final = 9  # a heading over the schema of an answer

_RENDERED: Final = frozenset(
    {"type", "properties", "required", "description", "items", "enum", "anyOf", "oneOf"}
    | {"title", "$schema"}  # left out
)
# By their types, because a property may have one of these names.
_UNSHOWN: Final[Mapping[str, type]] = {
    "required": list,
    "additionalProperties": bool,
    "$schema": str,
}
_SHOWN_ANEW: Final = frozenset({"tools", "functions", "response_format"})
_NUMBERS: Final = frozenset({int, float})  # true and false are neither
_CONTAINERS: Final = (dict, list)
_NUMERIC: Final = {"integer": "number"}
# One for all: `json.dumps` with these options makes a new one for each value.
_encoder: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def count_chat_prompt(body: Mapping[str, Any], count: Count) -> int:
    """Prompt tokens of a chat request, as `count` (text -> tokens) counts for its model.

    Does not include pictures, which each model counts by a rule of its own (`pictures`), nor
    `prediction`, whose tokens are output: count its content with `count_content`.
    """
    messages = _list(body.get("messages"))
    tokens = REPLY_TOKENS + sum(_count_message(message, count) for message in messages)
    tools = render_tools(body)
    if tools:
        tokens += TOOLS_TOKENS + count(tools)
        if any(isinstance(m, dict) and m.get("role") == "system" for m in messages):
            tokens += TOOLS_WITH_SYSTEM_TOKENS
    tokens += _count_choice(body.get("tool_choice", body.get("function_call")), count)
    response_format = body.get("response_format")
    if isinstance(response_format, dict) and "json_schema" in response_format:
        tokens += FORMAT_TOKENS + _count_format(response_format["json_schema"], count)
    return tokens


def has_no_more_tokens_than_bytes(body: Mapping[str, Any]) -> bool:
    """True when no vocabulary on bytes makes more tokens of the prompt than its body has bytes.

    That holds for text. Tools and schemas are shown to the model in another form than they came,
    and two things in them may grow: numbers in a list, which get ` | ` between them, and floats
    (1e15 is shown with all its digits).
    """
    if _SHOWN_ANEW.isdisjoint(body):
        return True
    return not any(grows(body[name]) for name in _SHOWN_ANEW if name in body)


def grows(value: Any) -> bool:
    """True when a tool or schema may have more tokens as it is shown than bytes as it came. Level
    by level, because one of many small objects is looked at on the event loop."""
    if type(value) not in _CONTAINERS:
        return type(value) is float
    level: list[Any] = [value]
    while level:
        in_objects = list(chain.from_iterable(v.values() for v in level if type(v) is dict))
        in_lists = list(chain.from_iterable(v for v in level if type(v) is list))
        if float in map(type, in_objects) or not _NUMBERS.isdisjoint(map(type, in_lists)):
            return True
        level = [item for item in chain(in_objects, in_lists) if type(item) in _CONTAINERS]
    return False


def count_content(content: Any, count: Count) -> int:
    """Tokens of the text in a message's content: a string or a list of parts."""
    if isinstance(content, list):
        return sum(_count_part(part, count) for part in content)
    return count(_text(content))


def render_tools(body: Mapping[str, Any]) -> str:
    """The TypeScript in which OpenAI shows a request's tools to the model; empty without tools."""
    tools = [*_list(body.get("tools")), *_list(body.get("functions"))]
    if not tools:
        return ""
    out = ["namespace functions {\n\n"]
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, dict) else tool
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            _write_function(function, out)
        else:
            out.append(f"{_json(tool)}\n\n")
    out.append("} // namespace functions")
    return "".join(out)


def _count_choice(choice: Any, count: Count) -> int:
    if choice is None or choice == "auto":
        return 0
    if not isinstance(choice, dict):
        return 1
    named = choice.get("function", choice)
    name = named.get("name") if isinstance(named, dict) else None
    return CHOSEN_TOOL_TOKENS + count(_text(name or choice))


def _count_format(wanted: Any, count: Count) -> int:
    """The schema as JSON, and name and description, though nobody says how these are shown."""
    if not isinstance(wanted, dict):
        return count(_json(wanted))
    about = sum(count(_text(wanted.get(name))) for name in ("name", "description"))
    return about + count(_json(_shown(wanted.get("schema"))))


def _shown(schema: Any) -> Any:
    """A schema without the keys that steer a strict answer and are not shown to the model."""
    if isinstance(schema, list):
        return [_shown(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _shown(value)
        for key, value in schema.items()
        if not isinstance(value, _UNSHOWN.get(key, ()))
    }


def _count_message(message: Any, count: Count) -> int:
    if not isinstance(message, dict):
        return MESSAGE_TOKENS + count(_text(message))
    tokens = MESSAGE_TOKENS + count(_text(message.get("role")))
    tokens += count_content(message.get("content"), count)
    if message.get("name") and message.get("role") != "tool":  # a tool's name is not shown
        tokens += NAME_TOKENS + count(_text(message["name"]))
    for spoken in ("refusal", "reasoning_content"):
        if message.get(spoken):
            tokens += count(_text(message[spoken]))
    calls = _list(message.get("tool_calls"))
    if message.get("function_call"):
        calls = [*calls, message["function_call"]]
    if calls:
        several = SEVERAL_CALLS_TOKENS + SEVERAL_CALLS_EACH_TOKENS * len(calls)
        tokens += CALL_TOKENS if len(calls) == 1 else several
        tokens += sum(_count_call(call, count) for call in calls)
    return tokens


def _count_call(call: Any, count: Count) -> int:
    if not isinstance(call, dict):
        return count(_text(call))
    called = call.get("function") or call.get("custom") or call
    if not isinstance(called, dict):
        return count(_json(called))
    written = called.get("arguments", called.get("input"))
    return count(_text(called.get("name"))) + count(_text(written))


def _count_part(part: Any, count: Count) -> int:
    if not isinstance(part, dict):
        return count(_text(part))
    if part.get("type") == "input_audio":
        return count_sound(part.get("input_audio"))
    for key in ("text", "refusal"):
        if isinstance(part.get(key), str):
            return count(part[key])
    return 0


def _write_function(function: dict[str, Any], out: list[str]) -> None:
    if function.get("description"):
        out.append(f"// {_text(function['description'])}\n")
    parameters = function.get("parameters")
    if isinstance(parameters, dict) and parameters.get("properties"):
        out.append(f"type {function['name']} = (_: ")
        _write_description(parameters, out)
        _write_type(parameters, out, indent="")
        out.append(") => any;\n\n")
    else:
        out.append(f"type {function['name']} = () => any;\n\n")


def _write_type(schema: Any, out: list[str], indent: str) -> None:
    """Write a JSON schema as a TypeScript type; a shape that has no rule is written as JSON."""
    if not isinstance(schema, dict) or not schema:
        out.append("any" if schema is True or schema == {} else _json(schema))
        return
    unknown = {
        key: value
        for key, value in schema.items()
        if key not in _RENDERED and not isinstance(value, bool)  # strict, additionalProperties
    }
    if unknown:
        out.append(f"// {_json(unknown)}\n")
    union = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(schema.get("enum"), list):
        out.append(" | ".join(map(_json, schema["enum"])))
    elif isinstance(union, list):
        for place, member in enumerate(union):
            out.append(" | " if place else "")
            _write_description(member, out)
            _write_type(member, out, indent)
    elif isinstance(schema.get("properties"), dict):
        _write_properties(schema, out, indent)
    elif "items" in schema:
        _write_description(schema["items"], out)
        _write_type(schema["items"], out, indent)
        out.append("[]")
    else:
        names = schema.get("type", "any")
        names = names if isinstance(names, list) else [names]
        out.append(" | ".join(_NUMERIC.get(_text(name), _text(name)) for name in names))


def _write_properties(schema: dict[str, Any], out: list[str], indent: str) -> None:
    required = {name for name in _list(schema.get("required")) if isinstance(name, str)}
    out.append("{\n")
    for name, value in schema["properties"].items():
        _write_description(value, out, indent)
        out.append(f"{indent}{name}: " if name in required else f"{indent}{name}?: ")
        _write_type(value, out, indent + "  ")
        out.append(",\n")
    out.append("}")


def _write_description(schema: Any, out: list[str], indent: str = "") -> None:
    if isinstance(schema, dict) and schema.get("description"):
        out.append(f"{indent}// {_text(schema['description'])}\n")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else _json(value)


def _json(value: Any) -> str:
    return _encoder.encode(value)
