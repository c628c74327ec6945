"""How a process declares its metrics: in a registry of its own, under the prefix `quota_gateway_`.

What both processes show has its name and meaning here. Which process shows what, and when it
changes, is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.registry import Collector

from gateway.adapters.tallies import Spreads, Tallies

PREFIX = "quota_gateway_"
_Shown = TypeVar("_Shown", bound=Collector)


class Declare:
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
