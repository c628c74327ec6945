"""What is sold: tiers and packs, as the configuration states them.

Frozen values without behaviour beyond a lookup. Amounts are tokens, money is Decimal GBP. Whoever
builds them has checked them: every name that is referred to exists and every number is in range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal


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
    _names: frozenset[str] = field(init=False, repr=False, compare=False)
    _beginnings: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        patterns = [name for name in self.models if name.endswith("*")]
        object.__setattr__(self, "_names", frozenset(self.models))
        object.__setattr__(self, "_beginnings", tuple([name[:-1] for name in patterns]))

    def allows(self, model: str) -> bool:
        """Whether a user of this tier may call the entry named `model`."""
        return model in self._names or model.startswith(self._beginnings)


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
