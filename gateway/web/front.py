"""What every request to the proxy port has around it, whichever part of the port answers.

Its id, the refusals that end it, what a browser may read, and the count of those under way: each
done once, here. The part is found by the beginning of the path. What a request means is decided
there, and a part never has to catch anything: it answers, or raises Refused.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


class _Serving:
    """What answers under one configuration, and how many requests it is answering."""

    __slots__ = ("_left", "_parts", "_rest", "in_flight", "settings")

    def __init__(self, parts: Mapping[str, Part], settings: FrontSettings) -> None:
        self._rest = parts[""]
        longest_first = sorted(parts.items(), key=lambda each: len(each[0]), reverse=True)
        self._parts = [(path, part) for path, part in longest_first if path]
        self.settings = settings
        self.in_flight = 0
        self._left: asyncio.Event | None = None

    def part_of(self, path: str) -> Part:
        for beginning, part in self._parts:
            if path.startswith(beginning):
                return part
        return self._rest

    def answered(self) -> None:
        """A request less."""
        self.in_flight -= 1
        if self._left is not None and not self.in_flight:
            self._left.set()
            self._left = None

    async def idle(self) -> None:
        """Returns once no request is being answered."""
        while self.in_flight:
            if self._left is None:
                self._left = asyncio.Event()
            await self._left.wait()


class Front:
    """The handler of the proxy port. `parts`: by the beginning of the path, '' for all others; of
    two that fit, the longer."""

    def __init__(
        self,
        parts: Mapping[str, Part],
        settings: FrontSettings,
        observers: tuple[Metrics, Clock],
    ) -> None:
        self._now = _Serving(parts, settings)
        self._before: set[_Serving] = set()
        self._metrics, self._clock = observers
        self._rids = Rids(os.urandom(8))
        self.draining = False

    def take(self, parts: Mapping[str, Part], settings: FrontSettings) -> Coroutine[Any, Any, None]:
        """Requests that come from now on are answered by these parts. What is returned is to be
        awaited: it ends when all that came before are answered."""
        before, self._now = self._now, _Serving(parts, settings)
        self._before.add(before)
        return self._end_of(before)

    async def _end_of(self, before: _Serving) -> None:
        await before.idle()
        self._before.discard(before)

    async def idle(self) -> None:
        """Returns once no request is being answered. For when no more shall come."""
        for serving in (self._now, *self._before):
            await serving.idle()

    async def handle(self, request: HttpRequest) -> Response:
        """Answer one request. Never raises but for a client that is gone."""
        serving = self._now
        serving.in_flight += 1
        try:
            response = await self._handle(request, serving)
            if isinstance(response, Whole):
                response.headers = answer_to(response.headers, request)
                response.headers += serving.settings.cors.headers(request)
            return response
        finally:
            serving.answered()

    async def _handle(self, request: HttpRequest, serving: _Serving) -> Response:
        received_s = self._clock.monotonic_s()
        rid = self._rids.next(self._clock.now_ms())
        visit = Visit(rid, received_s, client_id_of(request))
        try:
            if self.draining:
                raise Refused(Case.SHUTTING_DOWN, "This gateway is shutting down.", retry_after_s=1)
            if request.method == "OPTIONS":
                preflight = serving.settings.cors.preflight(request)
                if preflight is not None:
                    return preflight
            return await serving.part_of(request.raw_path).handle(request, visit)
        except Refused as refused:
            return self._refuse(refused, visit, serving.settings)
        except GONE:
            raise
        except Exception:
            facts = Facts(request=visit.rid, route=visit.route)
            _log.exception("a request failed", extra=beside(facts))
            failed = Refused(Case.INTERNAL_ERROR, "The gateway failed. Its log says how.")
            return self._refuse(failed, visit, serving.settings)

    def _refuse(self, refused: Refused, visit: Visit, settings: FrontSettings) -> Whole:
        terms = refused.case.value
        tier = refused.tier or _NO_TIER
        if terms.source == "gateway":
            self._metrics.decided(tier, visit.route, "refused", terms.code)
        self._tell(refused, visit)
        response = refusal_response(refused, visit.rid, settings.thresholds_percent)
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
