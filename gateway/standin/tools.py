"""The functions and schemas that a request brings along, and how many calls it shall get.

Chat and responses write the same things in two shapes: chat puts them one level deeper, under the
name of their kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.standin import fields
from gateway.standin.directives import Directives
from gateway.standin.errors import invalid
from gateway.standin.fields import Body

Functions = tuple[tuple[str, Mapping[str, Any]], ...]

_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}
# What a model writes that was only told to write some JSON.
_ANY_OBJECT: Mapping[str, Any] = {"type": "object", "properties": {"answer": {"type": "string"}}}


def functions_in(body: Body, within: str = "") -> Functions:
    """Names and parameters of the functions among the tools; `within` is where chat has them."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for at, tool in enumerate(fields.listing(body, "tools")):
        if not isinstance(tool, dict):
            raise fields.wrong_type(f"tools[{at}]", "an object", tool)
        if tool.get("type") is None:
            raise fields.missing(f"tools[{at}].type")
        if tool["type"] == "function":
            path = f"tools[{at}].{within}".rstrip(".")
            function = fields.mapping(tool, within, f"tools[{at}].") if within else tool
            name = function.get("name")
            if not isinstance(name, str) or not name:
                raise fields.missing(f"{path}.name")
            found.append((name, fields.mapping(function, "parameters", path) or _NO_ARGUMENTS))
    return tuple(found)


def calls_wanted(
    orders: Directives, functions: Functions, choice: object, param: str
) -> tuple[Functions, int]:
    """Whom to call and how often: as ordered, or once when the request insists on a call."""
    if isinstance(choice, dict) and choice.get("type") == "function":
        named = choice.get("function", choice)
        name = named.get("name") if isinstance(named, dict) else None
        functions = tuple(each for each in functions if each[0] == name)
        if not functions:
            problem = f"Tool choice '{name}' not found in 'tools' parameter."
            raise invalid(problem, "tool_choice")
    if orders.calls and not functions:
        problem = "stand-in directive 'calls' needs a function among the tools"
        raise invalid(problem, param, "stand_in_directive")
    insists = choice == "required" or isinstance(choice, dict)
    return functions, orders.calls or int(insists and bool(functions))


def schema_in(wanted: object, within: str = "") -> Mapping[str, Any] | None:
    """The schema that a format asks for, None for plain text; `within` is where chat has it."""
    if not isinstance(wanted, dict):
        return None
    if wanted.get("type") == "json_object":
        return _ANY_OBJECT
    if wanted.get("type") != "json_schema":
        return None
    described = fields.mapping(wanted, within) if within else wanted
    if not isinstance(described.get("name"), str):
        raise fields.missing(f"response_format.{within}.name" if within else "text.format.name")
    return fields.mapping(described, "schema") or _NO_ARGUMENTS
