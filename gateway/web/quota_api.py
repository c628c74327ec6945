"""`/quota/v1`: what applications ask about quota beside making calls.

A table of handlers, by method and path; who puts it together decides what there is. Nothing matches
but what stands in it, byte by byte, as at `/v1`. What a handler does is not known here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from gateway.core.refusal import Case, Refused
from gateway.web.front import Visit
from gateway.web.http_request import HttpRequest
from gateway.web.response import Response

PREFIX = "/quota/v1/"

QuotaHandler = Callable[[HttpRequest, str], Awaitable[Response]]
"""Answers one request, given its id too, or raises Refused. It counts what it admits."""


class QuotaApi:
    """Hands each request to its handler. `routes`: by (method, path)."""

    def __init__(self, routes: Mapping[tuple[str, str], QuotaHandler]) -> None:
        self._routes = routes
        self._names = {route: route_name(route[1]) for route in routes}
        self._open = ", ".join(f"{method} {path}" for method, path in routes)

    async def handle(self, request: HttpRequest, visit: Visit) -> Response:
        """The answer of the route; Refused when there is none."""
        path = request.raw_path.partition("?")[0]
        handler = self._routes.get((request.method, path))
        if handler is None:
            shown = f"{request.method} {path[:100]}".encode("ascii", "replace").decode()
            raise Refused(
                Case.ROUTE_NOT_AVAILABLE,
                f"{shown} is not available through this gateway. Available: {self._open}.",
            )
        visit.route = self._names[request.method, path]
        return await handler(request, visit.rid)


def route_name(path: str) -> str:
    """What a path is called in metrics: "/quota/v1/usage" is "quota_usage"."""
    return "quota_" + path.removeprefix(PREFIX).removesuffix(".json").replace("/", "_")
