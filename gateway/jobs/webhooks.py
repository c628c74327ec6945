"""By webhook: each notification of a user as JSON, signed, for the application's own server.

The same notification has the same id whenever it is sent again, so a receiver that keeps ids acts
once. Figures are numbers and instants are UTC: how it reads is up to the application.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from gateway.core.webhook_signature import signed_headers
from gateway.jobs.news import OF_PERIODS, News, key_of
from gateway.ports.clock import Clock
from gateway.ports.deliveries import Delivery, Way
from gateway.ports.hook import Hook

_encode = msgspec.json.Encoder().encode


class PeriodTold(msgspec.Struct, frozen=True):
    """From `start` up to `end`."""

    start: datetime
    end: datetime


class FactsTold(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens. `pack_…`: of the pack that it is about; `packs_left_tokens`: of all."""

    used_tokens: int
    limit_tokens: int
    left_tokens: int
    packs_left_tokens: int
    threshold_percent: int | None = None
    pack_tokens: int | None = None
    pack_left_tokens: int | None = None
    pack_ends_at: datetime | None = None


class LinksTold(msgspec.Struct, frozen=True):
    """Where a person goes on; null where the tier has no such way."""

    status: str
    upgrade: str | None = None
    topup: str | None = None


class EventTold(msgspec.Struct, frozen=True):
    """The body. `period` is null where it is about a pack."""

    id: str
    kind: str
    at: datetime
    user: str
    payer: str
    tier: str
    period: PeriodTold | None
    facts: FactsTold
    links: LinksTold


class ByWebhook:
    """Fulfils jobs.send.Carrier for one address."""

    def __init__(
        self, hook: Hook, key: bytes, kinds: tuple[str, ...], news: News, clock: Clock
    ) -> None:
        self.way = Way("webhook", hook.name, kinds)
        self._hook = hook
        self._key = key
        self._news = news
        self._clock = clock

    async def send(self, delivery: Delivery) -> None:
        told = self.event(delivery)
        body, at_s = _encode(told), self._clock.now_ms() // 1000
        headers = {"content-type": "application/json"}
        await self._hook.post(headers | signed_headers(self._key, told.id, at_s, body), body)

    async def rest(self) -> None:
        await self._hook.rest()

    def event(self, delivery: Delivery) -> EventTold:
        """What the application is told."""
        identity, period = delivery.identity, None
        if delivery.kind in OF_PERIODS:
            of_period = identity.calendar.period_at(delivery.period_ms)
            period = PeriodTold(_utc(of_period.start_ms), _utc(of_period.end_ms))
        urls = {link.to: link.url for link in self._news.links(delivery)}
        return EventTold(
            id=key_of(delivery),
            kind=delivery.kind,
            at=_utc(delivery.at_ms),
            user=identity.user_id,
            payer=identity.payer,
            tier=identity.tier,
            period=period,
            facts=self._facts(delivery),
            links=LinksTold(f"{self._news.terms.public_url}/quota/", **urls),
        )

    def _facts(self, delivery: Delivery) -> FactsTold:
        figures, facts = self._news.figures(delivery), delivery.facts
        is_of_pack = "ends_ms" in facts
        return FactsTold(
            used_tokens=figures.used,
            limit_tokens=figures.limit,
            left_tokens=figures.left,
            packs_left_tokens=figures.packs,
            threshold_percent=delivery.threshold or None,
            pack_tokens=int(facts["tokens"]) if is_of_pack else None,
            pack_left_tokens=int(facts["left_tokens"]) if is_of_pack else None,
            pack_ends_at=_utc(int(facts["ends_ms"])) if is_of_pack else None,
        )


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
