"""`/v1`: the OpenAI-shaped side of the gateway.

Each request is looked up in the route table and told to the flow, or answered from the
configuration. Refusals become answers in front of this; nothing else is decided here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from gateway.core.identity import Identity
from gateway.core.inference.judges import JUDGES
from gateway.core.inference.moderations import judge_moderation
from gateway.core.log_facts import Facts, beside
from gateway.core.models import Model, ModelTable
from gateway.core.plan import Plan
from gateway.core.refusal import Case, Refused
from gateway.core.routes import Route, match_route
from gateway.flow.admit import Call
from gateway.flow.decisions import tell_free
from gateway.flow.free import FreeCall, FreeExchange
from gateway.flow.identify import refuse_service
from gateway.flow.limits import models_of
from gateway.flow.repeat import Repeats
from gateway.ports.metrics import Metrics
from gateway.web.answer import HttpAnswer
from gateway.web.callers import Callers
from gateway.web.cors import Cors
from gateway.web.front import Visit
from gateway.web.http_request import HttpRequest
from gateway.web.json_answer import json_answer
from gateway.web.quota_headers import free_headers
from gateway.web.request import (
    idempotency_key_of,
    read_body,
    sdk_retry_of,
    tag_of,
)
from gateway.web.response import Response, Whole

_log = logging.getLogger("gateway.proxy")


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """What the web side needs of the configuration."""

    plan: Plan
    models: ModelTable
    body_bytes_max: int
    cors: Cors


class Proxy:
    """The part of the proxy port for `/v1`, and for what is nowhere."""

    def __init__(
        self,
        repeats: Repeats,
        free: FreeExchange,
        callers: Callers,
        settings: ProxySettings,
        metrics: Metrics,
    ) -> None:
        self._repeats = repeats
        self._free = free
        self._callers, self._identities = callers, callers.identities
        self._settings = settings
        self._metrics = metrics

    async def handle(self, request: HttpRequest, visit: Visit) -> Response:
        """Answer one call, or raise Refused."""
        route, parameter = match_route(request.method, request.raw_path)
        visit.route = route.name
        if route.charge == "metered":
            return await self._infer(route, request, visit)
        # No reserve follows that would find out what has changed, so the ledger is asked.
        identity = await self._identities.again(self._callers.credential(request))
        refuse_service(identity)
        if route.upstream_path:
            return await self._forward(route, request, identity, visit.rid)
        return self._models(route, parameter, identity, visit.rid)

    async def _infer(self, route: Route, request: HttpRequest, visit: Visit) -> Response:
        credential = self._callers.credential(request)
        if self._identities.remembered(credential) is None:
            await self._identities.again(credential)  # no body is read before its sender is known
        body = await read_body(request, self._settings.body_bytes_max)
        call = Call(
            rid=visit.rid,
            route=route,
            credential=credential,
            request=JUDGES[route.name](body),
            body_bytes=len(body),
            received_s=visit.received_s,
            tag=tag_of(request),
            sdk_retry=sdk_retry_of(request),
            client_id=visit.client_id,
            idempotency_key=idempotency_key_of(request, route, body),
        )
        answer = HttpAnswer(request, self._settings.cors, self._settings.plan.thresholds_percent)
        try:
            await self._repeats.run(call, answer)
        except Refused as refused:
            model = self._settings.models.find(call.request.model)
            refused.model = model.name if model else None
            raise
        except Exception:
            if not answer.has_begun:
                raise
            # Half an answer is out: nothing can be said any more but that it is broken.
            facts = Facts(request=visit.rid, route=route.name)
            _log.exception("a request failed in its stream", extra=beside(facts))
            answer.cut()
        return answer.response

    async def _forward(
        self, route: Route, request: HttpRequest, identity: Identity, rid: str
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
        allowed = models_of(tier, identity) if tier is not None else None
        answer: dict[str, object]
        if route.name == "model":
            model = models.find(model_name)
            if model is None or allowed is None or not allowed.allows(model.name):
                raise Refused(
                    Case.MODEL_NOT_ALLOWED,
                    f"The model '{model_name}' is not available on the tier '{identity.tier}'.",
                    param="model",
                ).of(identity)
            answer = _model_object(model_name, model)
        else:
            named = [model for model in models if not model.is_pattern]
            offered = [model for model in named if allowed and allowed.allows(model.name)]
            data = [_model_object(model.name, model) for model in offered]
            answer = {"object": "list", "data": data}
        self._metrics.decided(identity.tier, route.name, "admitted", "free")
        tell_free(rid, route.name, identity)
        return json_answer(rid, answer)


def _model_object(name: str, model: Model) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": model.upstream}
