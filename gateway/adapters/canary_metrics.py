"""What is shown of the canary: whether its last round proved the quota, and how rounds ended.

Nothing is shown before the first round, and nothing where there is no canary: a 0 means that
enforcement was tried and not proven.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from gateway.adapters.metrics_declared import Declare
from gateway.adapters.tallies import Tallies
from gateway.core.canary import Result


class CanaryMetrics:
    """Beside the other metrics of a proxy process, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._declare = Declare(registry)
        self._ok: Gauge | None = None
        self._rounds: Tallies | None = None

    def found(self, result: Result) -> None:
        """A round has ended."""
        if self._rounds is None:
            meaning = "Rounds of the canary, by what they found"
            self._rounds = self._declare.counter("canary_rounds", meaning, "result")
        if self._ok is None:
            meaning = "1 while the last round of the canary has proven that the quota is enforced"
            self._ok = self._declare.gauge("canary_ok", meaning)
        self._ok.set(result == "proven")
        self._rounds.of(result).value += 1

    def silent(self) -> None:
        """There is no canary any more: what it found last is not shown as if it were so."""
        if self._ok is not None:
            self._registry.unregister(self._ok)
            self._ok = None
