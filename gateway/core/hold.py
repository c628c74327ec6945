"""From a hold to its ledger event: the ways in which a call ends, and what each one charges.

A hold is made before a call and ends once. What it charged is measured (the upstream reported it),
estimated (counted here) or partial (the client left, what it got was counted). All amounts tokens.
"""

from __future__ import annotations

import msgspec

from gateway.core.event import HoldTail, Outcome, Quality, UsageEvent
from gateway.core.identity import member_of
from gateway.core.models import Weights
from gateway.core.period import Calendar
from gateway.core.pricing import Price, charged_tokens, cost_nano_gbp, line_of_call
from gateway.core.usage import Usage

# What an answer may have grown by between its last heartbeat and its gateway's death: progress is
# noted every 10 s at the latest, and no model writes faster than about 50 tokens a second.
UNSEEN_TOKENS_MAX = 512

# Of a prompt that nobody counted: its body's bytes by four were 0.99 to 1.28 times the tokens of
# English, code, Chinese and Japanese in o200k_base (twice where a client writes these as \u
# escapes). All its bytes would charge four times what was used.
BYTES_A_TOKEN = 4


class Caller(msgspec.Struct, frozen=True, gc=False):
    """On whose behalf, when the payer's periods begin, and what the client said of itself."""

    user_id: str
    payer: str
    tier: str
    calendar: Calendar
    tag: str | None = None
    sdk_retry: int = 0
    client_id: str | None = None

    @property
    def member(self) -> str | None:
        """The user as a member of a team; None where the user pays for themselves."""
        return member_of(self.payer, self.user_id)


class Hold(msgspec.Struct, frozen=True, gc=False):
    """A hold: `prompt_tokens + output_tokens x choices` of the payer's room.

    `epoch` and `period_start_ms` are the store's, frozen when the hold was made; in a hold that is
    still asked for the epoch is 0 and the period the one that was asked for. `limit_tokens` is the
    allowance it was made under; `tier_period_start_ms` is None unless its tier is capped.
    `service_tier` is the one that was asked for. `prompt_is_bound`: the prompt was not counted, it
    has at most so many tokens (its bytes). `in_outage`: Redis was away, so nothing is held for this
    call anywhere; its epoch is 0, and it is booked when Redis is back. Only then is
    `period_end_ms` told.
    """

    rid: str
    caller: Caller
    route: str
    model: str
    stream: bool
    price: Price
    weights: Weights
    prompt_tokens: int
    output_tokens: int
    choices: int
    hold_tokens: int = 0
    epoch: int = 0
    period_start_ms: int = 0
    limit_tokens: int = 0
    tier_period_start_ms: int | None = None
    service_tier: str | None = None
    prompt_is_bound: bool = False
    in_outage: bool = False
    period_end_ms: int = 0

    @property
    def likely_prompt_tokens(self) -> int:
        """The prompt as counted, or what its bytes most likely come to. Never more than is held."""
        if self.prompt_is_bound:
            return -(-self.prompt_tokens // BYTES_A_TOKEN)
        return self.prompt_tokens


class Ending(msgspec.Struct, frozen=True, gc=False):
    """How a call ended and what it used."""

    usage: Usage
    quality: Quality
    outcome: Outcome
    status: int
    service_tier: str | None = None
    upstream_id: str | None = None


NOTHING_USED = Usage(prompt_tokens=0, cached_tokens=0, output_tokens=0, reasoning_tokens=0)


def line_of_ending(hold: Hold, ending: Ending) -> Price:
    """The line of the frozen price list on which this end is booked."""
    return line_of_call(hold.price, ending.usage, ending.service_tier)


def usage_event(hold: Hold, ending: Ending, line: Price | None = None) -> UsageEvent:
    """The event that ends `hold`. `line`: the one of this ending, where it is known already."""
    used, caller = ending.usage, hold.caller
    if line is None:
        line = line_of_ending(hold, ending)
    # Without names, in the order of the fields: of more than 15 names Python makes a dict first,
    # which takes longer than all the rest.
    return UsageEvent(
        hold.rid,
        caller.payer,
        caller.user_id,
        caller.tier,
        hold.route,
        hold.model,
        hold.price.id,
        charged_tokens(
            used.prompt_tokens,
            used.cached_tokens,
            used.output_tokens,
            used.reasoning_tokens,
            hold.weights,
        ),
        cost_nano_gbp(line, used),
        ending.quality,
        _outage_outcome(ending.outcome) if hold.in_outage else ending.outcome,
        hold.stream,
        caller.tag,
        used.prompt_tokens,
        used.cached_tokens,
        used.output_tokens,
        used.reasoning_tokens,
        ending.service_tier,
        ending.status,
        caller.sdk_retry,
        ending.upstream_id,
        caller.client_id,
    )


def _outage_outcome(outcome: Outcome) -> Outcome:
    """What was spent in an outage is told apart, however it ended; what nobody can say was spent
    is still for comparing with the invoice."""
    return outcome if outcome == "unknown_upstream" else "outage"


def tail_of(hold: Hold) -> HoldTail:
    """The skeleton that goes into the hold, so that any gateway can write its row."""
    caller = hold.caller
    return HoldTail(
        payer=caller.payer,
        user_id=caller.user_id,
        tier=caller.tier,
        route=hold.route,
        model=hold.model,
        price_id=hold.price.id,
        stream=hold.stream,
        tag=caller.tag,
        sdk_retry=caller.sdk_retry,
        prompt_tokens=hold.likely_prompt_tokens,
        limit_tokens=hold.limit_tokens,
        tier_period_start_ms=hold.tier_period_start_ms,
    )


def expiry_event(
    rid: str, tail: HoldTail, price: Price, hold_tokens: int, progress_tokens: int
) -> UsageEvent:
    """The event of a hold that nobody ended.

    A stream's client has read up to `progress_tokens` and perhaps a little more, so that much is
    charged, within the hold; a whole answer never reached its client, so nothing is.
    """
    prompt = min(tail.prompt_tokens, hold_tokens)
    output = min(hold_tokens - prompt, progress_tokens + UNSEEN_TOKENS_MAX)
    used = Usage(prompt, 0, output, 0) if tail.stream else NOTHING_USED
    return UsageEvent(
        event_id=rid,
        payer=tail.payer,
        user_id=tail.user_id,
        tier=tail.tier,
        route=tail.route,
        model=tail.model,
        price_id=tail.price_id,
        charged_tokens=used.prompt_tokens + used.output_tokens,
        cost_nano_gbp=cost_nano_gbp(line_of_call(price, used), used),
        quality="estimated",
        outcome=_expired_as(tail.stream),
        stream=tail.stream,
        tag=tail.tag,
        prompt_tokens=used.prompt_tokens,
        output_tokens=used.output_tokens,
        sdk_retry=tail.sdk_retry,
    )


def is_expiry(quality: str, outcome: str, stream: bool) -> bool:
    """Whether an entry of these says no more than `expiry_event` does. A gateway's own word on an
    answer that failed whole is the same: it charges nothing either."""
    return quality == "estimated" and outcome == _expired_as(stream)


def _expired_as(stream: bool) -> Outcome:
    return "expired" if stream else "unknown_upstream"
