"""Metrics that remember what they were told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.core.event import LedgerRow, UsageEvent
from gateway.ports.deliveries import WayName
from gateway.ports.metrics import Decision, SpillTrouble, Waited


class SeenMetrics:
    """Fulfils ports.metrics.Metrics and .JobsMetrics."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def of(self, name: str) -> list[Any]:
        """What came under that name: the value alone where there is one, else a tuple."""
        found = [entry[1:] for entry in self.seen if entry[0] == name]
        return [values[0] if len(values) == 1 else values for values in found]

    def decided(self, tier: str, route: str, decision: Decision, reason: str) -> None:
        self.seen.append(("decided", tier, route, decision, reason))

    def charged(self, event: UsageEvent, hold_tokens: int) -> None:
        self.seen.append(("charged", event, hold_tokens))

    def prompt_measured(self, model: str, counted_tokens: int, measured_tokens: int) -> None:
        self.seen.append(("prompt_measured", model, counted_tokens, measured_tokens))

    def hold_ended(self, kind: str) -> None:
        self.seen.append(("hold_ended", kind))

    def added_seconds(self, phase: str, seconds: float) -> None:
        self.seen.append(("added_seconds", phase, seconds))

    def first_byte_seconds(self, model: str, seconds: float) -> None:
        self.seen.append(("first_byte_seconds", model, seconds))

    def store_call(self, script: str, seconds: float) -> None:
        self.seen.append(("store_call", script, seconds))

    def breaker_open(self, is_open: bool) -> None:
        self.seen.append(("breaker_open", is_open))

    def spilled(self, file_bytes: int) -> None:
        self.seen.append(("spilled", file_bytes))

    def spill_failed(self, why: SpillTrouble) -> None:
        self.seen.append(("spill_failed", why))

    def hydrated(self, result: str) -> None:
        self.seen.append(("hydrated", result))

    def unpriced(self, model: str) -> None:
        self.seen.append(("unpriced", model))

    def booked(self, rows: Sequence[LedgerRow]) -> None:
        self.seen += [("booked", row) for row in rows]

    def dead(self, entries: int) -> None:
        self.seen.append(("dead", entries))

    def lag_seconds(self, seconds: float) -> None:
        self.seen.append(("lag_seconds", seconds))

    def outbox(self, shard: int, events: int, age_s: float) -> None:
        self.seen.append(("outbox", shard, events, age_s))

    def holds_open(self, holds: int) -> None:
        self.seen.append(("holds_open", holds))

    def expired(self) -> None:
        self.seen.append(("expired", "expired"))

    def tier_used(self, tier: str, tokens: int) -> None:
        self.seen.append(("tier_used", tier, tokens))

    def tier_cap(self, tier: str, tokens: int) -> None:
        self.seen.append(("tier_cap", tier, tokens))

    def waits(self, job: str, store: Waited | None) -> None:
        self.seen.append(("waits", job, store))

    def epoch(self, shard: int, epoch: int) -> None:
        self.seen.append(("epoch", shard, epoch))

    def drift(self, tokens: int) -> None:
        self.seen.append(("drift", tokens))

    def notified(self, kind: str, state: str) -> None:
        self.seen.append(("notified", kind, state))

    def way_away(self, way: WayName, address: str, is_away: bool) -> None:
        self.seen.append(("way_away", way, address, is_away))
