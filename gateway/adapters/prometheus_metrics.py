"""Every metric, declared once, under the prefix `quota_gateway_`.

Labels come from closed lists: a model that is not configured is `other`. The names, labels and
meanings are documented in `docs/metrics.md`; a test compares both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.registry import Collector

from gateway.adapters.tallies import Spreads, Tallies, Tally
from gateway.core.event import LedgerRow, UsageEvent
from gateway.ports.metrics import Decision, SpillTrouble

PREFIX = "quota_gateway_"
_NANO = 1e9
_ADDED_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
_FIRST_BYTE_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)
_CALL_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.15)
# Fine where an estimate should lie; a prompt of 100 tokens that is counted 2 too high is at 0.98.
_RATIO_BUCKETS = (
    0.25,
    0.5,
    0.75,
    0.9,
    0.95,
    0.98,
    0.99,
    0.999,
    1.001,
    1.01,
    1.02,
    1.05,
    1.1,
    1.5,
    2,
)


_Shown = TypeVar("_Shown", bound=Collector)
# Kinds of tokens of one settlement, in the order of `ProxyMetrics.charged`.
_TOKEN_KINDS = ("prompt", "cached", "output", "reasoning", "charged", "held", "overdraft")


class _Declare:
    """Makes a process's metrics in a registry of its own, all under one prefix."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, meaning: str, *labels: str) -> Tallies:
        return self._shown(Tallies(PREFIX + name, meaning, labels))

    def gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, meaning, labels, registry=self._registry)

    def histogram(self, name: str, meaning: str, label: str, bounds: Sequence[float]) -> Spreads:
        return self._shown(Spreads(PREFIX + name, meaning, label, bounds))

    def spill(self) -> tuple[Gauge, Tallies]:
        """What is on disk, and what could not be put or left there."""
        spilled = self.gauge("spill_bytes", "Settlements kept on disk until Redis confirms them")
        about = "Settlements not kept on disk, or not read back, and why"
        return spilled, self.counter("spill_failures", about, "why")

    def hold_endings(self) -> Tallies:
        """One metric for both processes: the proxy settles and releases, the sweeper expires."""
        return self.counter("hold_endings", "Holds ended, by how", "kind")

    def _shown(self, collector: _Shown) -> _Shown:
        self._registry.register(collector)
        return collector


class _Breaker:
    """Whether Redis is asked, and for how long it was not."""

    def __init__(self, declare: _Declare, mode: str, now_s: Callable[[], float]) -> None:
        self._gauge = declare.gauge(
            "redis_breaker_open", "1 while calls to Redis fail at once, because it does not answer"
        )
        self._seconds = declare.counter(
            "outage_seconds", "Seconds in which Redis was not asked, by what happened then", "mode"
        ).of(mode)
        self._now_s = now_s
        self._since_s: float | None = None

    def set(self, is_open: bool) -> None:
        self.count()
        self._gauge.set(is_open)
        self._since_s = self._now_s() if is_open else None

    def count(self) -> None:
        """Up to now: an outage must be seen growing, not only when it is over."""
        if self._since_s is not None:
            now_s = self._now_s()
            self._seconds.value += now_s - self._since_s
            self._since_s = now_s


