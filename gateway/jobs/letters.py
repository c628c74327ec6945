"""From a delivery to the letter: figures as people read them, and the links that fit the tier.

Nothing is sent here and nothing is remembered. Dates are those of the payer's own zone. Words are
the carrier's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from gateway.core.plan import Plan
from gateway.flow.limits import Bindings
from gateway.ports.deliveries import Delivery
from gateway.ports.mail import Letter

_OF_PERIODS = frozenset({"crossing", "exhausted"})
# Whoever is told of more than this late has found out by then.
_NEWS_MS = 72 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class LetterTerms:
    """What letters are made of beside their delivery. `unsubscribe_url` is of a user and a kind."""

    plan: Plan
    upgrade_url: str | None
    topup_url: str | None
    unsubscribe_url: Callable[[str, str], str]


class Letters:
    """Makes letters."""

    def __init__(self, terms: LetterTerms) -> None:
        self._terms = terms
        self._bindings = Bindings(terms.plan)

    def is_stale(self, delivery: Delivery) -> bool:
        """Whether it is news no more: its period is over, its pack has ended, it is too old."""
        if delivery.kind in _OF_PERIODS:
            ends_ms = delivery.identity.calendar.period_at(delivery.period_ms).end_ms
        else:
            ends_ms = int(delivery.facts.get("ends_ms", delivery.now_ms + 1))
        return delivery.now_ms >= ends_ms or delivery.now_ms - delivery.at_ms > _NEWS_MS

    def of(self, delivery: Delivery) -> Letter:
        """The letter of this delivery."""
        user_id = delivery.identity.user_id
        seed = f"{delivery.notification_id}\n{delivery.at_ms}\n{delivery.kind}\n{delivery.address}"
        return Letter(
            address=delivery.address,
            kind=delivery.kind,
            key=hashlib.sha256(seed.encode()).hexdigest()[:32],
            figures=self._figures(delivery),
            ways_on=self._ways_on(delivery),
            unsubscribe_url=self._terms.unsubscribe_url(user_id, delivery.kind),
        )

    def _figures(self, delivery: Delivery) -> dict[str, str]:
        identity, facts = delivery.identity, delivery.facts
        used = int(facts.get("used_tokens", delivery.used_tokens))
        limit = int(facts.get("limit_tokens", self._limit(delivery)))
        figures = {
            "user": identity.user_id,
            "tier": identity.tier,
            "percent": str(delivery.threshold),
            "used": f"{used:,}",
            "limit": f"{limit:,}",
            "left": f"{max(0, limit - used) + delivery.pack_tokens:,}",
            "pack_left": f"{delivery.pack_tokens:,}",
            "pack_tokens": f"{int(facts.get('tokens', 0)):,}",
        }
        period = identity.calendar.period_at(delivery.period_ms)
        figures["reset"] = _day(period.end_ms, identity.calendar.zone)
        figures["pack_ends"] = _day(int(facts.get("ends_ms", 0)), identity.calendar.zone)
        return figures

    def _limit(self, delivery: Delivery) -> int:
        identity = delivery.identity
        if identity.tier not in self._terms.plan.tiers:
            return 0
        return self._bindings.of(identity, delivery.now_ms).limits.tokens

    def _ways_on(self, delivery: Delivery) -> tuple[tuple[str, str], ...]:
        """What a person of this tier may do about it; a member cannot raise its own ceiling."""
        tier = self._terms.plan.tiers.get(delivery.identity.tier)
        if tier is None or delivery.identity.member is not None:
            return ()
        ways = []
        if tier.upgrade and self._terms.upgrade_url:
            ways.append((f"Upgrade to {tier.upgrade}", self._terms.upgrade_url))
        if tier.packs and self._terms.topup_url:
            pack = f"{tier.packs.tokens:,} tokens for £{tier.packs.price_gbp}"
            ways.append((f"Buy {pack}", self._terms.topup_url))
        return tuple(ways)


def _day(at_ms: int, zone: str) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone))
    return f"{at:%-d %B %Y at %H:%M} ({zone})"
