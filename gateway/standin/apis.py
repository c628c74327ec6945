"""The paths of OpenAI and of Azure OpenAI, and the API behind each; everything else is a 404.

Whatever comes is counted by its path before it is answered, known or not. What an answer says is
left to the APIs, how its call goes to `Calls`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.standin import azure
from gateway.standin.calls import Asked, Calls, check_access, error_response
from gateway.standin.chat_wire import chat
from gateway.standin.completions import completions
from gateway.standin.control import shown_as_json
from gateway.standin.embeddings import embeddings
from gateway.standin.errors import ErrorAnswer, Refused, unknown_url
from gateway.standin.face import Face
from gateway.standin.gates import Gates
from gateway.standin.headers import Ids, answer_headers
from gateway.standin.moderations import moderations
from gateway.standin.received import Received
from gateway.standin.reply import Api
from gateway.standin.responses_wire import responses
from gateway.standin.settings import StandInSettings
from gateway.standin.tally import Tally

# The release of gpt-4o: any constant will do, so that the list is the same at every start.
MODEL_CREATED_S = 1_715_367_049

APIS: dict[str, Api] = {
    "chat/completions": chat,
    "responses": responses,
    "completions": completions,
    "embeddings": embeddings,
    "moderations": moderations,
}
# What Azure serves in each of its two forms; it has no moderations.
_IN_DEPLOYMENTS = ("chat/completions", "completions", "embeddings")
_IN_AZURE_V1 = (*_IN_DEPLOYMENTS, "responses")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Apis:
    """Serves whatever is not the stand-in's own."""

    def __init__(
        self, settings: StandInSettings, tally: Tally, gates: Gates, received: Received
    ) -> None:
        self._settings = settings
        self._received = received
        self._ids = Ids()
        self._calls = Calls(settings, self._ids, tally, gates)

    def routes(self) -> list[web.RouteDef]:
        """The paths and who answers them; the last one is any path."""
        own = Face.COMPATIBLE if self._settings.compatible else Face.OPENAI
        return [
            *(web.post(f"/v1/{name}", self._serving(api, own)) for name, api in APIS.items()),
            *self._models("/v1/models", own),
            *(
                web.post(f"/openai/v1/{name}", self._serving(APIS[name], Face.AZURE))
                for name in _IN_AZURE_V1
            ),
            *self._models("/openai/v1/models", Face.AZURE),
            *(
                web.post(f"/openai/deployments/{{deployment}}/{name}", self._deployed(APIS[name]))
                for name in _IN_DEPLOYMENTS
            ),
            web.route("*", "/{anything:.*}", self._unknown),
        ]

    def _serving(self, api: Api, face: Face) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            raw = await self._received.read(request)
            return await self._calls.serve(Asked(request, raw, api, face))

        return serve

    def _deployed(self, api: Api) -> Handler:
        """A deployment stands for its model, and the api-version says what Azure knows."""

        async def serve(request: web.Request) -> web.StreamResponse:
            raw = await self._received.read(request)
            try:
                face = azure.face_of(request.query.get("api-version"))
            except Refused as refused:
                return error_response(refused.answer, self._headers())
            model = request.match_info["deployment"]
            return await self._calls.serve(Asked(request, raw, api, face, model))

        return serve

    def _models(self, path: str, face: Face) -> list[web.RouteDef]:
        """The list, or the one model that the path names."""

        async def show(request: web.Request) -> web.StreamResponse:
            await self._received.read(request)
            name = request.match_info.get("model")
            try:
                check_access(request.headers, face, self._settings.require_key)
                shown = self._model_list() if name is None else self._model(name)
            except Refused as refused:
                return error_response(refused.answer, self._headers())
            return shown_as_json(shown, self._headers())

        return [web.get(path, show), web.get(f"{path}/{{model}}", show)]

    def _model_list(self) -> dict[str, object]:
        return {"object": "list", "data": [self._model(name) for name in self._settings.models]}

    def _model(self, name: str) -> dict[str, object]:
        if name not in self._settings.models:
            problem = f"The model '{name}' does not exist"
            raise Refused(ErrorAnswer(404, problem, param="model", code="model_not_found"))
        return {"id": name, "object": "model", "created": MODEL_CREATED_S, "owned_by": "system"}

    async def _unknown(self, request: web.Request) -> web.Response:
        await self._received.read(request)
        return error_response(unknown_url(request.method, request.path), self._headers())

    def _headers(self) -> dict[str, str]:
        return answer_headers(f"req_{self._ids.next()}")
