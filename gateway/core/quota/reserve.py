"""Asking for a hold: the call, every limit that may bind it, and the answer.

All limits are checked together, and either the hold is made under all of them or nothing is. The
limits come with each call from the configuration, so changing one rewrites no account.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec


class ReserveCode(IntEnum):
    """What `reserve` answers: above 0 held; -1 to -5 mend and ask again; from -10 refused.

    MONTH, MEMBER, TIER and BUDGET do not fit even when no hold were open; IN_FLIGHT fits one of
    these once open holds end. REQUESTS and TOKENS are a minute's.
    """

    HELD = 1
    HELD_BEFORE = 2
    NOT_READY = -1
    HYDRATE = -2
    STALE = -3
    PERIOD = -4
    ENDED = -5
    MONTH = -10
    IN_FLIGHT = -11
    MEMBER = -12
    TIER = -13
    BUDGET = -14
    CONCURRENT = -15
    REQUESTS = -16
    TOKENS = -17


SHARED_MS = 1000
"""So soon what is free of a tier's cap is shared out anew."""


class Limits(msgspec.Struct, frozen=True, gc=False):
    """What binds one call; None: no such limit.

    `tokens` is the tier's allowance of a period for the payer, beside packs; `member_tokens` a
    member's own ceiling within a team; `nano_gbp` the payer's budget of a period. Whoever calls
    (the member, else the payer) may have `concurrent` holds open, and so many requests and tokens
    a minute: at most limit + limit x t / 60 in any t seconds (GCRA, burst = limit), by what calls
    hold when they are admitted. A tier that is capped as a whole has `tier_period_start_ms`, the
    start of the tier's own period; its cap is handed out by shard, in Redis. Of a `shadow` tier
    every hold is made, as large as it is wanted; what the limits say is only told.
    """

    tokens: int
    member_tokens: int | None = None
    nano_gbp: int | None = None
    requests_a_minute: int | None = None
    tokens_a_minute: int | None = None
    concurrent: int | None = None
    tier_period_start_ms: int | None = None
    shadow: bool = False


class ReserveAsk(msgspec.Struct, frozen=True, gc=False):
    """One hold, asked for. Amounts in tokens unless named otherwise.

    The hold is `prompt_tokens + cap x choices`, where the cap granted lies between `output_least`
    and `output_wanted`; in money it is `prompt_nano_gbp + cap x choices x output_nano_gbp`.
    `member` is the user when the payer is a team. `rev` and `member_rev` are the revisions under
    which payer and member were read. The period is the payer's by the gateway's clock. `tail` is
    the event's skeleton. `lease_ms` 0 only asks: the answer is the same, and nothing is held.
    """

    rid: str
    payer: str
    tier: str
    rev: int
    period_start_ms: int
    period_end_ms: int
    limits: Limits
    prompt_tokens: int
    output_wanted: int
    output_least: int
    choices: int
    lease_ms: int
    tail: bytes
    prompt_nano_gbp: int = 0
    output_nano_gbp: int = 0
    member: str | None = None
    member_rev: int = 0


class ReserveReply(msgspec.Struct, frozen=True, gc=False):
    """The answer. `output_tokens` is the cap granted a choice.

    `used_tokens` is what counts against the allowance (settled, less what packs paid, plus
    adjustments), `limit_tokens` the allowance, `pack_tokens` what live packs have left; after
    MEMBER, used, held and limit are the member's. `period_*_ms` are the borders of the hold's
    period. `wait_ms` says when to ask again, where that is known; otherwise it is 0 (after TOKENS:
    never, the call is larger than a minute's limit). After TIER it is SHARED_MS where other shards
    may have what the call needs. `spared` is the code that a shadow tier's call would have been
    refused with, or 0.
    """

    code: ReserveCode
    output_tokens: int
    hold_tokens: int
    hold_nano_gbp: int
    used_tokens: int
    held_tokens: int
    limit_tokens: int
    pack_tokens: int
    spent_nano_gbp: int
    period_start_ms: int
    period_end_ms: int
    now_ms: int
    wait_ms: int
    rev: int
    member_rev: int
    epoch: int
    spared: int = 0
