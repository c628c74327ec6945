"""After a refund: what the pack had paid is booked as an adjustment, however late it is known.

Calls that spent of a pack may reach the ledger after its refund, and corrections later still. This
job looks for packs of which more (or less) was spent than was reclaimed; projection does the rest.
"""

from __future__ import annotations

import os

from gateway.core.rid import make_rid
from gateway.ports.clock import Clock
from gateway.ports.sales import Sales

_ROWS_MAX = 100
_REST_S = 1.0


class Reclaim:
    """Fulfils jobs.service.Step."""

    name = "reclaim"

    def __init__(self, sales: Sales, clock: Clock) -> None:
        self._sales = sales
        self._clock = clock

    async def step(self) -> float:
        """Reclaim of every refunded pack what is not reclaimed yet."""
        waiting = await self._sales.reclaimable(_ROWS_MAX)
        for payment_ref in waiting:
            await self._sales.reclaim(payment_ref, make_rid(self._clock.now_ms(), os.urandom(10)))
        return 0.0 if len(waiting) == _ROWS_MAX else _REST_S
