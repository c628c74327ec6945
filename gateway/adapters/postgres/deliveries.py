"""What is to be sent, on Postgres.

Promises what `gateway.ports.deliveries.Deliveries` says. Each call is one statement: a process that
is killed leaves nothing half done. Refuses to know how anything is sent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from gateway.adapters.postgres.advisory_lock import AdvisoryLock
from gateway.adapters.postgres.connection import Pool, session
from gateway.adapters.postgres.from_records import identity_of
from gateway.adapters.postgres.statements import notices
from gateway.ports.deliveries import OPERATORS, Cap, Delivery, Ending, Way

_ERROR_CHARS_MAX = 500


class PostgresDeliveries:
    """Fulfils the port `Deliveries`. `url` is for the lock, which has its own connection."""

    def __init__(self, pool: Pool, url: str) -> None:
        self._pool = pool
        self._lock = AdvisoryLock(url, notices.TRY_SENDER_LOCK)

    async def lock(self) -> bool:
        return await self._lock.take()

    def unlock(self) -> None:
        self._lock.release()

    async def find(self, caps: Sequence[Cap], thresholds_percent: Sequence[int]) -> None:
        async with session(self._pool) as connection:
            await connection.execute(notices.FIND)
            await connection.execute(
                notices.FIND_FOR_OPERATORS,
                [cap.tier for cap in caps],
                [cap.tokens for cap in caps],
                [cap.period.start_ms for cap in caps],
                [cap.period.end_ms for cap in caps],
                list(thresholds_percent),
            )
            await connection.execute(notices.DROP_LEFT)

    async def deal(self, notices_max: int, ways: Sequence[Way]) -> None:
        goes = [(way.channel, way.address, kind) for way in ways for kind in way.kinds]
        columns = [list(column) for column in zip(*goes, strict=True)] or [[], [], []]
        async with session(self._pool) as connection:
            await connection.execute(notices.DEAL, notices_max, *columns)

    async def take(self, way: Way, for_s: int) -> Delivery | None:
        asked = [for_s, way.channel, *([way.address] if way.address else [])]
        statement = notices.TAKE_OF_HOOK if way.address else notices.TAKE_MAIL
        async with session(self._pool) as connection:
            found = await connection.fetchrow(statement, *asked)
        if found is None:
            return None
        return Delivery(
            notification_id=found["notification_id"],
            channel=found["channel"],
            address=found["address"],
            attempts=found["attempts"],
            kind=found["kind"],
            threshold=found["threshold"],
            at_ms=found["at_ms"],
            period_ms=found["period_ms"],
            now_ms=found["now_ms"],
            identity=OPERATORS if found["is_of_operators"] else identity_of(found),
            facts=json.loads(found["facts"]),
            used_tokens=found["used_tokens"],
            pack_tokens=found["pack_tokens"],
            is_wanted=found["is_wanted"],
            about=found["about"],
        )

    async def end(self, delivery: Delivery, state: Ending, error: str | None) -> None:
        async with session(self._pool) as connection:
            await connection.execute(notices.END, *_key(delivery), state, _storable(error))

    async def put_off(self, delivery: Delivery, for_s: int, error: str) -> None:
        async with session(self._pool) as connection:
            await connection.execute(notices.PUT_OFF, *_key(delivery), for_s, _storable(error))


def _key(delivery: Delivery) -> tuple[int, str, str]:
    return delivery.notification_id, delivery.channel, delivery.address


def _storable(error: str | None) -> str | None:
    return None if error is None else error.replace("\0", "")[:_ERROR_CHARS_MAX]
