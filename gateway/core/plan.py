"""What is sold: tiers and packs, as the configuration states them.

Frozen values without behaviour beyond a lookup. Amounts are tokens, money is Decimal GBP. Whoever
builds them has checked them: every name that is referred to exists and every number is in range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from gateway.core.models import covers


@dataclass(frozen=True, slots=True)
class PackOffer:
    """A top-up as it is offered: so many tokens, for so much, valid for so many days."""

    tokens: int
    price_gbp: Decimal
    valid_days: int


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier. `tokens` is the allowance of a period; `models` are names of entries, or patterns
    that end in `*` and stand for all entries whose names begin so."""

    name: str
    tokens: int
    upgrade: str | None
    shadow: bool
    packs: PackOffer | None
    models: tuple[str, ...]

    def allows(self, model: str) -> bool:
        """Whether a user of this tier may call the entry named `model`."""
        return any(covers(allowed, model) for allowed in self.models)


@dataclass(frozen=True, slots=True)
class Plan:
    """All tiers, and the period and thresholds of whoever has none of their own.

    `anchor_day` (1-31) and `zone` (an IANA name) give the period; see `gateway.core.period`.
    """

    tiers: Mapping[str, Tier]
    default_tier: str
    anchor_day: int
    zone: str
    thresholds_percent: tuple[int, ...]
