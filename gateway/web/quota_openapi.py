"""The OpenAPI description of `/quota/v1`, made of the route table and the bodies' own classes.

So it cannot say anything else than what is read and written. It is public and the same for all:
it names no user, no tier and no secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.web.http_request import HttpRequest
from gateway.web.json_answer import json_answer
from gateway.web.payments import EventAnswer, TopUpAnswer, TopUpBody
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
    409: "it contradicts what is there: the id stands for other usage, no pack can be added now",
    413: "the body is too large",
    429: "a limit refused; `error.quota` says which, and until when",
    502: "the payment service does not answer: nothing was bought",
    503: "a store does not answer: repeat it",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route reads and answers. `refusals`: the statuses of errors it may have; `query` and
    `headers`: its parameters, by name, with the type of each."""

    summary: str
    answer: Any
    body: Any = None
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    refusals: tuple[int, ...] = (400, 401, 403, 404, 413, 503)
    needs_body: bool = True
    needs_key: bool = True


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
    ("POST", f"{PREFIX}topup"): Operation(
        "Order packs for the user who asks, and get the address of a page to pay on.",
        TopUpAnswer,
        TopUpBody,
        refusals=(400, 401, 403, 409, 413, 502, 503),
        needs_body=False,
    ),
    ("POST", f"{PREFIX}payments/stripe"): Operation(
        "An event of Stripe, byte by byte as it was signed.",
        EventAnswer,
        dict[str, Any],
        headers={"Stripe-Signature": str},
        refusals=(400, 413, 503),
        needs_key=False,
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
        made["requestBody"] = {"required": operation.needs_body} | _json(schemas[operation.body])
    parameters = [*_parameters("query", operation.query), *_parameters("header", operation.headers)]
    if parameters:
        made["parameters"] = parameters
    if not operation.needs_key:
        made["security"] = []
    return made


def _parameters(place: str, kinds: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Headers are required, what is in the query is not."""
    return [
        {
            "name": name,
            "in": place,
            "required": place == "header",
            "schema": msgspec.json.schema(kind),
        }
        for name, kind in kinds.items()
    ]


def _content(what: str, schema: Any) -> dict[str, Any]:
    return {"description": what} | _json(schema)


def _json(schema: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
