"""The configuration as the rest of the gateway sees it: checked, frozen, in the words of core.

Sections that are plain settings stay as `shape` has them; plan, models and prices become the values
of `gateway.core`. Secrets stay wrapped until whoever needs one calls `reveal()`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from msgspec import structs

from gateway.config import shape
from gateway.config.identity_shape import Identity
from gateway.config.notify_shape import Notify
from gateway.config.values import Address, parse_address
from gateway.core.models import PER_MILLE, Model, Weights
from gateway.core.plan import PackOffer, Plan, Tier
from gateway.core.pricing import DEFAULT_LINE, Price, PriceTable, PriceVersion, nano_gbp, nano_of
from gateway.core.prompt.pictures import PICTURE_RULES, FlatRule, PictureRule

_BYTES_PER_MIB = 1 << 20
_VERSION_CHARS = 12


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the three servers listen, and how large a body may be."""

    proxy: Address
    ops: Address
    admin: Address
    body_bytes_max: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the file says. `file` is its checked form, for listing; `text` the file
    itself, for other processes."""

    workers: int
    shutdown_s: int
    listen: Listen
    clients: shape.Clients
    public_url: str
    cors_origins: frozenset[str]
    frame_origins: frozenset[str]
    state_dir: Path
    redis: shape.Redis
    ledger: shape.Ledger
    lease: shape.Lease
    client_gone: shape.ClientGone
    idempotency: shape.Idempotency
    upstreams: Mapping[str, shape.Upstream]
    models: Mapping[str, Model]
    prices: PriceTable
    plan: Plan
    identity: Identity
    refusal: shape.Refusal
    stripe: shape.Stripe | None
    notify: Notify
    canary: shape.Canary | None
    log: shape.Log
    file: shape.File = field(repr=False)
    text: str = field(default="", repr=False)
    path: Path = Path()

    @property
    def version(self) -> str:
        """By which two processes see whether they have the same file: of its text, not of what the
        environment puts in."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:_VERSION_CHARS]


def settings_of(file: shape.File) -> Settings:
    """The settings of a file in which every check has passed."""
    return Settings(
        workers=file.workers,
        shutdown_s=file.shutdown_s,
        listen=_listen(file.listen),
        clients=file.clients,
        public_url=file.public_url.rstrip("/"),
        cors_origins=frozenset(file.cors.origins),
        frame_origins=frozenset(file.cors.frame_origins),
        state_dir=Path(file.state_dir),
        redis=file.redis,
        ledger=file.ledger,
        lease=file.lease,
        client_gone=file.client_gone,
        idempotency=file.idempotency,
        upstreams={name: _upstream(upstream) for name, upstream in file.upstreams.items()},
        models={name: _model(name, model) for name, model in file.models.items()},
        prices=_prices(file.prices),
        plan=_plan(file.plan),
        identity=file.identity,
        refusal=file.refusal,
        stripe=file.payments.stripe,
        notify=file.notify,
        canary=file.canary,
        log=file.log,
        file=file,
    )


def _listen(listen: shape.Listen) -> Listen:
    return Listen(
        proxy=parse_address(listen.proxy),
        ops=parse_address(listen.ops),
        admin=parse_address(listen.admin),
        body_bytes_max=listen.body_mib_max * _BYTES_PER_MIB,
    )


def _upstream(upstream: shape.Upstream) -> shape.Upstream:
    """Without the slash at the end that a copied URL may have: paths are put behind it."""
    return structs.replace(upstream, base_url=upstream.base_url.rstrip("/"))


def _model(name: str, model: shape.Model) -> Model:
    return Model(
        name=name,
        upstream=model.upstream,
        tokenizer=model.tokenizer,
        context_tokens=model.context_tokens,
        output_tokens_max=model.output_tokens_max,
        output_tokens_default=model.output_tokens_default,
        output_tokens_min=model.output_tokens_min,
        weights=Weights(
            cached_per_mille=round(model.weights.cached * PER_MILLE),
            reasoning_per_mille=round(model.weights.reasoning * PER_MILLE),
        ),
        upstream_model=model.upstream_model,
        snapshots=model.snapshots,
        takes_audio=model.audio,
        pictures=_pictures(model.pictures),
    )


def _pictures(stated: int | str | None) -> PictureRule | None:
    if isinstance(stated, int):
        return FlatRule(stated)
    return None if stated is None else PICTURE_RULES[stated]


def _prices(prices: shape.Prices) -> PriceTable:
    rate = Decimal(prices.gbp_per_unit)
    versions = [
        PriceVersion(
            id=version.id,
            from_ms=round(version.start.timestamp() * 1000),
            lines={
                name: _price(version.id, name, line, rate)
                for name, line in version.per_million.items()
            },
        )
        for version in prices.versions
    ]
    return PriceTable(tuple(sorted(versions, key=lambda version: version.from_ms)))


def _price(version_id: str, name: str, line: shape.PriceLine, rate: Decimal) -> Price:
    """A line with those of its service tiers, which are multiples of it."""
    times = line.service_tiers or {}
    return replace(
        _line(version_id, line, rate),
        is_default=name == DEFAULT_LINE,
        tiers={tier: _line(version_id, line, rate * Decimal(by)) for tier, by in times.items()},
    )


def _line(version_id: str, line: shape.PriceLine, rate: Decimal) -> Price:
    price, long = _rates(version_id, line, rate), line.long
    if long is None:
        return price
    return replace(price, long=_rates(version_id, long, rate), long_above_tokens=long.above_tokens)


def _rates(version_id: str, rates: shape.Rates, rate: Decimal) -> Price:
    def nano(amount: str | None) -> int | None:
        return None if amount is None else nano_gbp(Decimal(amount), rate)

    return Price(
        id=version_id,
        input_nano_gbp=nano_gbp(Decimal(rates.input), rate),
        cached_nano_gbp=nano_gbp(Decimal(rates.cached), rate),
        output_nano_gbp=nano_gbp(Decimal(rates.output), rate),
        cache_write_nano_gbp=nano(rates.cache_write),
        audio_input_nano_gbp=nano(rates.audio_input),
        audio_output_nano_gbp=nano(rates.audio_output),
    )


def _plan(plan: shape.Plan) -> Plan:
    return Plan(
        tiers={name: _tier(name, tier) for name, tier in plan.tiers.items()},
        default_tier=plan.default_tier,
        anchor_day=plan.period.anchor_day,
        zone=plan.period.zone,
        thresholds_percent=plan.thresholds_percent,
    )


def _tier(name: str, tier: shape.Tier) -> Tier:
    return Tier(
        name=name,
        tokens=tier.tokens,
        upgrade=tier.upgrade,
        shadow=tier.shadow,
        packs=_offer(tier.packs) if tier.packs is not None else None,
        models=tier.limits.models,
        requests_a_minute=tier.limits.rpm,
        tokens_a_minute=tier.limits.tpm,
        concurrent=tier.limits.concurrent,
        nano_gbp=nano_of(tier.limits.gbp),
        tier_tokens=tier.limits.tier_tokens,
    )


def _offer(packs: shape.Packs) -> PackOffer:
    return PackOffer(
        tokens=packs.tokens, price_gbp=Decimal(packs.price_gbp), valid_days=packs.valid_days
    )
