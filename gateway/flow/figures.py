"""The figures of an account in the period that runs, for those who show them.

An account that Redis does not have is brought back from the ledger. One whose period has ended
without a call since counts from nothing: the script that begins the next period runs at that call.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.core.identity import Identity
from gateway.core.period import Period
from gateway.core.quota.entitle import Snapshot
from gateway.flow.hydrate import Hydrator
from gateway.ports.clock import Clock
from gateway.ports.quota_store import QuotaStore, StoreNotReady


class Figures:
    """Reads them."""

    def __init__(self, store: QuotaStore, hydrator: Hydrator, clock: Clock) -> None:
        self._store = store
        self._hydrator = hydrator
        self._clock = clock

    async def of(self, identity: Identity, member: str | None = None) -> Snapshot:
        """The payer's account, or a member's own within it. StoreUnavailable, LedgerUnavailable."""
        for _ in range(2):
            found = await self._store.snapshot(identity.payer, member)
            now_ms = self._clock.now_ms()
            period = identity.calendar.period_at(now_ms)
            if found is not None:
                return found if found.period_end_ms > now_ms else _begun(found, period)
            await self._hydrator.hydrate(identity.payer, period, member)
        raise StoreNotReady(f"the account of {identity.user_id} did not come into force")


def _begun(last: Snapshot, period: Period) -> Snapshot:
    return replace(
        last,
        settled_tokens=0,
        from_packs=0,
        adjusted_tokens=0,
        cost_nano_gbp=0,
        period_start_ms=period.start_ms,
        period_end_ms=period.end_ms,
    )
