"""The stand-in's server: OpenAI's paths under /v1, its own under /stand-in.

Loopback and any free port unless told otherwise. It prints nothing; trouble goes to the logger
`gateway.standin`, which is silent until somebody configures it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec
from aiohttp import web

from gateway.standin.chat import Chat, decoded, error_response
from gateway.standin.errors import ErrorAnswer, Refused, check_key, unknown_url
from gateway.standin.gates import Gates
from gateway.standin.headers import Ids, answer_headers
from gateway.standin.settings import StandInSettings
from gateway.standin.tally import Tally

# A context of a million tokens is about 4 MB of text; the rest is room for tests of size limits.
BODY_BYTES_MAX = 64 * 1024 * 1024
# Held and endless calls never end by themselves: a stop waits this long for the others, twice.
STOP_S = 0.05
# The release of gpt-4o: any constant will do, so that the list is the same at every start.
MODEL_CREATED_S = 1_715_367_049

_log = logging.getLogger("gateway.standin")
_log.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class _Received:
    """A request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def as_json(self) -> dict[str, object]:
        body = decoded(self.body)
        return {
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "body": self.body.decode(errors="replace") if body is None else body,
        }


class StandIn:
    """One server. `start` once, `stop` once; a second `stop` does nothing."""

    def __init__(self, settings: StandInSettings) -> None:
        self._settings = settings
        self._tally = Tally()
        self._gates = Gates()
        self._ids = Ids()
        self._chat = Chat(settings, self._ids, self._tally, self._gates)
        self._last: _Received | None = None
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            handle_signals=False,
            # A client that leaves ends its call at once, also one that is held or delayed.
            handler_cancellation=True,
            logger=_log,
            shutdown_timeout=STOP_S,
        )

    async def start(self) -> str:
        """Listen; the base URL for an OpenAI client, which ends in /v1.

        OSError when the port is taken.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._settings.host, self._settings.port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"

    async def stop(self) -> None:
        """Stop listening; calls still running are cut."""
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.add_routes(
            [
                web.post("/v1/chat/completions", self._chat_completions),
                web.get("/v1/models", self._models),
                web.get("/v1/models/{model}", self._models),
                web.get("/stand-in/served", self._served),
                web.post("/stand-in/reset", self._reset),
                web.get("/stand-in/waiting", self._waiting),
                web.post("/stand-in/release/{name}", self._release),
                web.get("/stand-in/last", self._last_received),
                web.route("*", "/{anything:.*}", self._unknown),
            ]
        )
        return application

    async def _receive(self, request: web.Request) -> bytes:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self._last = _Received(request.method, request.path_qs, headers, raw)
        return raw

    async def _chat_completions(self, request: web.Request) -> web.StreamResponse:
        return await self._chat.serve(request, await self._receive(request))

    async def _models(self, request: web.Request) -> web.Response:
        """The list, or the one model that the path names."""
        await self._receive(request)
        name = request.match_info.get("model")
        try:
            check_key(request.headers.get("Authorization", ""), self._settings.require_key)
            shown = self._model_list() if name is None else self._model(name)
        except Refused as refused:
            return error_response(refused.answer, self._headers())
        return _json(shown, self._headers())

    def _model_list(self) -> dict[str, object]:
        return {"object": "list", "data": [self._model(name) for name in self._settings.models]}

    def _model(self, name: str) -> dict[str, object]:
        if name not in self._settings.models:
            problem = f"The model '{name}' does not exist"
            raise Refused(ErrorAnswer(404, problem, param="model", code="model_not_found"))
        return {"id": name, "object": "model", "created": MODEL_CREATED_S, "owned_by": "system"}

    async def _unknown(self, request: web.Request) -> web.Response:
        await self._receive(request)
        return error_response(unknown_url(request.method, request.path), self._headers())

    def _headers(self) -> dict[str, str]:
        return answer_headers(f"req_{self._ids.next()}")

    async def _served(self, request: web.Request) -> web.Response:
        return _json(self._tally.shown(with_calls=request.query.get("calls") != "0"))

    async def _reset(self, _: web.Request) -> web.Response:
        self._tally.reset()
        self._last = None
        return _json({"reset": True})

    async def _waiting(self, _: web.Request) -> web.Response:
        return _json(self._gates.waiting())

    async def _release(self, request: web.Request) -> web.Response:
        return _json({"released": self._gates.release(request.match_info["name"])})

    async def _last_received(self, _: web.Request) -> web.Response:
        return _json(None if self._last is None else self._last.as_json())


def _json(shown: object, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode(shown)
    return web.Response(body=body, headers=headers, content_type="application/json")
