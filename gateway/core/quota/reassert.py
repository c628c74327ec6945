"""Holding again what was open when an epoch was lost: the call, its answer, and the rule.

A gateway that lives knows which of its calls are under way. After a loss it says so, before anybody
may reserve, so that nobody is admitted into the room these calls will use. It promises that a hold
that has ended stays ended and that none is held twice. It refuses to know whether there is room:
that was asked when the call began, and what it uses now is used.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from gateway.core.quota.endings import OpenHold
from gateway.core.quota.shard import Shard


class OpenCall(msgspec.Struct, frozen=True, gc=False):
    """A call under way, as its gateway knows it. Amounts in tokens unless named otherwise.

    Everything is what `reserve` granted in `epoch`, which must be an older one than the shard's;
    `progress_tokens` is the output relayed so far, and the lease begins anew.
    """

    rid: str
    payer: str
    tier: str
    epoch: int
    period_start_ms: int
    output_tokens: int
    hold_tokens: int
    hold_nano_gbp: int
    progress_tokens: int
    lease_ms: int
    tail: bytes
    member: str | None = None
    tier_period_start_ms: int | None = None


class ReassertCode(IntEnum):
    """What `reassert` answers. ENDED: it has ended, or it is of this epoch, within which absent
    means ended. HYDRATE: begin to bring the account back, then ask again."""

    HELD = 1
    HELD_BEFORE = 2
    ENDED = 0
    NOT_READY = -1
    HYDRATE = -2


class ReassertReply(msgspec.Struct, frozen=True, gc=False):
    """`now_ms` is the server's time, by which the period to begin in is told."""

    code: ReassertCode
    now_ms: int


def reassert(shard: Shard, told: OpenCall, now_ms: int) -> ReassertCode:
    """Hold in this epoch what an older one held, whatever room is left."""
    call = (told.payer, told.rid)
    found = shard.kept.get(call)
    if shard.epoch == 0 or shard.epoch < told.epoch:
        return ReassertCode.NOT_READY
    if not isinstance(found, OpenHold) and (found is not None or told.epoch == shard.epoch):
        return ReassertCode.ENDED
    account = shard.in_force(told.payer, None)
    member = shard.member_in_force(told.payer, told.member)
    if account is None or (told.member is not None and member is None):
        return ReassertCode.HYDRATE  # what is held is forgotten where an account is begun
    if isinstance(found, OpenHold) and not found.is_orphan:
        return ReassertCode.HELD_BEFORE
    since_ms, progress_tokens = now_ms, told.progress_tokens
    if isinstance(found, OpenHold):
        since_ms, progress_tokens = found.since_ms, max(progress_tokens, found.progress_tokens)
    shard.kept[call] = OpenHold(
        told.output_tokens, told.hold_tokens, told.hold_nano_gbp, told.period_start_ms,
        since_ms, told.tail, progress_tokens,
    )  # fmt: skip
    shard.leases[call] = now_ms + told.lease_ms
    for each in (account, member):
        if each is not None:
            each.hold(told.hold_tokens, told.hold_nano_gbp)
    shard.count_in_tier(told.tier, told.tier_period_start_ms, 0, told.hold_tokens)
    return ReassertCode.HELD
