"""`/v1`: the OpenAI-shaped side of the gateway.

aiohttp's low-level server hands every request to one function, which asks the route table and then
the flow. Refusals become answers here, once, and are counted; nothing else is decided here.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import Literal

import msgspec
from aiohttp import web

from gateway.core.identity import Identity
from gateway.core.inference.judges import JUDGES
from gateway.core.inference.moderations import judge_moderation
from gateway.core.models import Model, ModelTable
from gateway.core.plan import Plan
from gateway.core.refusal import Case, Refused
from gateway.core.rid import Rids
from gateway.core.routes import Route, match_route
from gateway.flow.admit import Call
from gateway.flow.free import FreeCall, FreeExchange
from gateway.flow.identify import Identities
from gateway.flow.repeat import Repeats
from gateway.ports.clock import Clock
from gateway.ports.metrics import Metrics
from gateway.web.answer import GONE, HttpAnswer
from gateway.web.cors import Cors
from gateway.web.error_body import refusal_response
from gateway.web.quota_headers import SERVER, free_headers
from gateway.web.request import (
    bearer_key,
    client_id_of,
    idempotency_key_of,
    read_body,
    sdk_retry_of,
    tag_of,
)
from gateway.web.response import Response, Whole

_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("gateway.proxy")
_NO_TIER = "none"  # the label of decisions that came before anybody was identified


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """What the web side needs of the configuration."""

    plan: Plan
    models: ModelTable
    body_bytes_max: int
    cors: Cors
    log_decisions: Literal["none", "refused", "all"]


class Proxy:
    """The handler of the proxy port."""

    def __init__(
        self,
        repeats: Repeats,
        free: FreeExchange,
        identities: Identities,
        settings: ProxySettings,
        observers: tuple[Metrics, Clock],
    ) -> None:
        self._repeats = repeats
        self._free = free
        self._identities = identities
        self._settings = settings
        self._metrics, self._clock = observers
        self._rids = Rids(os.urandom(8))
        self.draining = False
        self._in_flight = 0
        self._idle: asyncio.Event | None = None

    async def idle(self) -> None:
        """Returns once no request is being answered. For when no more shall come; one asks at a
        time."""
        self._idle = asyncio.Event()
        if self._in_flight:
            await self._idle.wait()

    async def handle(self, request: web.BaseRequest) -> Response:
        """Answer one request. Never raises but for a client that is gone."""
        self._in_flight += 1
        try:
            response = await self._handle(request)
            if isinstance(response, Whole):
                response.headers.extend(self._settings.cors.headers(request))
            return response
        finally:
            self._in_flight -= 1
            if self._idle is not None and not self._in_flight:
                self._idle.set()

    async def _handle(self, request: web.BaseRequest) -> Response:
        received_s = self._clock.monotonic_s()
        rid = self._rids.next(self._clock.now_ms())
        route_name = "none"
        try:
            if self.draining:
                raise Refused(Case.SHUTTING_DOWN, "This gateway is shutting down.", retry_after_s=1)
            if request.method == "OPTIONS":
                preflight = self._settings.cors.preflight(request)
                if preflight is not None:
                    return preflight
            route, parameter = match_route(request.method, request.raw_path)
            route_name = route.name
            if route.charge == "metered":
                return await self._infer(route, request, rid, received_s)
            # No reserve follows that would find out what has changed, so the ledger is asked.
            key_digest = self._identities.digest(bearer_key(request))
            identity = await self._identities.again(key_digest)
            if route.upstream_path:
                return await self._forward(route, request, identity, rid)
            return self._models(route, parameter, identity, rid)
        except Refused as refused:
            return self._refuse(refused, route_name, rid)
        except GONE:
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
    ) -> Response:
        key_digest = self._identities.digest(bearer_key(request))
        if self._identities.remembered(key_digest) is None:
            await self._identities.again(key_digest)  # no body is read before its sender is known
        body = await read_body(request, self._settings.body_bytes_max)
        call = Call(
            rid=rid,
            route=route,
            key_digest=key_digest,
            request=JUDGES[route.name](body),
            body_bytes=len(body),
            received_s=received_s,
            tag=tag_of(request),
            sdk_retry=sdk_retry_of(request),
            client_id=client_id_of(request),
            idempotency_key=idempotency_key_of(request, route, body),
        )
        answer = HttpAnswer(request, self._settings.cors, self._settings.plan.thresholds_percent)
        try:
            await self._repeats.run(call, answer)
        except Exception:
            if not answer.has_begun:
                raise
            # Half an answer is out: nothing can be said any more but that it is broken.
            _log.exception("request %s failed in its stream", rid)
            answer.cut()
        if self._settings.log_decisions == "all":
            _log.info("admitted %s: %s, answered %s", rid, route.name, answer.response.status)
        return answer.response

    async def _forward(
        self, route: Route, request: web.BaseRequest, identity: Identity, rid: str
    ) -> Response:
        """A free call that upstream answers."""
        body = await read_body(request, self._settings.body_bytes_max)
        head, said = await self._free.run(FreeCall(rid, route, identity, judge_moderation(body)))
        return Whole(head.status, free_headers(head, rid), said)

    def _models(self, route: Route, model_name: str, identity: Identity, rid: str) -> Response:
        """The models this user's tier may call, by the configuration: upstream is not asked.

        A pattern is no model and not in the list; a name that it allows is there when asked for.
        """
        tier, models = self._settings.plan.tiers.get(identity.tier), self._settings.models
        answer: dict[str, object]
        if route.name == "model":
            model = models.find(model_name)
            if model is None or tier is None or not tier.allows(model.name):
                raise Refused(
                    Case.MODEL_NOT_ALLOWED,
                    f"The model '{model_name}' is not available on the tier '{identity.tier}'.",
                    param="model",
                ).of_tier(identity.tier)
            answer = _model_object(model_name, model)
        else:
            named = [model for model in models if not model.is_pattern]
            offered = [model for model in named if tier is not None and tier.allows(model.name)]
            data = [_model_object(model.name, model) for model in offered]
            answer = {"object": "list", "data": data}
        self._metrics.decided(identity.tier, route.name, "admitted", "free")
        headers = [("Content-Type", "application/json"), ("x-request-id", rid), SERVER]
        return Whole(200, headers, _encode(answer))

    def _refuse(self, refused: Refused, route_name: str, rid: str) -> Whole:
        terms = refused.case.value
        tier = refused.tier or _NO_TIER
        if terms.source == "gateway":
            self._metrics.decided(tier, route_name, "refused", terms.code)
        if self._settings.log_decisions != "none":
            _log.info("refused %s: %s %s (tier %s)", rid, terms.status, terms.code, tier)
        response = refusal_response(refused, rid, self._settings.plan.thresholds_percent)
        if self.draining:
            response.is_last = True  # its client should find another gateway
        return response


def _model_object(name: str, model: Model) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": model.upstream}
