"""What there is to say about a delivery, whichever way it goes: figures, links, whether it is news.

Nothing is sent here and nothing is remembered; how it reads is up to letters and webhooks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from gateway.core.plan import Plan
from gateway.flow.limits import Bindings
from gateway.ports.deliveries import Delivery

OF_PERIODS = frozenset({"crossing", "exhausted"})
# Whoever is told of more than this late has found out by then.
_NEWS_MS = 72 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class NewsTerms:
    """Where people go on from here."""

    plan: Plan
    public_url: str
    upgrade_url: str | None
    topup_url: str | None


@dataclass(frozen=True, slots=True)
class Link:
    """`to` is upgrade or topup; `what` says it to a person."""

    to: str
    what: str
    url: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Tokens: of the period, and of all packs that can be spent."""

    used: int
    limit: int
    packs: int

    @property
    def left(self) -> int:
        """What can still be spent."""
        return max(0, self.limit - self.used) + self.packs


def is_stale(delivery: Delivery) -> bool:
    """Whether it is news no more: its period is over, its pack has ended, it is too old."""
    if delivery.kind in OF_PERIODS:
        ends_ms = delivery.identity.calendar.period_at(delivery.period_ms).end_ms
    else:
        ends_ms = int(delivery.facts.get("ends_ms", delivery.now_ms + 1))
    return delivery.now_ms >= ends_ms or delivery.now_ms - delivery.at_ms > _NEWS_MS


def key_of(delivery: Delivery) -> str:
    """The same for each attempt of this delivery, and for no other one."""
    seed = f"{delivery.notification_id}\n{delivery.at_ms}\n{delivery.kind}\n{delivery.address}"
    return hashlib.sha256(seed.encode()).hexdigest()[:32]


class News:
    """Figures and links by the plan."""

    def __init__(self, terms: NewsTerms) -> None:
        self.terms = terms
        self._bindings = Bindings(terms.plan)

    def figures(self, delivery: Delivery) -> Figures:
        """Those of the moment it is about, where they were noted; else the ledger's of now."""
        facts = delivery.facts
        return Figures(
            int(facts.get("used_tokens", delivery.used_tokens)),
            int(facts.get("limit_tokens", self._limit(delivery))),
            delivery.pack_tokens,
        )

    def links(self, delivery: Delivery) -> tuple[Link, ...]:
        """What a person of this tier may do about it; a member cannot raise its own ceiling."""
        tier = self.terms.plan.tiers.get(delivery.identity.tier)
        if tier is None or delivery.identity.member is not None:
            return ()
        links = []
        if tier.upgrade and self.terms.upgrade_url:
            links.append(Link("upgrade", f"Upgrade to {tier.upgrade}", self.terms.upgrade_url))
        if tier.packs and self.terms.topup_url:
            pack = f"{tier.packs.tokens:,} tokens for £{tier.packs.price_gbp}"
            links.append(Link("topup", f"Buy {pack}", self.terms.topup_url))
        return tuple(links)

    def _limit(self, delivery: Delivery) -> int:
        identity = delivery.identity
        if identity.tier not in self.terms.plan.tiers:
            return 0
        return self._bindings.of(identity, delivery.now_ms).limits.tokens
