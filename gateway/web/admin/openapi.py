"""The OpenAPI 3.1 description of the admin API, made from the table of routes.

Paths, parameters and bodies come from the very types by which requests are read and answers are
written. It describes; it refuses to know what a route does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway import __version__
from gateway.web.admin.problem import Error
from gateway.web.admin.route import PATH_PATTERNS, Asks, Route

OPENAPI_PATH = "/admin/v1/openapi.json"
_TEMPLATE = "#/components/schemas/{name}"
_REFUSALS = {
    "400": "what was sent is not what is expected",
    "401": "no token, or none that works",
    "403": "the token lacks the scope",
    "404": "there is no such thing",
    "408": "the body did not arrive in time",
    "409": "it contradicts what is there",
    "413": "the body is too large",
    "503": "a store cannot be reached: try again",
}


def described(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole description, ready for JSON."""
    kinds: list[type] = [Error]
    for route in routes:
        kinds.append(route.gives.body)
        if route.takes.body is not None:
            kinds.append(route.takes.body)
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    of = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, of)
    paths[OPENAPI_PATH] = {"get": _own(of)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "quota-gateway admin API", "version": __version__},
        "paths": paths,
        "security": [{"token": []}],
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, of: dict[type, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.says,
        "security": [{"token": route.scopes}],
        "parameters": [*_in_path(route), *_in_query(route), *_in_headers(route)],
        "responses": {
            str(route.gives.status): _answer("done", of[route.gives.body]),
            **{status: _answer(why, of[Error]) for status, why in _REFUSALS.items()},
        },
    }
    if route.takes.body is not None:
        content = {"application/json": {"schema": of[route.takes.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _own(of: dict[type, dict[str, Any]]) -> dict[str, Any]:
    refusals = {status: _answer(_REFUSALS[status], of[Error]) for status in ("401", "403", "503")}
    return {
        "summary": "this description",
        "security": [{"token": ["read"]}],
        "responses": {"200": _answer("OpenAPI 3.1", {"type": "object"}), **refusals},
    }


def _answer(says: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": says, "content": {"application/json": {"schema": schema}}}


def _in_path(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": f"^{PATH_PATTERNS[name]}$"},
        }
        for name in route.names
    ]


def _in_query(route: Route) -> list[dict[str, Any]]:
    schema = msgspec.json.schema(route.takes.query or Asks)
    _, _, name = schema["$ref"].rpartition("/")
    properties = schema["$defs"][name]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": _without_null(kind)}
        for name, kind in properties.items()
    ]


def _without_null(kind: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out, never null: a query has no such word."""
    choices = [each for each in kind.get("anyOf", ()) if each != {"type": "null"}]
    return choices[0] if len(choices) == 1 else {k: v for k, v in kind.items() if k != "default"}


def _in_headers(route: Route) -> list[dict[str, Any]]:
    if not route.takes.once:
        return []
    schema = {"type": "string", "pattern": "^[!-~]{1,255}$"}
    says = "your own name of this request; the same again changes nothing"
    return [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": True,
            "description": says,
            "schema": schema,
        }
    ]
