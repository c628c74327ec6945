"""The OpenAPI description of `/quota/v1`, made of the route table and the bodies' own classes.

So it cannot say anything else than what is read and written. It is public and the same for all:
it names no user, no tier and no secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.web.http_request import HttpRequest
from gateway.web.json_answer import json_answer
from gateway.web.preferences import PreferencesAnswer, PreferencesBody
from gateway.web.quota_api import PREFIX, QuotaHandler, route_name
from gateway.web.quota_bodies import CheckAnswer, CheckBody, Error, UsageAnswer, UsageBody, UserId
from gateway.web.quota_status import StatusAnswer
from gateway.web.response import Response

OPENAPI_PATH = f"{PREFIX}openapi.json"

_REFUSALS = {
    400: "the request is wrong, or larger than the whole quota",
    401: "no key of this gateway",
    403: "the key may not do this, or the tier may not use this model",
    404: "there is no such user",
    409: "the id stands for other usage",
    413: "the body is too large",
    429: "a limit refused; `error.quota` says which, and until when",
    503: "a store does not answer: repeat it",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route reads and answers. `refusals`: the statuses of errors it may have; `query`: its
    parameters, by name, with the type of each."""

    summary: str
    answer: Any
    body: Any = None
    query: Mapping[str, Any] | None = None
    refusals: tuple[int, ...] = (400, 401, 403, 404, 413, 503)


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", f"{PREFIX}usage"): Operation(
        "Book usage that did not pass through the gateway, once for each id.",
        UsageAnswer,
        UsageBody,
        refusals=(400, 401, 403, 404, 409, 413, 429, 503),
    ),
    ("POST", f"{PREFIX}check"): Operation(
        "Say whether a call of so many tokens would fit now. Nothing changes by asking.",
        CheckAnswer,
        CheckBody,
    ),
    ("GET", f"{PREFIX}status"): Operation(
        "Where a user stands: figures, packs, limits, days and last charges of the period.",
        StatusAnswer,
        query={"user": UserId},
    ),
    ("GET", f"{PREFIX}preferences"): Operation(
        "Which mails a user wants.", PreferencesAnswer, query={"user": UserId}
    ),
    ("PUT", f"{PREFIX}preferences"): Operation(
        "Change which mails a user wants.", PreferencesAnswer, PreferencesBody
    ),
}


def openapi_handler(routes: Iterable[tuple[str, str]], version: str) -> QuotaHandler:
    """Answers the description of those of the routes that have one."""
    document = msgspec.Raw(msgspec.json.encode(description(routes, version)))

    async def handle(request: HttpRequest, rid: str) -> Response:
        return json_answer(rid, document)

    return handle


def description(routes: Iterable[tuple[str, str]], version: str) -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    known = [(route, OPERATIONS[route]) for route in routes if route in OPERATIONS]
    types = [Error]
    for _, operation in known:
        types += [each for each in (operation.body, operation.answer) if each is not None]
    references, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    schemas = dict(zip(types, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in known:
        made = paths.setdefault(path, {})
        made[method.lower()] = _operation(path, operation, schemas)
        if len(made) > 1:  # ids are told apart
            made[method.lower()]["operationId"] += f"_{method.lower()}"
    return {
        "openapi": "3.1.0",
        "info": {"title": "quota-gateway: quota", "version": version},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(path: str, operation: Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    answers = {"200": _content("as asked", schemas[operation.answer])}
    for status in operation.refusals:
        answers[str(status)] = _content(_REFUSALS[status], schemas[Error])
    made: dict[str, Any] = {
        "operationId": route_name(path),
        "summary": operation.summary,
        "responses": answers,
    }
    if operation.body is not None:
        made["requestBody"] = {"required": True} | _content("", schemas[operation.body])
        del made["requestBody"]["description"]
    if operation.query:
        made["parameters"] = [
            {"name": name, "in": "query", "required": False, "schema": msgspec.json.schema(kind)}
            for name, kind in operation.query.items()
        ]
    return made


def _content(what: str, schema: Any) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": schema}}}
