"""Faults of the kind that the bench is there to find, put into a running product.

The product's files stay as they are: a process that plants one changes the class, or the text of a
script as it is loaded, and then runs the product. Each raises when it finds nothing to change, so
that a fault that is not there any more cannot pass for one that was missed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.adapters.postgres.connection import session
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.redis_store.leases import RedisLeases
from gateway.adapters.redis_store.scripts import Script, load_scripts
from gateway.adapters.spill import SpillFiles
from gateway.app import stores
from gateway.core.event import LedgerRow, stream_position
from gateway.core.quota.settle import LapsedHold
from gateway.flow.settlements import Settlements

_AHEAD_S = 1.5
_BETWEEN_S = 0.07
_RE_CHECK = "deadline + grace_ms > now"
_ACKNOWLEDGE = "UPDATE shards SET cursor = $2 WHERE shard = $1"


def unconfirmed_settlements_are_dropped() -> None:
    """A settlement is sent once; whether anybody has heard it is not asked."""
    _plant(Settlements, "_repeat", lambda self, settlement, reply=None: None)


def kept_in_memory_only() -> None:
    """What Redis does not confirm is repeated, but never written to the disk."""
    _plant(SpillFiles, "keep", lambda self, settlement: None)


def expired_without_a_second_look() -> None:
    """The sweeper looks a moment ahead and waits for it, and the script does not look again."""
    sound = RedisLeases.lapsed

    async def lapsed(
        self: RedisLeases, shard: int, grace_ms: int, rows_max: int
    ) -> Sequence[LapsedHold]:
        found = await sound(self, shard, grace_ms - round(_AHEAD_S * 1000), rows_max)
        if found:
            await asyncio.sleep(_AHEAD_S)
        return found

    def careless(folder: Path) -> dict[str, Script]:
        scripts = load_scripts(folder)
        source = scripts["settle"].source
        if source.count(_RE_CHECK) != 1:
            raise AssertionError("settle.lua has no such check any more: plant another fault")
        source = source.replace(_RE_CHECK, "false")
        sha = hashlib.sha1(source.encode()).hexdigest()
        return {**scripts, "settle": replace(scripts["settle"], source=source, sha=sha)}

    _plant(RedisLeases, "lapsed", lapsed)
    _plant(stores, "load_scripts", careless)


def acknowledged_before_it_is_booked() -> None:
    """The drain moves its cursor in a transaction of its own, and then books what lay before it."""
    sound = PostgresLedger.book

    async def book(self: PostgresLedger, rows: Sequence[LedgerRow], *rest: Any) -> Any:
        newest: dict[int, str] = {}
        for row in sorted(rows, key=lambda row: stream_position(row.stream_id)):
            newest[row.shard] = row.stream_id
        async with session(self._pool) as connection:
            await connection.executemany(_ACKNOWLEDGE, sorted(newest.items()))
        await asyncio.sleep(_BETWEEN_S)
        return await sound(self, rows, *rest)

    _plant(PostgresLedger, "book", book)


FAULTS: dict[str, Callable[[], None]] = {
    "dropped": unconfirmed_settlements_are_dropped,
    "forgetful": kept_in_memory_only,
    "careless": expired_without_a_second_look,
    "early": acknowledged_before_it_is_booked,
}


def _plant(owner: object, name: str, new: object) -> None:
    getattr(owner, name)  # it must be there
    setattr(owner, name, new)
