"""A user as operators are shown it, and what a change does to it now and in the next period.

The command line prints what is made here, so both say the same. Names and units are part of the
interface: scripts read them.
"""

from __future__ import annotations

import msgspec

from gateway.core.identity import Identity
from gateway.core.overrides import Overrides
from gateway.core.plan import Plan
from gateway.core.quota.entitle import Snapshot
from gateway.ports.listings import PersonRow
from gateway.web.words import instant, pounds


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """A user or team in a list. `team` is whose allowance it spends, null for its own; `limits` is
    what it has instead of its tier's, or, in a team, its ceilings there."""

    user: str
    team: str | None
    tier: str
    email: str | None
    state: str
    limits: Overrides
    created_at: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How an account stands, in tokens; `reset_at` is when its period ends."""

    tier: str
    limit_tokens: int
    used_tokens: int
    pack_tokens: int
    remaining_tokens: int
    reset_at: str


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """A user, or a team, at this moment. Figures, tier and period are of the account it spends
    from: its own, or its team's; `limits` are the user's own, in a team its ceilings there."""

    user: str
    team: str | None
    tier: str
    state: str
    email: str | None
    limit_tokens: int
    used_tokens: int
    pack_tokens: int
    remaining_tokens: int
    held_tokens: int
    open_holds: int
    adjusted_tokens: int
    cost_gbp: str
    period_start: str
    reset_at: str
    billing_day: int
    zone: str
    limits: Overrides
    block_reason: str | None

    @property
    def standing(self) -> Standing:
        """What a change may move."""
        return Standing(
            tier=self.tier,
            limit_tokens=self.limit_tokens,
            used_tokens=self.used_tokens,
            pack_tokens=self.pack_tokens,
            remaining_tokens=self.remaining_tokens,
            reset_at=self.reset_at,
        )


class Change(UserView, frozen=True, kw_only=True):
    """A user after a change, with how it stood before; `now` and `next_period` say in words what
    the change does to the running period and to the one after it."""

    before: Standing
    now: str
    next_period: str


def person_view(row: PersonRow) -> Person:
    """One row of a list."""
    return Person(
        user=row.user_id,
        team=None if row.payer == row.user_id else row.payer,
        tier=row.tier,
        email=row.email,
        state=row.state,
        limits=msgspec.json.decode(row.limits_json, type=Overrides),
        created_at=instant(row.created_ms),
    )


def user_view(
    person: PersonRow, identity: Identity, snapshot: Snapshot, plan: Plan, now_ms: int
) -> UserView:
    """All of a user. `now_ms` says which packs live."""
    limit_tokens = allowance_tokens(identity, plan)
    pack_tokens = sum(pack.tokens for pack in snapshot.packs if pack.ends_ms > now_ms)
    listed = person_view(person)
    return UserView(
        user=identity.user_id,
        team=listed.team,
        tier=identity.tier,
        state=person.state,
        email=person.email,
        limit_tokens=limit_tokens,
        used_tokens=max(0, snapshot.used_tokens),
        pack_tokens=pack_tokens,
        remaining_tokens=max(0, limit_tokens - snapshot.used_tokens) + pack_tokens,
        held_tokens=snapshot.held_tokens,
        open_holds=snapshot.open_holds,
        adjusted_tokens=snapshot.adjusted_tokens,
        cost_gbp=pounds(snapshot.cost_nano_gbp),
        period_start=instant(snapshot.period_start_ms),
        reset_at=instant(snapshot.period_end_ms),
        billing_day=identity.calendar.anchor_day,
        zone=identity.calendar.zone,
        limits=listed.limits,
        block_reason=person.block_reason,
    )


def allowance_tokens(identity: Identity, plan: Plan) -> int:
    """What the payer may use in a period: its own figure, or its tier's. A tier that the plan has
    lost allows nothing."""
    own = identity.limits.tokens
    if isinstance(own, int):
        return own
    tier = plan.tiers.get(identity.tier)
    return tier.tokens if tier else 0


def changed(before: UserView, after: UserView, now: str = "") -> Change:
    """A change, told. `now` is what it does at once, where that is not about the allowance."""
    fields = {name: getattr(after, name) for name in UserView.__struct_fields__}
    return Change(
        **fields,
        before=before.standing,
        now=now or _now(before, after),
        next_period=f"A new period begins at {after.reset_at}, with {after.limit_tokens:,} tokens.",
    )


def _now(before: UserView, after: UserView) -> str:
    left = f"the {after.used_tokens:,} used stay used, so {after.remaining_tokens:,} are left"
    if before.limit_tokens == after.limit_tokens and before.tier == after.tier:
        return f"In this period {after.limit_tokens:,} tokens are allowed, as before; {left}."
    return (
        f"From the next call on this period allows {after.limit_tokens:,} tokens (tier "
        f"'{after.tier}') instead of {before.limit_tokens:,} (tier '{before.tier}'); {left}."
    )
