"""Projection: entitlements flow from the ledger to Redis, a revision at a time.

Whoever changes an entitlement projects it before answering; this job catches what was missed
(the process died in between, or Redis was away), and what a server may have lost that comes in the
place of another: no event tells of that.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.identity import Identity
from gateway.flow.accounts import project
from gateway.ports.clock import Clock
from gateway.ports.directory import Directory
from gateway.ports.outbox import Outbox
from gateway.ports.quota_store import QuotaStore, StoreUnavailable

_ROWS_MAX = 500
# A server that comes back has lost seconds; one that takes another's place perhaps minutes.
_LATELY_S = 3600
_REST_S = 1.0


class Projection:
    """Fulfils jobs.service.Step."""

    name = "projection"

    def __init__(
        self, directory: Directory, store: QuotaStore, outbox: Outbox, clock: Clock
    ) -> None:
        self._directory = directory
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._server_id = ""  # which has all that was projected

    async def step(self) -> float:
        """Project every user whose revision Redis has not confirmed; on another server than before
        all that were changed lately."""
        server_id = await self._outbox.server_id()
        if server_id != self._server_id:
            await self._project_again()
            self._server_id = server_id
        waiting = await self._directory.unprojected(_ROWS_MAX)
        await self._project(waiting)
        return 0.0 if len(waiting) == _ROWS_MAX else _REST_S

    async def _project_again(self) -> None:
        changed: list[Identity] = []
        after = ""
        while found := await self._directory.changed_lately(_LATELY_S, after, _ROWS_MAX):
            changed += found
            after = found[-1].user_id
        await self._project(changed)

    async def _project(self, waiting: Sequence[Identity]) -> None:
        silent: StoreUnavailable | None = None
        for identity in waiting:
            try:
                await project(identity, self._directory, self._store, self._clock)
            except StoreUnavailable as error:  # of a cluster, the other nodes may answer
                silent = error
        if silent is not None:
            raise silent
