"""What operators see: every decision, every token, every call to a store.

Labels come from closed lists (tiers, routes, reasons, models of the configuration), never from a
request, so the number of series is bounded by the configuration. Tokens, seconds and nano-GBP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from gateway.core.event import LedgerRow, UsageEvent
from gateway.ports.deliveries import WayName

Decision = Literal["admitted", "refused", "outage", "shadow-refused"]
SpillTrouble = Literal["full", "disk", "damaged"]
Waited = Literal["redis", "ledger"]


class Metrics(Protocol):
    """The proxy's counters. Nothing here awaits or fails."""

    def decided(self, tier: str, route: str, decision: Decision, reason: str) -> None: ...

    def charged(self, event: UsageEvent, hold_tokens: int) -> None:
        """A hold was settled: tokens by kind, and cost."""
        ...

    def prompt_measured(self, model: str, counted_tokens: int, measured_tokens: int) -> None:
        """Upstream reported a prompt that had been counted, not only bounded by its bytes."""
        ...

    def hold_ended(self, kind: str) -> None:
        """settled, corrected, late, released, nothing_open, rejected; the sweeper: expired."""
        ...

    def added_seconds(self, phase: str, seconds: float) -> None:
        """What the gateway itself added before (`before`) and after (`after`) the upstream."""
        ...

    def first_byte_seconds(self, model: str, seconds: float) -> None: ...

    def store_call(self, script: str, seconds: float) -> None: ...

    def breaker_open(self, is_open: bool) -> None:
        """Calls to the store fail at once from now on, because it does not answer; or no more."""
        ...

    def spilled(self, file_bytes: int) -> None:
        """So large are the spill files of this process now."""
        ...

    def spill_failed(self, why: SpillTrouble) -> None:
        """A settlement is not kept on disk, or was, and cannot be read any more."""
        ...

    def hydrated(self, result: str) -> None: ...

    def unpriced(self, model: str) -> None:
        """A call was booked at the default price."""
        ...


class JobsMetrics(Protocol):
    """The jobs' gauges and counters."""

    def booked(self, rows: Sequence[LedgerRow]) -> None: ...

    def dead(self, entries: int) -> None: ...

    def lag_seconds(self, seconds: float) -> None:
        """From an event's settlement to its commit in the ledger."""
        ...

    def outbox(self, shard: int, events: int, age_s: float) -> None:
        """Events of a shard that the ledger has not booked, and the age of the oldest."""
        ...

    def holds_open(self, holds: int) -> None: ...

    def expired(self) -> None:
        """The sweeper ended a hold."""
        ...

    def tier_used(self, tier: str, tokens: int) -> None: ...

    def tier_cap(self, tier: str, tokens: int) -> None:
        """What all users of the tier may use together."""
        ...

    def waits(self, job: str, store: Waited | None) -> None:
        """A job cannot go on before this store answers; None: it goes on."""
        ...

    def epoch(self, shard: int, epoch: int) -> None: ...

    def drift(self, tokens: int) -> None:
        """By how many tokens Redis and the ledger differ, over the accounts known to do so."""
        ...

    def notified(self, kind: str, state: str) -> None:
        """A delivery has ended: sent, dead or dropped."""
        ...

    def way_away(self, way: WayName, address: str, is_away: bool) -> None:
        """Whether nothing can be sent this way at present; hooks have an address each."""
        ...
