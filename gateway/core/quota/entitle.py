"""What an account is entitled to, and how it is brought back from the ledger.

The ledger says it, Redis is told: revisions only rise, and whatever is missing in Redis is read
from the ledger anew instead of counting as zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

PACKS_MAX = 32
"""Live packs of one payer: a script's loop over them stays within microseconds."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A top-up: `tokens` left by the ledger (granted less spent; 0 once refunded), until `ends_ms`.

    A pack that Redis does not know begins with these tokens; one that it knows never rises to them.
    """

    pack_id: str
    tokens: int
    ends_ms: int


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What the ledger says of a payer, or of a member of one, at revision `rev`.

    `adjusted_tokens` is the absolute sum of the adjustments of the period that begins at
    `period_start_ms`; it raises what counts as used. A member has no packs.
    """

    payer: str
    rev: int
    period_start_ms: int
    adjusted_tokens: int
    packs: tuple[Pack, ...] = ()
    member: str | None = None


class EntitleCode(IntEnum):
    """What `entitle` answers. ABSENT: there is no account to tell, hydration will read the ledger.
    PERIOD: the period has not begun by the server's time."""

    PROJECTED = 1
    OLDER = 0
    ABSENT = -2
    NOT_READY = -1
    PERIOD = -4


@dataclass(frozen=True, slots=True)
class EntitleReply:
    """`now_ms` is the server's time, by which periods are judged."""

    code: EntitleCode
    now_ms: int


@dataclass(frozen=True, slots=True)
class Hydration:
    """A begun hydration. `ready`: there was nothing to do. Otherwise the sums of all ledger rows
    up to `stream_id` of `epoch` must be handed to `hydrate_finish` with the same token."""

    ready: bool
    token: str
    stream_id: str
    epoch: int
    period_start_ms: int


class FinishCode(IntEnum):
    """What finishing a hydration answers. OLDER: a projection came in between, so the sums are
    older than what is known; read them again. GONE: another finished first, or it was begun anew.
    """

    FINISHED = 3
    OLDER = 4
    GONE = 0
    NOT_READY = -1


@dataclass(frozen=True, slots=True)
class LedgerSums:
    """Sums of one account and period in the ledger, at revision `rev`: tokens charged, of these
    what packs paid, tokens adjusted, cost; and the packs of the payer."""

    settled_tokens: int
    from_packs: int
    adjusted_tokens: int
    cost_nano_gbp: int
    rev: int
    packs: tuple[Pack, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One account, read in one step. `stream_id` is its shard's newest event at that moment;
    `from_packs` is the part of `settled_tokens` that packs paid."""

    settled_tokens: int
    from_packs: int
    adjusted_tokens: int
    held_tokens: int
    open_holds: int
    cost_nano_gbp: int
    period_start_ms: int
    period_end_ms: int
    rev: int
    epoch: int
    stream_id: str
    packs: tuple[Pack, ...] = ()

    @property
    def used_tokens(self) -> int:
        """What counts against the allowance; below 0 where adjustments have added room."""
        return self.settled_tokens - self.from_packs + self.adjusted_tokens
