"""`/v1`: the OpenAI-shaped side of the gateway.

aiohttp's low-level server hands every request to one function, which asks the route table and then
the flow. Refusals become answers here, once, and are counted; nothing else is decided here.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from aiohttp import web

from gateway.core.idempotency import Remembered
from gateway.core.identity import Identity
from gateway.core.inference.judges import JUDGES
from gateway.core.models import ModelTable
from gateway.core.plan import Plan
from gateway.core.refusal import Case, Refused
from gateway.core.rid import make_rid
from gateway.core.routes import Route, match_route
from gateway.flow.admit import Call
from gateway.flow.identify import Identities
from gateway.flow.repeat import Repeats
from gateway.ports.answer import AnswerHead, ClientGone
from gateway.ports.clock import Clock
from gateway.ports.metrics import Metrics
from gateway.web.error_body import refusal_response
from gateway.web.quota_headers import SERVER, answer_headers, replay_headers
from gateway.web.request import (
    bearer_key,
    client_id_of,
    idempotency_key_of,
    read_body,
    sdk_retry_of,
    tag_of,
)

_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("gateway.proxy")
_GONE = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
_NO_TIER = "none"  # the label of decisions that came before anybody was identified


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """What the web side needs of the configuration."""

    plan: Plan
    models: ModelTable
    body_bytes_max: int


class Proxy:
    """The handler of the proxy port."""

    def __init__(
        self,
        repeats: Repeats,
        identities: Identities,
        settings: ProxySettings,
        observers: tuple[Metrics, Clock],
    ) -> None:
        self._repeats = repeats
        self._identities = identities
        self._settings = settings
        self._metrics, self._clock = observers
        self.draining = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Returns once no request is being answered."""
        await self._idle.wait()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Never raises but for a client that is gone."""
        self._in_flight += 1
        self._idle.clear()
        try:
            return await self._handle(request)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        received_s = self._clock.monotonic_s()
        rid = make_rid(self._clock.now_ms(), os.urandom(10))
        route_name = "none"
        try:
            if self.draining:
                raise Refused(Case.SHUTTING_DOWN, "This gateway is shutting down.", retry_after_s=1)
            route, parameter = match_route(request.method, request.raw_path)
            route_name = route.name
            if route.charge == "metered":
                return await self._infer(route, request, rid, received_s)
            # No reserve follows that would find out what has changed, so the ledger is asked.
            identity = await self._identities.again(bearer_key(request))
            return self._models(route, parameter, identity, rid)
        except Refused as refused:
            return self._refuse(refused, route_name, rid)
        except _GONE:
            raise
        except Exception:
            _log.exception("request %s failed", rid)
            return self._refuse(
                Refused(Case.INTERNAL_ERROR, f"The gateway failed. Its log has request {rid}."),
                route_name,
                rid,
            )

    async def _infer(
        self, route: Route, request: web.BaseRequest, rid: str, received_s: float
    ) -> web.StreamResponse:
        key = bearer_key(request)
        await self._identities.of_key(key)  # nobody's body is read before its sender is known
        body = await read_body(request, self._settings.body_bytes_max)
        call = Call(
            rid=rid,
            route=route,
            key=key,
            request=JUDGES[route.name](body),
            body_bytes=len(body),
            received_s=received_s,
            tag=tag_of(request),
            sdk_retry=sdk_retry_of(request),
            client_id=client_id_of(request),
            idempotency_key=idempotency_key_of(request, route, body),
        )
        answer = HttpAnswer(request, self._settings.plan.thresholds_percent)
        try:
            await self._repeats.run(call, answer)
        except Exception:
            if not answer.response.prepared:
                raise
            # Half an answer is out: nothing can be said any more but that it is broken.
            _log.exception("request %s failed in its stream", rid)
            answer.cut()
        return answer.response

    def _models(
        self, route: Route, model_name: str, identity: Identity, rid: str
    ) -> web.StreamResponse:
        """The models this user's tier may call, by the configuration: upstream is not asked."""
        tier = self._settings.plan.tiers.get(identity.tier)
        offered = [
            {"id": model.name, "object": "model", "created": 0, "owned_by": model.upstream}
            for model in self._settings.models
            if tier is not None and tier.allows(model.name)
        ]
        if route.name == "model":
            offered = [model for model in offered if model["id"] == model_name]
            if not offered:
                raise Refused(
                    Case.MODEL_NOT_ALLOWED,
                    f"The model '{model_name}' is not available on the tier '{identity.tier}'.",
                    param="model",
                ).of_tier(identity.tier)
        self._metrics.decided(identity.tier, route.name, "admitted", "free")
        return web.Response(
            body=_encode(
                offered[0] if route.name == "model" else {"object": "list", "data": offered}
            ),
            headers=[("Content-Type", "application/json"), ("x-request-id", rid), SERVER],
        )

    def _refuse(self, refused: Refused, route_name: str, rid: str) -> web.Response:
        terms = refused.case.value
        tier = refused.tier or _NO_TIER
        if terms.source == "gateway":
            self._metrics.decided(tier, route_name, "refused", terms.code)
        _log.info("refused %s: %s %s (tier %s)", rid, terms.status, terms.code, tier)
        response = refusal_response(refused, rid, self._settings.plan.thresholds_percent)
        if self.draining:
            response.force_close()  # its client should find another gateway
        return response


class HttpAnswer:
    """Fulfils ports.answer.RepeatableAnswer for one aiohttp request."""

    def __init__(self, request: web.BaseRequest, thresholds_percent: Sequence[int]) -> None:
        self._request = request
        self._thresholds_percent = thresholds_percent
        self.response: web.StreamResponse = web.Response(status=500)

    async def whole(self, head: AnswerHead, body: bytes) -> None:
        self.response = web.Response(
            status=head.status,
            body=body,
            headers=list(answer_headers(head, self._thresholds_percent)),
        )

    async def replay(self, first: Remembered) -> None:
        self.response = web.Response(
            status=first.status, body=first.body, headers=list(replay_headers(first))
        )

    async def begin(self, head: AnswerHead) -> None:
        headers = [*answer_headers(head, self._thresholds_percent), ("Cache-Control", "no-cache")]
        self.response = web.StreamResponse(status=head.status, headers=headers)
        try:
            await self.response.prepare(self._request)
        except _GONE as error:
            raise ClientGone from error

    def cut(self) -> None:
        """Drop the connection, so that the client sees that the answer is not whole."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def write(self, data: bytes) -> None:
        try:
            await self.response.write(data)
        except _GONE as error:
            raise ClientGone from error

    async def end(self) -> None:
        try:
            await self.response.write_eof()
        except _GONE as error:
            raise ClientGone from error

    def missed(self, data: bytes) -> None:
        """A client that has left misses nothing more by it."""

    def came_whole(self) -> None:
        """The framing says so already."""
