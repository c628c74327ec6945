"""What a /responses request may show the model: items, their parts, and tools.

Only kinds whose tokens can be counted pass, and only such as carry their content with them: what
names an object of the one upstream account by its id is refused. What a person would have to know
to mend a request is in the refusal. How anything is counted is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.core.inference.fields import invalid, unsupported
from gateway.core.inference.picture_parts import Picture, judge_picture

_TEXT_PARTS: Final = {
    "input_text": "text",
    "output_text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
_TOOLS: Final = ("function", "custom")
_CONTAINERS: Final = (dict, list)
_STORED: Final = frozenset({"file_id", "file_ids", "vector_store_ids", "container", "container_id"})


def judge_input(given: Any) -> tuple[Picture, ...]:
    """A text, or a list of items; the pictures in all of them."""
    if isinstance(given, str):
        return ()
    if not isinstance(given, list) or not given:
        raise invalid("input", "text or a list of at least one item")
    for place, item in enumerate(given):
        where = f"input[{place}]"
        _judge_item(where, item)
        _refuse_stored(where, item)
    return tuple(_pictures(given))


def judge_tools(tools: Any) -> None:
    """Only tools that the client runs, and whose description is text."""
    if tools is None:
        return
    if not isinstance(tools, list):
        raise invalid("tools", "a list")
    for place, tool in enumerate(tools):
        _judge_tool(f"tools[{place}]", tool)


def judge_tool_choice(choice: Any) -> None:
    """A tool that may be chosen is one that may be had; words are judged upstream."""
    if not isinstance(choice, dict):
        return
    if choice.get("type") != "allowed_tools":
        _judge_tool("tool_choice", choice)
        return
    allowed = choice.get("tools")
    for place, tool in enumerate(allowed if isinstance(allowed, list) else ()):
        _judge_tool(f"tool_choice.tools[{place}]", tool)


def _judge_tool(where: str, tool: Any) -> None:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind not in _TOOLS:
        raise _not_metered(where, kind, f"; available tools: {', '.join(_TOOLS)}")


def _judge_item(where: str, item: Any) -> None:
    if not isinstance(item, dict):
        raise invalid(where, "an object")
    kind = item.get("type")
    if kind is None:  # upstream takes an item without a type for a message or for a reference
        kind = "message" if isinstance(item.get("role"), str) else "item_reference"
    if kind == "message":
        _judge_message(where, item)
    elif kind == "function_call":
        _judge_texts(where, item, ("name", "arguments"))
    elif kind == "custom_tool_call":
        _judge_texts(where, item, ("name", "input"))
    elif kind in ("function_call_output", "custom_tool_call_output"):
        _judge_content(f"{where}.output", item.get("output"))
    elif kind == "reasoning":
        _judge_reasoning(where, item)
    elif kind == "item_reference":
        raise unsupported(where, "names a stored item; send the item itself")
    else:
        raise _not_metered(where, kind)


def _judge_message(where: str, item: Mapping[str, Any]) -> None:
    if not isinstance(item.get("role"), str):
        raise invalid(f"{where}.role", "text")
    _judge_content(f"{where}.content", item.get("content"))


def _judge_reasoning(where: str, item: Mapping[str, Any]) -> None:
    """Without its content, upstream looks a reasoning item up by its id."""
    for name in ("summary", "content"):
        if item.get(name) is not None:
            _judge_parts(f"{where}.{name}", item[name])
    sealed = item.get("encrypted_content")
    if sealed is not None and not isinstance(sealed, str):
        raise invalid(f"{where}.encrypted_content", "text")
    if not sealed and not item.get("content"):
        raise unsupported(
            where,
            "names stored reasoning; send its encrypted_content (ask for it with "
            "include: ['reasoning.encrypted_content']), or leave the item out",
        )


def _judge_texts(where: str, item: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if not isinstance(item.get(name), str):
            raise invalid(f"{where}.{name}", "text")


def _judge_content(where: str, content: Any) -> None:
    if not isinstance(content, str | list):
        raise invalid(where, "text or a list of content parts")
    if isinstance(content, list):
        _judge_parts(where, content, with_pictures=True)


def _judge_parts(where: str, parts: Any, with_pictures: bool = False) -> None:
    if not isinstance(parts, list):
        raise invalid(where, "a list of content parts")
    for place, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise invalid(f"{where}[{place}]", "an object with a type")
        text = _TEXT_PARTS.get(part["type"])
        if text is not None:
            if not isinstance(part.get(text), str):
                raise invalid(f"{where}[{place}].{text}", "text")
        elif part["type"] != "input_image" or not with_pictures:
            raise _not_metered(f"{where}[{place}]", part["type"])


def _pictures(items: list[Any]) -> Iterator[Picture]:
    """Those in messages and in outputs of calls. Items of other kinds may have anything there."""
    for place, item in enumerate(items):
        for name in ("content", "output"):
            parts = item.get(name)
            for number, part in enumerate(parts if isinstance(parts, list) else ()):
                if isinstance(part, dict) and part.get("type") == "input_image":
                    where = f"input[{place}].{name}[{number}]"
                    yield judge_picture(where, part.get("image_url"), part.get("detail"))


def _refuse_stored(where: str, item: Any) -> None:
    """Refused when anything below an item names a stored object. An item holds no schema of the
    client's own, so these names mean nothing else there."""
    waiting: list[Any] = [item]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if not _STORED.isdisjoint(node):
                _refuse_named(where, node)
            node = node.values()
        waiting += [each for each in node if type(each) in _CONTAINERS]


def _refuse_named(where: str, node: Mapping[str, Any]) -> None:
    for name in _STORED.intersection(node):
        if node[name] is not None:
            raise unsupported(where, f"names a stored object ('{name}'), which is not available")


def _not_metered(where: str, kind: Any, hint: str = "") -> Exception:
    shown = f"of type {str(kind)[:40]!r} is" if kind is not None else "without a type is"
    return unsupported(where, f"{shown} not metered by this gateway yet{hint}")
