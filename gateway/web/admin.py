"""The admin port: what an operator may ask about users, with the bearer token of this gateway.

Loopback by default. So far it reads only; changes are made with the command line.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from gateway.core.identity import valid_user_id

ShowUser = Callable[[str], Awaitable[dict[str, Any] | None]]


def admin_app(token: str, show_user: ShowUser) -> web.Application:
    """`GET /admin/v1/users/{id}`. `show_user` gives None for a user there is not."""
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def authorised(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, expected):
            return _problem(401, "send the admin token as 'Authorization: Bearer …'")
        return await handler(request)

    async def user(request: web.Request) -> web.Response:
        user_id = request.match_info["user_id"]
        shown = await show_user(user_id) if valid_user_id(user_id) else None
        if shown is None:
            return _problem(404, "there is no such user")
        return web.json_response(shown)

    app = web.Application(middlewares=[authorised])
    app.router.add_get("/admin/v1/users/{user_id}", user)
    return app


def _problem(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)
