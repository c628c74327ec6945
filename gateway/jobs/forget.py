"""Forgetting: accounts that nobody has used for a whole period leave Redis.

The ledger has them; hydration brings them back at their next call. So Redis holds active users, not
everybody who ever came.
"""

from __future__ import annotations

from gateway.ports.quota_store import Leases, QuotaStore

_ROWS_MAX = 500  # a round: some milliseconds of Redis
_REST_S = 1.0
_ROUND_REST_S = 3600.0


class Forget:
    """Fulfils jobs.service.Step. Goes through all accounts bit by bit, then rests an hour."""

    name = "forget"

    def __init__(self, leases: Leases, store: QuotaStore) -> None:
        self._leases = leases
        self._store = store
        self._position = 0

    async def step(self) -> float:
        """Look at the next accounts; the script decides which may go."""
        self._position, found = await self._leases.accounts(self._position, _ROWS_MAX)
        for account, shard in found:
            await self._store.forget(account, shard)
        return _REST_S if self._position else _ROUND_REST_S
