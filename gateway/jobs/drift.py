"""Drift: what Redis and the ledger disagree on is shown, while nobody asks.

Each round compares payers who called lately, the next ones in turn of all, and those that differed
before. Nothing is repaired here: `ledger repair` does that, when told to.
"""

from __future__ import annotations

import logging

from gateway.flow.agreement import Agreement
from gateway.ports.clock import Clock
from gateway.ports.metrics import JobsMetrics
from gateway.ports.payers import Payers

# A million payers take their turn in two days, ten thousand in half an hour.
_EVERY_S, _PAYERS_MAX = 10.0, 50
_KEPT_MAX = 1000
_LATELY_MS = 60_000
_log = logging.getLogger("gateway.drift")


class Drift:
    """Fulfils jobs.service.Step."""

    name = "drift"

    def __init__(
        self, agreement: Agreement, payers: Payers, metrics: JobsMetrics, clock: Clock
    ) -> None:
        self._agreement = agreement
        self._payers = payers
        self._metrics = metrics
        self._clock = clock
        self._behind = ""
        self._off: dict[str, int] = {}

    async def step(self) -> float:
        """Compare, and show by how many tokens all that differ are off."""
        now_ms = self._clock.now_ms()
        lately = await self._payers.lately(now_ms - _LATELY_MS, now_ms + _LATELY_MS, _PAYERS_MAX)
        in_turn = await self._payers.behind(self._behind, _PAYERS_MAX)
        self._behind = in_turn[-1] if len(in_turn) == _PAYERS_MAX else ""
        compared = {*self._off, *lately, *in_turn}
        lasting = await self._agreement.lasting(compared)
        off = {payer: found.tokens for payer, found in lasting.items() if found is not None}
        # Of whom nothing can be said now, what was found last still stands.
        unclear = {payer: self._off[payer] for payer in lasting if payer in self._off}
        self._show(dict(list((unclear | off).items())[:_KEPT_MAX]))
        return _EVERY_S

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
