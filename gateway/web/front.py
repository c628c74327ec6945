"""What every request to the proxy port has around it, whichever part of the port answers.

Its id, the refusals that end it, what a browser may read, and the count of those under way: each
done once, here. The part is found by the beginning of the path. What a request means is decided
there, and a part never has to catch anything: it answers, or raises Refused.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.log_facts import Facts, beside
from gateway.core.refusal import Case, Refused
from gateway.core.rid import Rids
from gateway.flow.decisions import tell_refused
from gateway.ports.clock import Clock
from gateway.ports.metrics import Metrics
from gateway.web.answer import GONE
from gateway.web.cors import Cors
from gateway.web.error_body import refusal_response
from gateway.web.http_request import HttpRequest
from gateway.web.request_id import answer_to, client_id_of
from gateway.web.response import Response, Whole

_log = logging.getLogger("gateway.proxy")
_NO_TIER = "none"  # the label of decisions that came before anybody was identified


@dataclass(slots=True)
class Visit:
    """One request: its id, when its head had come (monotonic), the client's own id of it, and the
    route once it is known."""

    rid: str
    received_s: float
    client_id: str | None
    route: str = "none"


class Part(Protocol):
    """What answers the requests whose paths begin alike."""

    async def handle(self, request: HttpRequest, visit: Visit) -> Response:
        """The answer, or Refused; `visit.route` is set as soon as the route is known."""
        ...


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What all parts have in common of the configuration."""

    thresholds_percent: Sequence[int]
    cors: Cors


class Front:
    """The handler of the proxy port. `parts`: by the beginning of the path, '' for all others; of
    two that fit, the longer."""

    def __init__(
        self,
        parts: Mapping[str, Part],
        settings: FrontSettings,
        observers: tuple[Metrics, Clock],
    ) -> None:
        self._rest = parts[""]
        longest_first = sorted(parts.items(), key=lambda each: len(each[0]), reverse=True)
        self._parts = [(path, part) for path, part in longest_first if path]
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

    async def handle(self, request: HttpRequest) -> Response:
        """Answer one request. Never raises but for a client that is gone."""
        self._in_flight += 1
        try:
            response = await self._handle(request)
            if isinstance(response, Whole):
                response.headers = answer_to(response.headers, request)
                response.headers += self._settings.cors.headers(request)
            return response
        finally:
            self._in_flight -= 1
            if self._idle is not None and not self._in_flight:
                self._idle.set()

    async def _handle(self, request: HttpRequest) -> Response:
        received_s = self._clock.monotonic_s()
        rid = self._rids.next(self._clock.now_ms())
        visit = Visit(rid, received_s, client_id_of(request))
        try:
            if self.draining:
                raise Refused(Case.SHUTTING_DOWN, "This gateway is shutting down.", retry_after_s=1)
            if request.method == "OPTIONS":
                preflight = self._settings.cors.preflight(request)
                if preflight is not None:
                    return preflight
            return await self._part_of(request.raw_path).handle(request, visit)
        except Refused as refused:
            return self._refuse(refused, visit)
        except GONE:
            raise
        except Exception:
            facts = Facts(request=visit.rid, route=visit.route)
            _log.exception("a request failed", extra=beside(facts))
            failed = Refused(Case.INTERNAL_ERROR, "The gateway failed. Its log says how.")
            return self._refuse(failed, visit)

    def _part_of(self, path: str) -> Part:
        for beginning, part in self._parts:
            if path.startswith(beginning):
                return part
        return self._rest

    def _refuse(self, refused: Refused, visit: Visit) -> Whole:
        terms = refused.case.value
        tier = refused.tier or _NO_TIER
        if terms.source == "gateway":
            self._metrics.decided(tier, visit.route, "refused", terms.code)
        self._tell(refused, visit)
        response = refusal_response(refused, visit.rid, self._settings.thresholds_percent)
        if self.draining:
            response.is_last = True  # its client should find another gateway
        return response

    def _tell(self, refused: Refused, visit: Visit) -> None:
        terms, quota = refused.case.value, refused.quota
        is_ours = terms.source == "gateway"
        facts = Facts(
            request=visit.rid,
            client_request=visit.client_id,
            user=refused.user_id,
            tier=refused.tier,
            model=refused.model,
            route=visit.route,
            decision="refused" if is_ours else None,
            reason=terms.code,
            status=terms.status,
            tokens=quota.needed_tokens if quota else None,
            ms=round((self._clock.monotonic_s() - visit.received_s) * 1000, 1),
        )
        tell_refused("refused" if is_ours else "upstream gave no answer", facts)
