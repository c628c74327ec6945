"""A call that is free by declaration: sent upstream once and answered, without a hold or a row.

Whoever calls was identified before, and any user may, whatever is left of a quota. Upstream's
refusals are told as for every other call.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.identity import Identity
from gateway.core.inference.moderations import ModerationRequest
from gateway.core.models import ModelTable
from gateway.core.refusal import Case, Refused
from gateway.core.routes import Route
from gateway.flow.decisions import tell_free
from gateway.flow.upstream_refusal import gave_up, refusal_of
from gateway.ports.metrics import Metrics
from gateway.ports.upstream import (
    Upstream,
    UpstreamBroke,
    UpstreamCall,
    UpstreamHead,
    UpstreamSilent,
    UpstreamUnreachable,
)


@dataclass(frozen=True, slots=True)
class FreeCall:
    """One request whose sender is known."""

    rid: str
    route: Route
    identity: Identity
    request: ModerationRequest


class FreeExchange:
    """Runs free calls; holds nothing of any one of them."""

    def __init__(self, upstream: Upstream, models: ModelTable, metrics: Metrics) -> None:
        self._upstream = upstream
        self._models = models
        self._metrics = metrics

    async def run(self, call: FreeCall) -> tuple[UpstreamHead, bytes]:
        """Upstream's answer, or Refused."""
        request, tier = call.request, call.identity.tier
        model = self._models.find(request.model)
        if model is None:
            raise Refused(
                Case.MODEL_NOT_ALLOWED,
                f"The model '{request.model[:100]}' is not available through this gateway.",
                param="model",
            ).of(call.identity)
        self._metrics.decided(tier, call.route.name, "admitted", "free")
        tell_free(call.rid, call.route.name, call.identity)
        try:
            return await self._ask(call, model.upstream)
        except (UpstreamUnreachable, UpstreamBroke, UpstreamSilent) as error:
            raise gave_up(error) from None

    async def _ask(self, call: FreeCall, upstream: str) -> tuple[UpstreamHead, bytes]:
        source = await self._upstream.send(
            UpstreamCall(
                upstream=upstream,
                model=call.request.model,
                path=call.route.upstream_path,
                body=call.request.upstream_body(),
                rid=call.rid,
                user_id=call.identity.user_id,
            )
        )
        try:
            body = await source.read()
        finally:
            await source.close()
        refused = refusal_of(source.head.status, body)
        if refused is not None:
            raise refused
        return source.head, body
