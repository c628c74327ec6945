"""What is sold: tiers and packs, as the configuration states them.

Frozen values without behaviour beyond a lookup. Amounts are tokens, money is Decimal GBP. Whoever
builds them has checked them: every name that is referred to exists and every number is in range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class PackOffer:
    """A top-up as it is offered: so many tokens, for so much, valid for so many days."""

    tokens: int
    price_gbp: Decimal
    valid_days: int


@dataclass(frozen=True, slots=True)
class ModelNames:
    """Entries that may be called: by their names, and all that begin like one of these."""

    names: frozenset[str]
    beginnings: tuple[str, ...]

    def allows(self, model: str) -> bool:
        """Whether the entry named `model` is one of them."""
        return model in self.names or model.startswith(self.beginnings)


@lru_cache(1024)
def model_names(models: tuple[str, ...]) -> ModelNames:
    """What names stand for, of which those that end in `*` are patterns."""
    patterns = [name for name in models if name.endswith("*")]
    return ModelNames(frozenset(models), tuple([name[:-1] for name in patterns]))


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier. `tokens` is the allowance of a period; `models` are names of entries, or patterns
    that end in `*` and stand for all entries whose names begin so.

    The other limits, None where there is none: of whoever calls, requests and tokens a minute and
    calls at once; of the payer, `nano_gbp` a period; `tier_tokens` of all payers together, in a
    period of the plan's calendar. A `shadow` tier lets everything through and tells what it would
    have refused.
    """

    name: str
    tokens: int
    upgrade: str | None
    shadow: bool
    packs: PackOffer | None
    models: tuple[str, ...]
    requests_a_minute: int | None = None
    tokens_a_minute: int | None = None
    concurrent: int | None = None
    nano_gbp: int | None = None
    tier_tokens: int | None = None

    @property
    def allowed(self) -> ModelNames:
        """The entries that its users may call, unless they have a list of their own."""
        return model_names(self.models)

    def allows(self, model: str) -> bool:
        """Whether a user of this tier may call the entry named `model`."""
        return self.allowed.allows(model)


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
