"""The shape of the configuration file: every key, with its type and its default.

This is the one list of what may stand in the file; the reader, the JSON Schema and the test of
`docs/configuration.md` all work from it. Ranges are in `ranges`, rules that look at more than one
key in `checks`. A default that stands here needs no key in the file.
"""

from __future__ import annotations

from typing import Literal

from msgspec import field

from gateway.config import ranges
from gateway.config.identity_shape import Identity
from gateway.config.notify_shape import Notify
from gateway.config.section import Section as Section
from gateway.config.section import no_secret
from gateway.config.values import EMBEDDED, Secret, StoreUrl


# A factory, because msgspec writes every plain default into the JSON Schema, hidden or not.
def _embedded() -> StoreUrl:
    return StoreUrl(EMBEDDED)


class Listen(Section, frozen=True):
    """Where the three servers listen."""

    proxy: ranges.ListenAddress = "127.0.0.1:8790"
    ops: ranges.ListenAddress = "127.0.0.1:8791"
    admin: ranges.ListenAddress = "127.0.0.1:8792"
    body_mib_max: ranges.BodyMib = 16


class Clients(Section, frozen=True):
    """What clients of the proxy may take."""

    request_s: ranges.SomeSeconds = 60
    unread_s: ranges.SomeSeconds = 30
    connections_max: ranges.Connections = 10_000
    per_peer_max: ranges.Connections | None = None


class Cors(Section, frozen=True):
    """Origins that browsers may call from, and those that may frame the status page."""

    origins: tuple[ranges.Origin, ...] = ()
    frame_origins: tuple[ranges.Origin, ...] = ()


class Redis(Section, frozen=True):
    """Where the present is kept, and how the gateway behaves when it does not answer."""

    url: StoreUrl = field(default_factory=_embedded)
    client: Literal["plain", "fast"] = "fast"
    mode: Literal["bounded", "closed", "open"] = "bounded"
    deadline_ms: ranges.DeadlineMillis = 150
    outage_tokens: ranges.Allowance = 2000
    shards: ranges.Shards = 16


class Ledger(Section, frozen=True):
    """Where the record is kept, and how much of the outbox stays behind it for repair."""

    url: StoreUrl = field(default_factory=_embedded)
    retain_s: ranges.Seconds = 600
    retain_mib: ranges.RetainMib = 256


class Lease(Section, frozen=True):
    """How long a hold lives without a sign of life."""

    ms: ranges.LeaseMillis = 60_000
    grace_ms: ranges.Millis = 10_000
    heartbeat_ms: ranges.HeartbeatMillis = 10_000
    stream_max_s: ranges.SomeSeconds = 3600


class ClientGone(Section, frozen=True):
    """What happens to a stream whose client has left."""

    policy: Literal["drain"] = "drain"
    drain_s: ranges.Seconds = 30
    drains_max: ranges.Drains = 100


class Idempotency(Section, frozen=True):
    """Answers that are kept for calls that may be repeated."""

    keep_s: ranges.Seconds = 86_400
    answer_kib_max: ranges.AnswerKib = 256


class Upstream(Section, frozen=True):
    """One server that speaks OpenAI's protocol."""

    base_url: ranges.WebUrl
    api_key: Secret = field(default_factory=no_secret)
    auth: Literal["bearer", "api-key"] = "bearer"
    api_version: ranges.ApiVersion | None = None
    user_header: ranges.HeaderName | None = None
    stream_usage: bool = True
    output_cap: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    store: bool = True
    connect_s: ranges.SomeSeconds = 5
    idle_s: ranges.SomeSeconds = 120


class Weights(Section, frozen=True):
    """What special tokens count against the quota."""

    cached: ranges.Weight = 1.0
    reasoning: ranges.Weight = 1.0


class Model(Section, frozen=True):
    """One model that may be called."""

    upstream: ranges.Text
    tokenizer: Literal["o200k_base", "cl100k_base"]
    context_tokens: ranges.Amount
    output_tokens_max: ranges.Allowance
    output_tokens_default: ranges.Allowance
    output_tokens_min: ranges.Allowance = 16
    snapshots: bool = False
    upstream_model: ranges.Text | None = None
    until: ranges.Day | None = None
    weights: Weights = field(default_factory=Weights)
    audio: bool = False
    pictures: ranges.Pictures | None = None


