"""A request without a connection, made of aiohttp's own for tests."""

from __future__ import annotations

from aiohttp import web

from gateway.web.http_request import HttpRequest


def read_as(made: web.Request) -> HttpRequest:
    """The same as the proxy port reads it."""
    return HttpRequest(made._message, made.content, made.protocol)
