"""By mail: from a delivery to the letter, with figures as people read them.

Dates are those of the payer's own zone. Words are the carrier's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

from gateway.core.notices import KINDS
from gateway.jobs.news import News, key_of
from gateway.ports.deliveries import Delivery, Way
from gateway.ports.mail import Letter, Mail


class Letters:
    """Makes letters. `unsubscribe_url` is of a user and a kind."""

    def __init__(self, news: News, unsubscribe_url: Callable[[str, str], str]) -> None:
        self._news = news
        self._unsubscribe_url = unsubscribe_url

    def of(self, delivery: Delivery) -> Letter:
        """The letter of this delivery."""
        return Letter(
            address=delivery.address,
            kind=delivery.kind,
            key=key_of(delivery),
            figures=self._figures(delivery),
            ways_on=tuple((link.what, link.url) for link in self._news.links(delivery)),
            unsubscribe_url=self._unsubscribe_url(delivery.identity.user_id, delivery.kind),
        )

    def _figures(self, delivery: Delivery) -> dict[str, str]:
        identity, facts = delivery.identity, delivery.facts
        figures, zone = self._news.figures(delivery), identity.calendar.zone
        period = identity.calendar.period_at(delivery.period_ms)
        return {
            "user": identity.user_id,
            "tier": identity.tier,
            "percent": str(delivery.threshold),
            "used": f"{figures.used:,}",
            "limit": f"{figures.limit:,}",
            "left": f"{figures.left:,}",
            "pack_left": f"{figures.packs:,}",
            "pack_tokens": f"{int(facts.get('tokens', 0)):,}",
            "reset": _day(period.end_ms, zone),
            "pack_ends": _day(int(facts.get("ends_ms", 0)), zone),
        }


class ByMail:
    """Fulfils jobs.send.Carrier: each to the address of its reader."""

    way = Way("mail", "", KINDS)

    def __init__(self, mail: Mail, letters: Letters) -> None:
        self._mail = mail
        self._letters = letters

    async def send(self, delivery: Delivery) -> None:
        await self._mail.send(self._letters.of(delivery))

    async def rest(self) -> None:
        await self._mail.rest()


def _day(at_ms: int, zone: str) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone))
    return f"{at:%-d %B %Y at %H:%M} ({zone})"