class Rates(Section, frozen=True):
    """Prices, each for a million tokens."""

    input: ranges.Price
    cached: ranges.Price
    output: ranges.Price
    cache_write: ranges.Price | None = None
    audio_input: ranges.Price | None = None
    audio_output: ranges.Price | None = None


class LongRates(Rates, frozen=True, kw_only=True):
    """Prices of a whole request whose prompt is long."""

    above_tokens: ranges.Amount


class PriceLine(Rates, frozen=True):
    """Prices of one model."""

    long: LongRates | None = None
    service_tiers: dict[str, ranges.Times] | None = None


class PriceVersion(Section, frozen=True):
    """A price list with a date of beginning."""

    id: ranges.VersionId
    start: ranges.Moment = field(name="from")
    per_million: dict[str, PriceLine]


class Prices(Section, frozen=True):
    """All price lists, in one currency."""

    currency: ranges.Currency
    gbp_per_unit: ranges.Rate
    versions: tuple[PriceVersion, ...]


class Period(Section, frozen=True):
    """The period of users who have none of their own."""

    anchor_day: ranges.AnchorDay = 1
    zone: ranges.Text = "UTC"


class Limits(Section, frozen=True):
    """Limits of a tier besides its allowance."""

    rpm: ranges.Amount | None = None
    tpm: ranges.Amount | None = None
    concurrent: ranges.Amount | None = None
    gbp: ranges.Pounds | None = None
    models: tuple[ranges.Text, ...] = ("*",)
    tier_tokens: ranges.Amount | None = None


class Packs(Section, frozen=True):
    """The top-up offered to a tier."""

    tokens: ranges.Amount
    price_gbp: ranges.Pounds
    valid_days: ranges.ValidDays


class Tier(Section, frozen=True):
    """What a user of this tier is granted."""

    tokens: ranges.Allowance
    upgrade: ranges.Text | None = None
    shadow: bool = False
    packs: Packs | None = None
    limits: Limits = field(default_factory=Limits)


class Plan(Section, frozen=True, kw_only=True):
    """The tiers, and what holds for all of them."""

    default_tier: ranges.Text
    period: Period = field(default_factory=Period)
    thresholds_percent: tuple[ranges.Percent, ...] = (80, 95, 100)
    tiers: dict[str, Tier]


class Refusal(Section, frozen=True):
    """Where a refused user is sent."""

    upgrade_url: ranges.WebUrl | None = None
    topup_url: ranges.WebUrl | None = None


class Stripe(Section, frozen=True):
    """Payments for packs, collected by Stripe."""

    secret_key: Secret
    webhook_secret: Secret
    success_url: ranges.WebUrl
    cancel_url: ranges.WebUrl
    currency: Literal["gbp"] = "gbp"
    api_base: ranges.WebUrl | None = None


class Payments(Section, frozen=True):
    """Payment providers."""

    stripe: Stripe | None = None


class Log(Section, frozen=True):
    """The gateway's own log."""

    format: Literal["auto", "text", "json"] = "auto"
    decisions: Literal["none", "refused", "all"] = "refused"


class Canary(Section, frozen=True):
    """The gateway's own proof that it enforces."""

    every_s: ranges.SomeSeconds = 60


class File(Section, frozen=True, kw_only=True):
    """The whole file."""

    version: Literal[1]
    workers: ranges.Workers = 1
    shutdown_s: ranges.ShutdownSeconds = 30
    listen: Listen = field(default_factory=Listen)
    clients: Clients = field(default_factory=Clients)
    public_url: ranges.WebUrl = "http://127.0.0.1:8790"
    cors: Cors = field(default_factory=Cors)
    state_dir: ranges.Text = "./var"
    redis: Redis = field(default_factory=Redis)
    ledger: Ledger = field(default_factory=Ledger)
    lease: Lease = field(default_factory=Lease)
    client_gone: ClientGone = field(default_factory=ClientGone)
    idempotency: Idempotency = field(default_factory=Idempotency)
    upstreams: dict[str, Upstream]
    models: dict[str, Model]
    prices: Prices
    plan: Plan
    identity: Identity = field(default_factory=Identity)
    refusal: Refusal = field(default_factory=Refusal)
    notify: Notify = field(default_factory=Notify)
    payments: Payments = field(default_factory=Payments)
    canary: Canary | None = field(default_factory=Canary)
    log: Log = field(default_factory=Log)
