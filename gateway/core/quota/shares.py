"""The cap of a whole tier, handed out to its shards in rounds.

A shard holds calls to its own share and asks nobody, so the cap is kept as long as the shares
together are never more. It promises that: a round that has seen every shard knows all shares until
a newer round begins; it lowers first, and raises only by what was really given up. It may refuse
early: what one shard has left is of no use to another before the next round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from gateway.core.quota.limits import TierShare
from gateway.core.quota.shard import Shard


class ShareCode(IntEnum):
    """What `share` answers. NOT_WHOLE: what earlier epochs settled is not counted yet."""

    STANDS = 1
    NOT_WHOLE = 2
    OVERTAKEN = 0
    NOT_READY = -1
    OTHER_EPOCH = -3
    PERIOD = -4


class ShareAsk(msgspec.Struct, frozen=True, gc=False):
    """One shard in a round. Amounts in tokens; None: not said.

    Only within `epoch` anything is changed: `earlier_tokens`, what earlier epochs settled in the
    tier's period by the ledger, is counted once; the share becomes `wanted_tokens`, or as much more
    as is settled and held, once that is counted. `free_tokens` was free of the whole cap in the
    round before.
    """

    tier: str
    shard: int
    round: int
    period_start_ms: int
    epoch: int | None = None
    earlier_tokens: int | None = None
    wanted_tokens: int | None = None
    free_tokens: int | None = None


class ShareReply(msgspec.Struct, frozen=True, gc=False):
    """How a shard stands, in tokens; `stream_id` is its newest event."""

    code: ShareCode
    epoch: int
    share_tokens: int
    settled_tokens: int
    held_tokens: int
    stream_id: str
    now_ms: int

    @property
    def used_tokens(self) -> int:
        """What is gone, and what open holds may still take."""
        return max(0, self.settled_tokens + self.held_tokens)

    @property
    def taken_tokens(self) -> int:
        """What it has of the cap: its share, and what was charged beyond its holds."""
        return max(self.share_tokens, self.used_tokens)


def share(shard: Shard, ask: ShareAsk, now_ms: int, stream_id: str) -> ShareReply:
    """The rule of one shard. `stream_id` is the id of its newest event."""
    found = shard.share(ask.tier, ask.period_start_ms)
    if shard.epoch == 0 or found is None:
        return ShareReply(ShareCode.NOT_READY, 0, 0, 0, 0, "0-0", now_ms)

    def reply(code: ShareCode) -> ShareReply:
        settled = found.settled if found.period_ms >= ask.period_start_ms else 0
        return ShareReply(
            code, shard.epoch, found.share, settled, found.held, stream_id, now_ms
        )  # fmt: skip

    if found.round > ask.round:
        return reply(ShareCode.OVERTAKEN)
    if ask.epoch is not None and ask.epoch != shard.epoch:
        return reply(ShareCode.OTHER_EPOCH)
    if not found.runs(ask.period_start_ms, now_ms):
        return reply(ShareCode.PERIOD)
    _change(found, ask)
    found.round = ask.round
    found.free = found.free if ask.free_tokens is None else ask.free_tokens
    shard.tiers[ask.tier] = found
    return reply(ShareCode.STANDS if found.is_whole else ShareCode.NOT_WHOLE)


def _change(found: TierShare, ask: ShareAsk) -> None:
    found.count(ask.period_start_ms, 0, 0)
    if ask.epoch is None:
        return
    is_of_now = found.period_ms == ask.period_start_ms
    if ask.earlier_tokens is not None and not found.is_whole and is_of_now:
        found.settled, found.is_whole = found.settled + ask.earlier_tokens, True
    if ask.wanted_tokens is not None and found.is_whole:
        found.share = max(ask.wanted_tokens, found.settled + found.held)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a round wants of each shard: those to be lowered first, then those to be raised."""

    lowered: Mapping[int, int]
    raised: Mapping[int, int]


def free_of(cap_tokens: int, stands: Mapping[int, ShareReply]) -> int:
    """What nobody has used or holds."""
    return max(0, cap_tokens - sum(each.used_tokens for each in stands.values()))


def wanted(cap_tokens: int, stands: Mapping[int, ShareReply], round_number: int) -> Wanted:
    """Half of what is free is spread evenly, the other half goes to one shard after the other, so
    that also a large call finds room somewhere in time when little is left."""
    free = free_of(cap_tokens, stands)
    even = free // 2 // len(stands)
    favoured = sorted(stands)[round_number % len(stands)]
    shares = {shard: each.used_tokens + even for shard, each in stands.items()}
    shares[favoured] += free - even * len(stands)
    return Wanted(
        {shard: to for shard, to in shares.items() if to < stands[shard].share_tokens},
        {shard: to for shard, to in shares.items() if to > stands[shard].share_tokens},
    )


def affordable(
    raised: Mapping[int, int], cap_tokens: int, stands: Mapping[int, ShareReply]
) -> dict[int, int]:
    """Of the shares to be raised those that what is free by now pays for, the last one in part."""
    free = cap_tokens - sum(each.taken_tokens for each in stands.values())
    paid: dict[int, int] = {}
    for shard, to in raised.items():
        more = min(to - stands[shard].taken_tokens, free)
        if more > 0:
            paid[shard] = stands[shard].taken_tokens + more
            free -= more
    return paid
