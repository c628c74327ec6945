"""What binds a call: its tier's limits, with what its payer and its sender have of their own.

It promises that a user's own limit goes before its team's, and that before the tier's; and that a
call of somebody who has none costs one look into a table. It refuses to know what is used.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
from msgspec import UNSET, UnsetType

from gateway.core.identity import Identity
from gateway.core.overrides import NO_OVERRIDES, Overrides
from gateway.core.period import Calendar, Period
from gateway.core.plan import ModelNames, Plan, Tier, model_names
from gateway.core.pricing import nano_of
from gateway.core.quota.reserve import Limits

_FOREVER = Period(0, 10**15)
_KEPT = 10_000  # combinations of limits; most users with limits of their own have the same few


class Binding(msgspec.Struct, frozen=True, gc=False):
    """The limits of a call that begins within `period`.

    `by_bytes`: its prompt may be held by its bytes, which is more than it needs. Not where what is
    held too much would keep out others for long (what it takes of a minute is not given back), out
    of a room that nobody here knows the size of (a member's, a budget, a tier's), or where a hold
    is made whatever the limits say, as nothing would be asked again.
    """

    limits: Limits
    by_bytes: bool
    period: Period


class Bindings:
    """The limits of every tier of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._calendar = Calendar(plan.anchor_day, plan.zone)
        self._of_tiers: dict[str, Binding] = {}
        self._own = lru_cache(_KEPT)(self._make)

    def of(self, identity: Identity, now_ms: int) -> Binding:
        """What binds this user's calls now. KeyError for a tier that the plan does not have."""
        tier = identity.tier
        if identity.limits is NO_OVERRIDES and identity.member_limits is NO_OVERRIDES:
            found = self._of_tiers.get(tier)
            if found is None or not found.period.start_ms <= now_ms < found.period.end_ms:
                found = self._make(tier, NO_OVERRIDES, NO_OVERRIDES, self._period(tier, now_ms))
                self._of_tiers[tier] = found
            return found
        own = identity.member_limits if identity.member is not None else NO_OVERRIDES
        return self._own(tier, identity.limits, own, self._period(tier, now_ms))

    def _period(self, tier: str, now_ms: int) -> Period:
        """The tier's own, where it is capped: the calendar month of the plan."""
        is_capped = self._plan.tiers[tier].tier_tokens is not None
        return self._calendar.period_at(now_ms) if is_capped else _FOREVER

    def _make(self, tier_name: str, payer: Overrides, member: Overrides, period: Period) -> Binding:
        tier = self._plan.tiers[tier_name]
        limits = Limits(
            tokens=tier.tokens if payer.tokens is UNSET else payer.tokens,
            member_tokens=_first(member.tokens, None),
            nano_gbp=tier.nano_gbp if payer.gbp is UNSET else nano_of(payer.gbp),
            requests_a_minute=_first(member.rpm, _first(payer.rpm, tier.requests_a_minute)),
            tokens_a_minute=_first(member.tpm, _first(payer.tpm, tier.tokens_a_minute)),
            concurrent=_first(member.concurrent, _first(payer.concurrent, tier.concurrent)),
            tier_period_start_ms=None if tier.tier_tokens is None else period.start_ms,
            shadow=tier.shadow,
        )
        unknown = (
            limits.tokens_a_minute, limits.member_tokens, limits.nano_gbp,
            limits.tier_period_start_ms,
        )  # fmt: skip
        by_bytes = not limits.shadow and all(each is None for each in unknown)
        return Binding(limits, by_bytes, period)


def models_of(tier: Tier, identity: Identity) -> ModelNames:
    """The models that this user may call."""
    for own in (identity.member_limits.models, identity.limits.models):
        if own is not UNSET:
            return model_names(own)
    return tier.allowed


def _first(own: int | UnsetType | None, otherwise: int | None) -> int | None:
    return otherwise if own is UNSET else own
