"""The metrics of a proxy process; those of the jobs are in `prometheus_jobs_metrics`.

Labels come from closed lists: a model that is not configured is `other`. The names, labels and
meanings are documented in `docs/metrics.md`; a test compares both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from prometheus_client import CollectorRegistry, generate_latest

from gateway.adapters.metrics_declared import Declare
from gateway.adapters.tallies import Tally
from gateway.core.event import UsageEvent
from gateway.ports.metrics import Decision, SpillTrouble

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


# Kinds of tokens of one settlement, in the order of `ProxyMetrics.charged`.
_TOKEN_KINDS = ("prompt", "cached", "output", "reasoning", "charged", "held", "overdraft")


class _Breaker:
    """Whether Redis is asked, and for how long it was not."""

    def __init__(self, declare: Declare, mode: str, now_s: Callable[[], float]) -> None:
        self._gauge = declare.gauge(
            "redis_breaker_open", "1 while calls to Redis fail at once, because it does not answer"
        )
        self._by_mode = declare.counter(
            "outage_seconds", "Seconds in which Redis was not asked, by what happened then", "mode"
        )
        self._seconds = self._by_mode.of(mode)
        self._now_s = now_s
        self._since_s: float | None = None

    def take(self, mode: str) -> None:
        self.count()
        self._seconds = self._by_mode.of(mode)

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
        declare = Declare(self.registry)
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

    def take(self, models: Collection[str], mode: str) -> None:
        """Label by these models and this mode from now on; what was counted stays."""
        self._models = frozenset(models)
        self._breaker.take(mode)

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
