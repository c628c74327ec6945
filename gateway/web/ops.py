"""The ops port: metrics, health and readiness, for Prometheus and for whoever runs the gateway.

It knows no user and shows no key; it may be opened to the pod network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Render = Callable[[], Awaitable[str]]
Checks = Callable[[], Awaitable[Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class Readiness:
    """`about` is good to know, and makes nothing unready."""

    checks: Mapping[str, str]
    about: Mapping[str, Any] = field(default_factory=dict)


def ops_app(
    render: Render, alive: Checks, ready: Callable[[], Awaitable[Readiness]]
) -> web.Application:
    """`/metrics`, `/healthz` and `/readyz`. A check is a name and its trouble, or 'ok'."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=(await render()).encode(), headers={"Content-Type": METRICS_TYPE})

    async def healthz(_: web.Request) -> web.Response:
        return _checked(await alive())

    async def readyz(_: web.Request) -> web.Response:
        found = await ready()
        return _checked(found.checks, {"about": dict(found.about)})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


def _checked(checks: Mapping[str, str], more: Mapping[str, Any] | None = None) -> web.Response:
    ok = bool(checks) and all(state == "ok" for state in checks.values())
    said = {"status": "ok" if ok else "failing", "checks": dict(checks), **(more or {})}
    return web.json_response(said, status=200 if ok else 503)
