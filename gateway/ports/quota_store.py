"""The present, kept in Redis: accounts, holds and the outbox.

Every call that changes something names a rid and may be repeated with the same rid without effect
beyond the first (promise I6). StoreUnavailable means "unknown": the change may or may not have
happened, and only a repetition with the same rid tells.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, Protocol


class StoreUnavailable(Exception):
    """Redis did not answer, or not in time. Whether the call took effect is unknown."""


class StoreRejected(Exception):
    """Redis ran nothing because the call itself is wrong: a fault of this program, not of Redis."""


class ReserveCode(IntEnum):
    """What `reserve` answers: above 0 held; -1 to -5 mend and ask again; from -10 refused."""

    HELD = 1
    HELD_BEFORE = 2
    NOT_READY = -1
    HYDRATE = -2
    STALE = -3
    PERIOD = -4
    ENDED = -5
    MONTH = -10
    IN_FLIGHT = -11


@dataclass(frozen=True, slots=True)
class ReserveAsk:
    """One hold, asked for. All amounts in tokens.

    The hold is `prompt_tokens + cap x multiplier`, where the cap granted lies between
    `output_least` and `output_wanted`. `period_*_ms` are the borders of the payer's period by the
    gateway's clock; `limit_tokens` is the tier's allowance; `tail` is the event's skeleton.
    """

    rid: str
    payer: str
    rev: int
    period_start_ms: int
    period_end_ms: int
    limit_tokens: int
    prompt_tokens: int
    output_wanted: int
    output_least: int
    multiplier: int
    lease_ms: int
    tail: bytes


@dataclass(frozen=True, slots=True)
class ReserveReply:
    """The script's answer. `output_tokens` is the cap granted a choice; `used_tokens` is settled
    plus adjustments against the allowance; `limit_tokens`, `pack_tokens` as in DATA section 1."""

    code: ReserveCode
    output_tokens: int
    hold_tokens: int
    used_tokens: int
    held_tokens: int
    limit_tokens: int
    pack_tokens: int
    period_start_ms: int
    period_end_ms: int
    now_ms: int
    rev: int
    epoch: int


SettleKind = Literal["settle", "release", "expire"]


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of one hold. `epoch` and `period_start_ms` are those the hold was made under.

    `event_json` goes to the outbox; a release writes none. An expiry re-checks the lease plus
    `grace_ms` by the server's clock.
    """

    rid: str
    payer: str
    kind: SettleKind
    epoch: int
    period_start_ms: int
    charged_tokens: int
    cost_nano_gbp: int
    event_json: bytes
    grace_ms: int = 0


class SettleCode(IntEnum):
    """What `settle` answers; it never refuses a charge."""

    SETTLED = 1
    NOTHING_OPEN = 0
    CORRECTED = 2
    LATE = 3
    RELEASED = 4
    LEASE_RUNS = 5
    NOT_READY = -1


@dataclass(frozen=True, slots=True)
class SettleReply:
    """What the account holds after the settlement, in tokens; `stream_id` of the event, or ''."""

    code: SettleCode
    used_tokens: int
    held_tokens: int
    limit_tokens: int
    overdraft_tokens: int
    stream_id: str


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What the ledger says of a payer at revision `rev`, to be projected into Redis.

    `adjusted_tokens` is the absolute sum of the adjustments of the period that begins at
    `period_start_ms`; it raises what counts as used.
    """

    payer: str
    rev: int
    period_start_ms: int
    adjusted_tokens: int


class EntitleCode(IntEnum):
    """What `entitle` answers."""

    PROJECTED = 1
    OLDER = 0
    ABSENT = -2
    NOT_READY = -1
    PERIOD = -4


@dataclass(frozen=True, slots=True)
class Hydration:
    """A begun hydration. `ready`: there was nothing to do. Otherwise the sums of all ledger rows
    up to `stream_id` of `epoch` must be handed to `hydrate_finish` with the same token."""

    ready: bool
    token: str
    stream_id: str
    epoch: int
    period_start_ms: int


@dataclass(frozen=True, slots=True)
class LedgerSums:
    """Sums of one payer and period in the ledger: tokens charged, tokens adjusted, cost."""

    settled_tokens: int
    adjusted_tokens: int
    cost_nano_gbp: int
    rev: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One account, read in one step. `stream_id` is its shard's newest event at that moment."""

    settled_tokens: int
    adjusted_tokens: int
    held_tokens: int
    open_holds: int
    cost_nano_gbp: int
    period_start_ms: int
    period_end_ms: int
    rev: int
    epoch: int
    stream_id: str


