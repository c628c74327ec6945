"""The admin API as an application: who asks, may they, what do they ask, and what went wrong.

In this order, for every route, by code that no route can leave out. A request without a token is
refused before its body is read. Refusals of whoever asks are audited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec
from aiohttp import web

from gateway.core.operators import Operator, Scope
from gateway.flow.once import Once
from gateway.flow.operator_access import Access, BeyondScope, RefusalAudit
from gateway.web.admin.openapi import OPENAPI_PATH, described
from gateway.web.admin.problem import Problem, answer_of, problem_of
from gateway.web.admin.route import BODY_BYTES_MAX, Route, read

_LOGIN = "X-Quota-Login"
_PATH_SHOWN = 200
_OPERATOR = web.RequestKey("operator", Operator)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Guard:
    """Who is let in, who is remembered to have been refused, and what was answered once.
    `at_once` requests are worked on, the others wait: the stores have other work too."""

    access: Access
    refusals: RefusalAudit
    once: Once
    at_once: int


def admin_app(routes: Sequence[Route], guard: Guard) -> web.Application:
    """Answers by these routes, and describes them."""

    turns = asyncio.Semaphore(guard.at_once)

    @web.middleware
    async def told(request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            async with turns:
                return await handler(request)
        except Exception as error:
            return answer_of(problem_of(error))

    @web.middleware
    async def known(request: web.Request, handler: _Handler) -> web.StreamResponse:
        request[_OPERATOR] = await _operator(request, guard)
        return await handler(request)

    app = web.Application(middlewares=[told, known], client_max_size=BODY_BYTES_MAX)
    for route in routes:
        app.router.add_route(route.method, route.path, _handler(route, guard))
    description = msgspec.json.encode(described(routes))

    async def openapi(request: web.Request) -> web.Response:
        await _may(request, ("read",), guard)
        return web.Response(body=description, content_type="application/json")

    app.router.add_route("GET", OPENAPI_PATH, openapi)

    async def close(_: web.Application) -> None:
        await guard.refusals.close()

    app.on_cleanup.append(close)
    return app


def _handler(route: Route, guard: Guard) -> _Handler:
    async def handle(request: web.Request) -> web.Response:
        operator = await _may(request, route.scopes, guard)
        asked = await read(route, request, operator, guard.once)
        try:
            answer = await route.handle(asked)
        except BeyondScope:
            await _audit(request, guard, operator.who, "scope_missing")
            raise
        return web.Response(
            status=route.gives.status,
            body=answer if isinstance(answer, bytes) else msgspec.json.encode(answer),
            content_type="application/json",
        )

    return handle


async def _operator(request: web.Request, guard: Guard) -> Operator:
    given = request.headers.getall("Authorization", [])
    kind, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    operator = None
    if kind.lower() == "bearer":
        operator = await guard.access.operator_of(token, request.headers.get(_LOGIN))
    if operator is not None:
        return operator
    code, what = ("invalid_token", "the token is not known here, or was revoked")
    if not given:
        code, what = ("no_token", "no token was sent")
    await _audit(request, guard, "nobody", code)
    raise Problem(
        401,
        code,
        f"{what}: send one as 'Authorization: Bearer …'. 'quota-gateway token create' makes one",
        param="Authorization",
    ).with_headers({"WWW-Authenticate": "Bearer"})


async def _may(request: web.Request, scopes: Sequence[Scope], guard: Guard) -> Operator:
    operator = request[_OPERATOR]
    missing = [scope for scope in scopes if scope not in operator.scopes]
    if missing:
        await _audit(request, guard, operator.who, "scope_missing")
        raise Problem(
            403,
            "scope_missing",
            f"this needs a token with the scope {' and '.join(missing)}; this one has: "
            f"{', '.join(sorted(operator.scopes))}",
            param="Authorization",
        )
    return operator


async def _audit(request: web.Request, guard: Guard, who: str, code: str) -> None:
    path = request.rel_url.raw_path[:_PATH_SHOWN]
    detail = {"code": code, "method": request.method[:20], "path": path}
    await guard.refusals.refused(who, detail | {"peer": request.remote or "unix socket"})