class ProxyMetrics:
    """Fulfils ports.metrics.Metrics for one proxy process."""

    def __init__(
        self,
        models: Collection[str],
        mode: str = "closed",
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`mode`: what happens while Redis is away."""
        self._models = frozenset(models)
        self.registry = CollectorRegistry()
        declare = _Declare(self.registry)
        self._decisions = declare.counter(
            "decisions", "Decisions on calls, and why", "tier", "route", "decision", "reason"
        )
        self._tokens = declare.counter(
            "tokens",
            "Tokens settled: prompt, cached, output, reasoning (raw), charged, held, overdraft",
            "tier",
            "model",
            "kind",
        )
        self._cost = declare.counter("cost_gbp", "Cost settled, in GBP", "tier", "model")
        self._charged: dict[tuple[str, str], list[Tally]] = {}
        self._endings = declare.hold_endings()
        self._added = declare.histogram(
            "added_seconds", "What the gateway took beside the upstream", "phase", _ADDED_BUCKETS
        )
        self._first_byte = declare.histogram(
            "upstream_first_byte_seconds",
            "From sending a request upstream to the head of its answer",
            "model",
            _FIRST_BYTE_BUCKETS,
        )
        self._calls = declare.histogram(
            "redis_call_seconds", "Round trips to Redis, by script", "script", _CALL_BUCKETS
        )
        self._breaker = _Breaker(declare, mode, now_s)
        self._spilled, self._spill_failures = declare.spill()
        self._ratio = declare.histogram(
            "estimate_ratio",
            "Prompt tokens measured by those counted before: 1 is perfect, above 1 held too little",
            "model",
            _RATIO_BUCKETS,
        )
        self._hydrations = declare.counter(
            "hydrations", "Accounts brought back from the ledger, by result", "result"
        )
        self._unpriced = declare.counter("unpriced", "Calls booked at the default price").of()
        self.loop_lag = declare.gauge("loop_lag_seconds", "How late the event loop runs")

    def decided(self, tier: str, route: str, decision: Decision, reason: str) -> None:
        self._decisions.of(tier, route, decision, reason).value += 1

    def charged(self, event: UsageEvent, hold_tokens: int) -> None:
        of = (event.tier, self._label(event.model))
        tallies = self._charged.get(of)
        if tallies is None:
            tallies = self._charged[of] = self._charged_tallies(*of)
        prompt, cached, output, reasoning, charged, held, overdraft, cost = tallies
        prompt.value += event.prompt_tokens
        cached.value += event.cached_tokens
        output.value += event.output_tokens
        reasoning.value += event.reasoning_tokens
        charged.value += event.charged_tokens
        held.value += hold_tokens
        if event.charged_tokens > hold_tokens:
            overdraft.value += event.charged_tokens - hold_tokens
        cost.value += event.cost_nano_gbp / _NANO

    def _charged_tallies(self, tier: str, model: str) -> list[Tally]:
        tokens = [self._tokens.of(tier, model, kind) for kind in _TOKEN_KINDS]
        return [*tokens, self._cost.of(tier, model)]

    def prompt_measured(self, model: str, counted_tokens: int, measured_tokens: int) -> None:
        self._ratio.of(self._label(model)).observe(measured_tokens / counted_tokens)

    def hold_ended(self, kind: str) -> None:
        self._endings.of(kind).value += 1

    def added_seconds(self, phase: str, seconds: float) -> None:
        self._added.of(phase).observe(seconds)

    def first_byte_seconds(self, model: str, seconds: float) -> None:
        self._first_byte.of(self._label(model)).observe(seconds)

    def store_call(self, script: str, seconds: float) -> None:
        self._calls.of(script).observe(seconds)

    def breaker_open(self, is_open: bool) -> None:
        self._breaker.set(is_open)

    def spilled(self, file_bytes: int) -> None:
        self._spilled.set(file_bytes)

    def spill_failed(self, why: SpillTrouble) -> None:
        self._spill_failures.of(why).value += 1

    def hydrated(self, result: str) -> None:
        self._hydrations.of(result).value += 1

    def unpriced(self, model: str) -> None:
        self._unpriced.value += 1

    def render(self) -> bytes:
        """The text exposition of this process."""
        self._breaker.count()
        return generate_latest(self.registry)

    def _label(self, model: str) -> str:
        return model if model in self._models else "other"


class JobsMetrics:
    """Fulfils ports.metrics.JobsMetrics for the jobs process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        declare = _Declare(self.registry)
        self._rows = declare.counter("ledger_rows", "Rows booked", "kind", "quality")
        dead = declare.counter("ledger_dead", "Outbox entries that no row could be made of")
        self._dead = dead.of()
        self._lag = declare.gauge(
            "ledger_lag_seconds",
            "From settlement to commit in the ledger, oldest of the last batch",
        )
        self._outbox = declare.gauge(
            "outbox_events", "Events not booked yet, counted to 1,000", "shard"
        )
        self._age = declare.gauge(
            "outbox_age_seconds", "Age of the oldest event not booked yet", "shard"
        )
        self._open = declare.gauge("holds_open", "Holds that are open")
        self._endings = declare.hold_endings()
        self._used = declare.gauge(
            "tier_used_tokens", "Tokens used in the periods that run now", "tier"
        )
        self._epoch = declare.gauge("epoch", "The shard's epoch in the ledger", "shard")
        self._notifications = declare.counter(
            "notifications", "Deliveries that have ended, by how", "kind", "state"
        )

    def booked(self, rows: Sequence[LedgerRow]) -> None:
        for row in rows:
            self._rows.of(row.kind, row.event.quality).value += 1

    def dead(self, entries: int) -> None:
        self._dead.value += entries

    def lag_seconds(self, seconds: float) -> None:
        self._lag.set(seconds)

    def outbox(self, shard: int, events: int, age_s: float) -> None:
        self._outbox.labels(str(shard)).set(events)
        self._age.labels(str(shard)).set(age_s)

    def holds_open(self, holds: int) -> None:
        self._open.set(holds)

    def expired(self) -> None:
        self._endings.of("expired").value += 1

    def tier_used(self, tier: str, tokens: int) -> None:
        self._used.labels(tier).set(tokens)

    def epoch(self, shard: int, epoch: int) -> None:
        self._epoch.labels(str(shard)).set(epoch)

    def notified(self, kind: str, state: str) -> None:
        self._notifications.of(kind, state).value += 1

    def render(self) -> bytes:
        """The text exposition of this process."""
        return generate_latest(self.registry)
