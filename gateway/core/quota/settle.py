"""Ending a hold: the call, the kinds of endings, and the answer. A charge is never refused.

A hold ends once, as settled, released or expired. What was booked of an expired hold may be
corrected once by a settlement that comes late; what was counted twice is taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import msgspec

from gateway.core.event import LedgerRow, PackSplit
from gateway.core.rid import derived_rid

SettleKind = Literal["settle", "release", "expire"]


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """The end of one hold. Everything of it but the charge was frozen when the hold was made.

    `limit_tokens` is the allowance it was made under; `thresholds_percent` those whose crossing is
    to be told, rising. `event_json` goes to the outbox; of a release only when it corrects an
    expiry. An expiry re-checks the lease plus `grace_ms` by the server's clock. `period_end_ms` is
    0 but for a charge that nothing was held for: no reserve brought the account into its period.
    """

    rid: str
    payer: str
    kind: SettleKind
    epoch: int
    period_start_ms: int
    charged_tokens: int
    cost_nano_gbp: int
    event_json: bytes
    tier: str
    member: str | None = None
    tier_period_start_ms: int | None = None
    limit_tokens: int = 0
    thresholds_percent: tuple[int, ...] = ()
    grace_ms: int = 0
    period_end_ms: int = 0


class SettleCode(IntEnum):
    """What `settle` answers. LATE: booked although its hold, or its epoch, was gone."""

    SETTLED = 1
    NOTHING_OPEN = 0
    CORRECTED = 2
    LATE = 3
    RELEASED = 4
    LEASE_RUNS = 5
    NOT_READY = -1


class SettleReply(msgspec.Struct, frozen=True, gc=False):
    """What the account holds after the settlement, in tokens.

    `crossed_percent` is the highest threshold that this charge crossed, or 0. `stream_id` is the
    event's in epoch `epoch`, or ''.
    """

    code: SettleCode
    used_tokens: int
    held_tokens: int
    limit_tokens: int
    crossed_percent: int
    from_allowance: int
    from_packs: int
    overdraft_tokens: int
    stream_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Correction:
    """Takes back a charge that was counted twice: the ledger had its event already.

    Everything is what the event of `stream_id` in `epoch` counted; `rid` is derived from it, so
    that a repetition is found. `pack_split` is what packs paid, by their ids.
    """

    rid: str
    payer: str
    tier: str
    member: str | None
    epoch: int
    stream_id: str
    period_start_ms: int
    tier_period_start_ms: int | None
    charged_tokens: int
    cost_nano_gbp: int
    pack_split: PackSplit


def correction_of(row: LedgerRow) -> Correction:
    """What takes back the event of `row`; the same row, the same rid."""
    return Correction(
        rid=derived_rid(row.event_id, f"{row.epoch} {row.stream_id}"),
        payer=row.event.payer,
        tier=row.event.tier,
        member=row.member,
        epoch=row.epoch,
        stream_id=row.stream_id,
        period_start_ms=row.period_ms,
        tier_period_start_ms=row.tier_period_start_ms,
        charged_tokens=row.charged_tokens,
        cost_nano_gbp=row.cost_nano_gbp,
        pack_split=row.pack_split,
    )


@dataclass(frozen=True, slots=True)
class LapsedHold:
    """A hold whose lease has run out, as the sweeper finds it. `account` is the payer's digest."""

    rid: str
    account: str
    shard: int
    epoch: int
    hold_tokens: int
    progress_tokens: int
    period_start_ms: int
    tail: bytes
