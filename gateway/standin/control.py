"""The stand-in's own paths: what it served and received, who waits, and the word to go on.

They ask for no key and are counted nowhere, so that looking changes nothing.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from gateway.standin.gates import Gates
from gateway.standin.received import Received
from gateway.standin.tally import Tally


class Control:
    """Serves /stand-in; nothing asked here is counted."""

    def __init__(self, tally: Tally, gates: Gates, received: Received) -> None:
        self._tally = tally
        self._gates = gates
        self._received = received

    def routes(self) -> list[web.RouteDef]:
        """The paths and who answers them."""
        return [
            web.get("/stand-in/served", self._served),
            web.get("/stand-in/paths", self._paths),
            web.get("/stand-in/last", self._last),
            web.get("/stand-in/waiting", self._waiting),
            web.post("/stand-in/release/{name}", self._release),
            web.post("/stand-in/reset", self._reset),
        ]

    async def _served(self, request: web.Request) -> web.Response:
        return shown_as_json(self._tally.shown(with_calls=request.query.get("calls") != "0"))

    async def _paths(self, _: web.Request) -> web.Response:
        return shown_as_json(self._received.paths())

    async def _last(self, _: web.Request) -> web.Response:
        return shown_as_json(self._received.last())

    async def _waiting(self, _: web.Request) -> web.Response:
        return shown_as_json(self._gates.waiting())

    async def _release(self, request: web.Request) -> web.Response:
        return shown_as_json({"released": self._gates.release(request.match_info["name"])})

    async def _reset(self, _: web.Request) -> web.Response:
        self._tally.reset()
        self._received.reset()
        return shown_as_json({"reset": True})


def shown_as_json(shown: object, headers: dict[str, str] | None = None) -> web.Response:
    """A 200 with this as its body."""
    body = msgspec.json.encode(shown)
    return web.Response(body=body, headers=headers, content_type="application/json")
