"""Drift: what Redis and the ledger disagree on is shown, while nobody asks.

Each round compares payers who called lately, the next ones in turn of all, and those that differed
before. Nothing is repaired here: `ledger repair` does that, when told to.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from gateway.flow.agreement import Agreement
from gateway.ports.clock import Clock
from gateway.ports.metrics import JobsMetrics
from gateway.ports.payers import Payers

_KEPT_MAX = 1000
_LATELY_MS = 60_000
_log = logging.getLogger("gateway.drift")


@dataclass(frozen=True, slots=True)
class DriftTerms:
    """How often to look, and at how many of each kind: a million payers take their turn in two
    days, ten thousand in half an hour."""

    every_s: float = 10.0
    payers_max: int = 50


class Drift:
    """Fulfils jobs.service.Step."""

    name = "drift"

    def __init__(
        self,
        agreement: Agreement,
        payers: Payers,
        terms: DriftTerms,
        metrics: JobsMetrics,
        clock: Clock,
    ) -> None:
        self._agreement = agreement
        self._payers = payers
        self._terms = terms
        self._metrics = metrics
        self._clock = clock
        self._behind = ""
        self._off: dict[str, int] = {}

    async def step(self) -> float:
        """Compare, and show by how many tokens all that differ are off."""
        now_ms, rows_max = self._clock.now_ms(), self._terms.payers_max
        lately = await self._payers.lately(now_ms - _LATELY_MS, now_ms + _LATELY_MS, rows_max)
        in_turn = await self._payers.behind(self._behind, rows_max)
        self._behind = in_turn[-1] if len(in_turn) == rows_max else ""
        compared = {*self._off, *lately, *in_turn}
        lasting = await self._agreement.lasting(compared)
        off = {payer: found.tokens for payer, found in lasting.items() if found is not None}
        # Of whom nothing can be said now, what was found last still stands.
        unclear = {payer: self._off[payer] for payer in lasting if payer in self._off}
        self._show(dict(list((unclear | off).items())[:_KEPT_MAX]))
        return self._terms.every_s

    def _show(self, off: dict[str, int]) -> None:
        before, self._off = self._off, off
        self._metrics.drift(sum(off.values()))
        if off and off != before:
            _log.error(
                "Redis and the ledger differ by %d tokens in %d account(s): see `ledger repair`",
                sum(off.values()),
                len(off),
            )
        elif before and not off:
            _log.warning("Redis and the ledger agree again")
