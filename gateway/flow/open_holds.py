"""Holds that are open in this process, and the heartbeat that keeps their leases running.

A call may take longer than a lease. While it runs, its lease is lengthened and its progress noted,
so that if this process dies another one can book what the client has read. A hold that ended
meanwhile, or a stream that runs too long, is marked as over; its relay then ends it politely.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.hold import Hold
from gateway.flow.terms import Terms
from gateway.ports.clock import Clock
from gateway.ports.quota_store import QuotaStore, StoreRejected, StoreUnavailable

_log = logging.getLogger("gateway.holds")


@dataclass(slots=True)
class OpenHold:
    """One call under way. `progress` counts the output tokens relayed so far."""

    hold: Hold
    opened_s: float
    progress: Callable[[], int]
    over: bool = False


class OpenHolds:
    """All calls under way in this process."""

    def __init__(self, store: QuotaStore, terms: Terms, clock: Clock) -> None:
        self._store = store
        self._terms = terms
        self._clock = clock
        self._open: dict[str, OpenHold] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, hold: Hold) -> OpenHold:
        """Keep this hold's lease running from now on."""
        entry = OpenHold(hold, self._clock.monotonic_s(), progress=lambda: 0)
        self._open[hold.rid] = entry
        return entry

    def remove(self, entry: OpenHold) -> None:
        """Its end is being settled."""
        self._open.pop(entry.hold.rid, None)

    async def beat_forever(self) -> None:
        """One beat every `heartbeat_ms`, until cancelled."""
        while True:
            await asyncio.sleep(self._terms.heartbeat_ms / 1000)
            await self.beat()

    async def beat(self) -> None:
        """Lengthen the lease of every hold that has been open for a heartbeat or longer."""
        now_s = self._clock.monotonic_s()
        for entry in list(self._open.values()):
            age_s = now_s - entry.opened_s
            if age_s > self._terms.stream_max_s:
                entry.over = True
            elif age_s * 1000 >= self._terms.heartbeat_ms and not entry.hold.in_outage:
                await self._extend(entry)

    async def _extend(self, entry: OpenHold) -> None:
        hold = entry.hold
        try:
            alive = await self._store.extend(
                hold.caller.payer, hold.rid, entry.progress(), self._terms.lease_ms
            )
        except StoreUnavailable:
            return  # the lease has two more beats and a grace before it ends
        except StoreRejected as error:
            _log.error("hold %s cannot be extended: %s", hold.rid, error)
            return
        if not alive and hold.rid in self._open:
            entry.over = True
