"""The plan and the jobs, as this gateway has them: what is sold, at what cost, and what runs.

Read only: the plan is the configuration's, and a reload that changes it resets nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import msgspec

from gateway.core.plan import Plan, Tier
from gateway.core.pricing import Price, PriceTable
from gateway.web.admin.route import Asked, Gives, Route
from gateway.web.words import instant, pounds

Health: TypeAlias = Callable[[], Awaitable[Mapping[str, str]]]
"""Each job by name: ok, or its trouble."""


class PackView(msgspec.Struct, frozen=True, kw_only=True):
    """A pack as it is offered."""

    tokens: int
    price_gbp: str
    valid_days: int


class LimitsView(msgspec.Struct, frozen=True, kw_only=True):
    """What binds a tier's users besides its tokens, named as in the configuration."""

    rpm: int | None
    tpm: int | None
    concurrent: int | None
    gbp: str | None
    tier_tokens: int | None
    models: list[str]


class TierView(msgspec.Struct, frozen=True, kw_only=True):
    """A tier; `packs` null: none may be bought."""

    tier: str
    tokens: int
    upgrade: str | None
    shadow: bool
    limits: LimitsView
    packs: PackView | None


class PriceView(msgspec.Struct, frozen=True, kw_only=True):
    """What a million tokens of a model cost, on the ordinary line."""

    model: str
    input_gbp: str
    cached_gbp: str
    output_gbp: str


class PriceListView(msgspec.Struct, frozen=True, kw_only=True):
    """A price list, and from when on it holds."""

    id: str
    starts_at: str
    per_million: list[PriceView]


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """What is sold. Day and zone are of users who have none of their own."""

    default_tier: str
    billing_day: int
    zone: str
    thresholds_percent: list[int]
    tiers: list[TierView]
    prices: list[PriceListView]


class JobsView(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs by name: ok, or what is wrong. `running` is false where the jobs of this gateway run
    elsewhere, or nowhere."""

    running: bool
    jobs: dict[str, str]


class Plans:
    """The routes of the plan and of the jobs."""

    def __init__(self, plan: Plan, prices: PriceTable, health: Health) -> None:
        self._plan = plan
        self._prices = prices
        self._health = health

    def routes(self) -> tuple[Route, ...]:
        """As they stand in the table."""
        return (
            Route(
                "GET /admin/v1/plan", "read", "tiers, limits and prices",
                Gives(PlanView), self.show,
            ),
            Route("GET /admin/v1/jobs", "read", "how the jobs are", Gives(JobsView), self.jobs),
        )  # fmt: skip

    async def show(self, _: Asked) -> PlanView:
        """The plan."""
        plan = self._plan
        return PlanView(
            default_tier=plan.default_tier,
            billing_day=plan.anchor_day,
            zone=plan.zone,
            thresholds_percent=list(plan.thresholds_percent),
            tiers=[_tier(tier) for tier in plan.tiers.values()],
            prices=[
                PriceListView(
                    id=version.id,
                    starts_at=instant(version.from_ms),
                    per_million=[_price(model, line) for model, line in version.lines.items()],
                )
                for version in self._prices.versions
            ],
        )

    async def jobs(self, _: Asked) -> JobsView:
        """The jobs."""
        health = await self._health()
        return JobsView(running=bool(health), jobs=dict(health))


def _tier(tier: Tier) -> TierView:
    packs = None
    if tier.packs is not None:
        packs = PackView(
            tokens=tier.packs.tokens,
            price_gbp=f"{tier.packs.price_gbp:f}",
            valid_days=tier.packs.valid_days,
        )
    return TierView(
        tier=tier.name,
        tokens=tier.tokens,
        upgrade=tier.upgrade,
        shadow=tier.shadow,
        limits=LimitsView(
            rpm=tier.requests_a_minute,
            tpm=tier.tokens_a_minute,
            concurrent=tier.concurrent,
            gbp=None if tier.nano_gbp is None else pounds(tier.nano_gbp),
            tier_tokens=tier.tier_tokens,
            models=list(tier.models),
        ),
        packs=packs,
    )


def _price(model: str, line: Price) -> PriceView:
    return PriceView(
        model=model,
        input_gbp=pounds(line.input_nano_gbp),
        cached_gbp=pounds(line.cached_nano_gbp),
        output_gbp=pounds(line.output_nano_gbp),
    )
