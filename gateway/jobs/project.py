"""Projection: entitlements flow from the ledger to Redis, a revision at a time.

Whoever changes an entitlement projects it before answering; this job catches what was missed
(the process died in between, or Redis was away).
"""

from __future__ import annotations

from gateway.flow.accounts import project
from gateway.ports.clock import Clock
from gateway.ports.directory import Directory
from gateway.ports.quota_store import QuotaStore, StoreUnavailable

_ROWS_MAX = 500
_REST_S = 1.0


class Projection:
    """Fulfils jobs.service.Step."""

    name = "projection"

    def __init__(self, directory: Directory, store: QuotaStore, clock: Clock) -> None:
        self._directory = directory
        self._store = store
        self._clock = clock

    async def step(self) -> float:
        """Project every user whose revision Redis has not confirmed."""
        waiting = await self._directory.unprojected(_ROWS_MAX)
        silent: StoreUnavailable | None = None
        for identity in waiting:
            try:
                await project(identity, self._directory, self._store, self._clock)
            except StoreUnavailable as error:  # of a cluster, the other nodes may answer
                silent = error
        if silent is not None:
            raise silent
        return 0.0 if len(waiting) == _ROWS_MAX else _REST_S