@dataclass(frozen=True, slots=True)
class LapsedHold:
    """A hold whose lease has run out, as the sweeper finds it."""

    rid: str
    account: str
    shard: int
    epoch: int
    hold_tokens: int
    progress_tokens: int
    period_start_ms: int
    tail: bytes


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One event of a shard's outbox, both parts raw."""

    shard: int
    stream_id: str
    event_json: bytes
    script_part: bytes


class QuotaStore(Protocol):
    """The scripts, one method each. All may raise StoreUnavailable."""

    async def reserve(self, ask: ReserveAsk) -> ReserveReply: ...

    async def extend(self, payer: str, rid: str, progress_tokens: int, lease_ms: int) -> bool:
        """Lengthen a hold's lease; False when the hold has ended."""
        ...

    async def settle(self, settlement: Settlement) -> Coroutine[Any, Any, SettleReply]:
        """Returns once the call is in the kernel's hands; what it returns must be awaited and
        brings the reply. So an answer's last bytes can go out after its settlement, unwaited."""
        ...

    async def expire(self, lapsed: LapsedHold, settlement: Settlement) -> SettleReply:
        """Settle a hold found by the sweeper; LEASE_RUNS when a heartbeat came first."""
        ...

    async def entitle(self, entitlement: Entitlement, period_end_ms: int) -> EntitleCode: ...

    async def hydrate_begin(
        self, payer: str, period_start_ms: int, period_end_ms: int
    ) -> Hydration | None:
        """None when the shard is not open."""
        ...

    async def hydrate_finish(self, payer: str, hydration: Hydration, sums: LedgerSums) -> bool:
        """False when another gateway finished first or the account has moved on."""
        ...

    async def snapshot(self, payer: str) -> Snapshot | None:
        """None when the account is not in Redis."""
        ...

    async def epoch(self, shard: int) -> int:
        """The shard's epoch, 0 when it is not open."""
        ...

    async def open_shard(self, shard: int, epoch: int, cursor: str) -> int:
        """Open the shard if it is not, with its stream past `cursor`; the epoch in force."""
        ...


class Leases(Protocol):
    """Where the sweeper finds holds that nobody ended."""

    async def lapsed(self, shard: int, grace_ms: int, rows_max: int) -> Sequence[LapsedHold]:
        """Open holds whose lease and grace are over; kept endings past their time are removed."""
        ...

    async def count(self, shard: int) -> int:
        """How many holds are open."""
        ...


class Outbox(Protocol):
    """The shards' event streams, read by the drain."""

    async def read(
        self, cursors: dict[int, str], rows_max: int, wait_ms: int
    ) -> Sequence[OutboxEntry]:
        """Entries after each shard's cursor, `rows_max` a shard; waits `wait_ms` for the first."""
        ...

    async def last_ids(self) -> dict[int, str]:
        """The id of each shard's newest event, '0-0' when there never was one."""
        ...

    async def backlog(self, shard: int, cursor: str) -> tuple[int, str | None]:
        """How many entries lie past the cursor (counted to 1,000), and the oldest one's id."""
        ...

    async def trim(self, shard: int, before_id: str, bytes_max: int, cursor: str) -> None:
        """Drop entries older than `before_id`; when still over `bytes_max`, all up to `cursor`.

        Never drops an entry past the cursor: it has not reached the ledger yet.
        """
        ...
