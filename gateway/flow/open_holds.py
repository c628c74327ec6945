"""Holds that are open in this process, and the heartbeat that keeps their leases running.

A call may take longer than a lease. While it runs, its lease is lengthened and its progress noted,
in the spill while the store is away, so that if this process dies another one can book what the
client has read. A hold that ended meanwhile, or a stream that runs too long, is marked as over; its
relay then ends it politely.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from gateway.core.hold import Hold, expiry_event, tail_of
from gateway.flow.settlements import settlement_of
from gateway.flow.terms import Terms
from gateway.ports.clock import Clock
from gateway.ports.quota_store import QuotaStore, StoreRejected, StoreUnavailable
from gateway.ports.spill import Spill

_log = logging.getLogger("gateway.holds")


@dataclass(slots=True)
class OpenHold:
    """One call under way. `progress` counts the output tokens relayed so far; `is_relayed` while
    a stream goes to its client and nothing settles it."""

    hold: Hold
    opened_s: float
    progress: Callable[[], int]
    is_relayed: bool = False
    over: bool = False


class OpenHolds:
    """All calls under way in this process."""

    def __init__(self, store: QuotaStore, terms: Terms, clock: Clock, spill: Spill) -> None:
        self._store = store
        self._terms = terms
        self._clock = clock
        self._spill = spill
        self._open: dict[str, OpenHold] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, hold: Hold) -> OpenHold:
        """Keep this hold's lease running from now on."""
        entry = OpenHold(hold, self._clock.monotonic_s(), progress=lambda: 0)
        self._open[hold.rid] = entry
        if hold.in_outage and hold.stream:  # no lease will tell of it
            self._spill_seen(entry)
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
            elif age_s * 1000 < self._terms.heartbeat_ms:
                continue
            elif entry.hold.in_outage:
                await self._spill_progress(entry)
            else:
                await self._extend(entry)

    async def _extend(self, entry: OpenHold) -> None:
        hold = entry.hold
        try:
            alive = await self._store.extend(
                hold.caller.payer, hold.rid, entry.progress(), self._terms.lease_ms
            )
        except StoreUnavailable:  # the lease has two more beats and a grace before it ends
            await self._spill_progress(entry)
            return
        except StoreRejected as error:
            _log.error("hold %s cannot be extended: %s", hold.rid, error)
            return
        if not alive and hold.rid in self._open:
            entry.over = True
        elif alive and entry.is_relayed:
            self._spill.done(hold.rid)  # the store knows more

    async def _spill_progress(self, entry: OpenHold) -> None:
        """Never in place of its settlement. Whoever settles it, or notes its progress in the store,
        is done with that."""
        if entry.is_relayed:
            self._spill_seen(entry)
            await asyncio.sleep(0)  # thousands in one go would hold up their own chunks

    def _spill_seen(self, entry: OpenHold) -> None:
        """Keep how the stream would be settled if this process died now."""
        hold = entry.hold
        seen = expiry_event(hold.rid, tail_of(hold), hold.price, hold.hold_tokens, entry.progress())
        if hold.in_outage:
            seen = replace(seen, outcome="outage")
        thresholds = self._terms.plan.thresholds_percent
        self._spill.keep(settlement_of(hold, "settle", seen, thresholds))
