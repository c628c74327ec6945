"""The present, kept in Redis: accounts and holds.

Every call that changes something names a rid and may be repeated with the same rid without effect
beyond the first (promise I6). StoreUnavailable means "unknown": the change may or may not have
happened, and only a repetition with the same rid tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from gateway.core.quota.entitle import (
    Entitlement,
    EntitleReply,
    FinishCode,
    Hydration,
    LedgerSums,
    Snapshot,
)
from gateway.core.quota.reassert import OpenCall, ReassertReply
from gateway.core.quota.reserve import ReserveAsk, ReserveReply
from gateway.core.quota.settle import Correction, LapsedHold, Settlement, SettleReply


class StoreUnavailable(Exception):
    """Redis did not answer, or not in time. Whether the call took effect is unknown."""


class StoreNotAsked(StoreUnavailable):
    """Redis is known not to answer, so it was not asked: nothing of this call happened, or will."""


class StoreNotReady(StoreUnavailable):
    """Redis answers, but the counters that are asked for did not come into force in time."""


class StoreRejected(Exception):
    """Redis ran nothing because the call itself is wrong: a fault of this program, not of Redis."""


class ShardState(msgspec.Struct, frozen=True, gc=False):
    """A shard as Redis has it: its epoch (0: not open) and the id of its newest event.

    `is_readable` is False where an older release wrote accounts and holds in another form. While it
    `is_quiet`, gateways are awaited after a loss, and nothing is reserved until the wait is over.
    """

    epoch: int
    stream_id: str
    is_readable: bool = True
    is_quiet: bool = False


class QuotaStore(Protocol):
    """The scripts, one method each. All may raise StoreUnavailable."""

    async def reserve(self, ask: ReserveAsk) -> ReserveReply: ...

    async def extend(self, payer: str, rid: str, progress_tokens: int, lease_ms: int) -> bool:
        """Lengthen a hold's lease; False when the hold has ended."""
        ...

    async def reassert(self, told: OpenCall) -> ReassertReply:
        """Hold in the shard's epoch what this process still has open of an older one."""
        ...

    async def settle(self, settlement: Settlement) -> asyncio.Future[SettleReply]:
        """Returns once the call is in the kernel's hands, so that an answer's last bytes can go out
        after its settlement, unwaited. The future brings the reply, or the error."""
        ...

    async def expire(self, lapsed: LapsedHold, settlement: Settlement) -> SettleReply:
        """Settle a hold found by the sweeper; LEASE_RUNS when a heartbeat came first."""
        ...

    async def correct(self, correction: Correction) -> bool:
        """Take back what was counted twice; False when it is not counted (any more)."""
        ...

    async def entitle(self, entitlement: Entitlement, period_end_ms: int) -> EntitleReply: ...

    async def hydrate_begin(
        self, payer: str, member: str | None, period_start_ms: int, period_end_ms: int
    ) -> Hydration | None:
        """None when the shard is not open."""
        ...

    async def hydrate_finish(
        self, payer: str, member: str | None, hydration: Hydration, sums: LedgerSums
    ) -> FinishCode: ...

    async def snapshot(self, payer: str, member: str | None = None) -> Snapshot | None:
        """None when the account is not in Redis."""
        ...

    async def forget(self, account: str, shard: int) -> bool:
        """Remove an account that nobody has used for a whole period; False when it stays. Hydration
        brings it back."""
        ...

    async def epochs(self) -> dict[int, int]:
        """The epoch of every shard whose server answers; 0: not open."""
        ...

    async def has_event(self, shard: int, stream_id: str, is_booked: bool) -> bool:
        """Whether this event is in the shard's outbox; of one that may be booked, whether it is, or
        was until it was trimmed."""
        ...

    async def known(self, calls: Sequence[tuple[str, str]]) -> Sequence[bool]:
        """Of each call (payer and rid) whether its hold is there, or told to have expired."""
        ...

    async def shard_state(self, shard: int) -> ShardState: ...

    async def open_shard(
        self, shard: int, epoch: int, cursor: str, quiet_ms: int, awaited: Sequence[str]
    ) -> int:
        """Open the shard at `epoch`, or raise it to that, with its stream past `cursor`; the epoch
        in force. Nothing is reserved then until the gateways awaited have said `caught_up`, for
        `quiet_ms` at most. An epoch that is reached already changes nothing."""
        ...

    async def caught_up(self, shard: int, epoch: int, gateway_id: str) -> None:
        """This gateway has brought back what it knew of the shard."""
        ...


class Leases(Protocol):
    """Where the sweeper finds holds that nobody ended, and accounts that nobody uses."""

    async def lapsed(self, shard: int, grace_ms: int, rows_max: int) -> Sequence[LapsedHold]:
        """Open holds whose lease and grace are over; kept endings past their time are removed."""
        ...

    async def count(self, shard: int) -> int:
        """How many holds are open."""
        ...

    async def accounts(self, position: int, rows_max: int) -> tuple[int, Sequence[tuple[str, int]]]:
        """Some accounts (digest and shard) from `position` on (0: the first), about `rows_max` keys
        further; where to go on, 0 at the end. One that is made meanwhile may be missed."""
        ...
