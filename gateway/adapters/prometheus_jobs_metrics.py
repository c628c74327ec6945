"""The metrics of the jobs process: the ledger, the outbox, and who was told.

Labels come from closed lists. The names, labels and meanings are documented in `docs/metrics.md`; a
test compares both.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest

from gateway.adapters.metrics_declared import Declare
from gateway.core.event import LedgerRow
from gateway.core.notices import KINDS, OPERATORS_KINDS
from gateway.ports.deliveries import Ending, WayName
from gateway.ports.metrics import Waited


class JobsMetrics:
    """Fulfils ports.metrics.JobsMetrics for the jobs process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        declare = Declare(self.registry)
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
        self._caps = declare.gauge(
            "tier_cap_tokens", "What all users of a tier with a cap may use together", "tier"
        )
        self._waiting = declare.gauge("jobs_waiting", "Jobs that wait for a store", "store")
        self._waits: dict[str, Waited | None] = {}
        self._count_waiting()
        self._tiers: set[str] = set()  # of those that are shown
        self._epoch = declare.gauge("epoch", "The shard's epoch in the ledger", "shard")
        self._drift = declare.gauge(
            "drift_tokens", "Tokens by which Redis and the ledger differ, where that lasts"
        )
        self._notifications = declare.counter(
            "notifications", "Deliveries that have ended, by how", "kind", "state"
        )
        for kind in (*KINDS, *OPERATORS_KINDS):
            for state in get_args(Ending):
                self._notifications.of(kind, state)  # from 0, so that the first is an increase
        self._way_away = declare.gauge(
            "way_away", "How many servers of this way take nothing at present", "way"
        )
        self._away: dict[str, set[str]] = {way: set() for way in get_args(WayName)}
        for way in self._away:
            self._way_away.labels(way).set(0)

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

    def take(self, tiers: Collection[str]) -> None:
        """These are the tiers from now on: what is gone is not shown as it last was. Caps, and what
        is away, are told anew every few seconds."""
        self._caps.clear()
        for way, away in self._away.items():
            away.clear()
            self._way_away.labels(way).set(0)
        for gone in self._tiers - set(tiers):
            self._used.remove(gone)
        self._tiers &= set(tiers)

    def tier_used(self, tier: str, tokens: int) -> None:
        self._used.labels(tier).set(tokens)
        self._tiers.add(tier)

    def tier_cap(self, tier: str, tokens: int) -> None:
        self._caps.labels(tier).set(tokens)

    def waits(self, job: str, store: Waited | None) -> None:
        self._waits[job] = store
        self._count_waiting()

    def _count_waiting(self) -> None:
        for store in get_args(Waited):
            waiting = sum(each == store for each in self._waits.values())
            self._waiting.labels(store).set(waiting)

    def epoch(self, shard: int, epoch: int) -> None:
        self._epoch.labels(str(shard)).set(epoch)

    def drift(self, tokens: int) -> None:
        self._drift.set(tokens)

    def notified(self, kind: str, state: str) -> None:
        self._notifications.of(kind, state).value += 1

    def way_away(self, way: WayName, address: str, is_away: bool) -> None:
        away = self._away[way]
        (away.add if is_away else away.discard)(address)
        self._way_away.labels(way).set(len(away))

    def render(self) -> bytes:
        """The text exposition of this process."""
        return generate_latest(self.registry)
