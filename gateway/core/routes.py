"""The route table: what may be called, and what it becomes upstream. Everything else is refused.

One upstream key serves all users here, so a route is open only once it is safe: metered, or free by
declaration. Matching is on the raw target as it stood in the request line, and the upstream path
comes from the table, never from the request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gateway.core.operations import refusal_for
from gateway.core.refusal import Case, Refused

Charge = Literal["metered", "free"]


@dataclass(frozen=True, slots=True)
class Route:
    """One open operation. `upstream_path` is '' where the gateway answers by itself."""

    name: str
    method: str
    path: str
    charge: Charge
    upstream_path: str = ""


CHAT = Route("chat", "POST", "/v1/chat/completions", "metered", "/chat/completions")
RESPONSES = Route("responses", "POST", "/v1/responses", "metered", "/responses")
COMPLETIONS = Route("completions", "POST", "/v1/completions", "metered", "/completions")
EMBEDDINGS = Route("embeddings", "POST", "/v1/embeddings", "metered", "/embeddings")
MODERATIONS = Route("moderations", "POST", "/v1/moderations", "free", "/moderations")
MODELS = Route("models", "GET", "/v1/models", "free")
MODEL = Route("model", "GET", "/v1/models/{model}", "free")

_PLAIN = (CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS, MODERATIONS, MODELS)
_EXACT = {(route.method, route.path): route for route in _PLAIN}
_MODEL_PATH = re.compile(r"/v1/models/([A-Za-z0-9._:-]{1,128})")
_OPEN = ", ".join(f"{route.method} {route.path}" for route in (*_PLAIN, MODEL))


def match_route(method: str, raw_target: str) -> tuple[Route, str]:
    """The route of a request line and its parameter ('' when it has none); Refused otherwise.

    A query is ignored: no open route reads one. Only the listed bytes match, so encoded slashes,
    dot segments, empty segments, absolute targets and `//host` all end here. The refusal of an
    operation that OpenAI has tells why it is refused here.
    """
    route = _EXACT.get((method, raw_target))
    if route is not None:
        return route, ""
    path = raw_target.partition("?")[0]
    route = _EXACT.get((method, path))
    if route is not None:
        return route, ""
    model = _MODEL_PATH.fullmatch(path) if method == "GET" else None
    if model is not None and set(model.group(1)) != {"."}:
        return MODEL, model.group(1)
    shown = f"{method} {path[:100]}".encode("ascii", "replace").decode()
    known = refusal_for(method, path)
    why = f": {known.reason}" if known else ""
    raise Refused(
        Case.ROUTE_NOT_AVAILABLE,
        f"{shown} is not available through this gateway{why}. Available: {_OPEN}.",
    )
