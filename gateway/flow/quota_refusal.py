"""A refusal for quota, in numbers and in words: which limit, until when, and how to go on.

The words are for the person who hit the limit, not for the developer; the numbers are for the
application. Nothing is decided here: the store has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from msgspec import structs

from gateway.core.hold import Hold
from gateway.core.period import Calendar
from gateway.core.quota.reserve import SHARED_MS, ReserveCode, ReserveReply
from gateway.core.refusal import Case, Limit, QuotaRefusal, QuotaView, Refused, TopUp, Upgrade
from gateway.flow.terms import Terms

_IN_FLIGHT_RETRY_S = 2  # other calls of the user are under way; most end within seconds
_CONCURRENT_RETRY_S = 1
# Limits beside the month's: what a person is told. None of them is mended by a pack, and a member's
# by nothing that the member could buy.
_OTHERS: Mapping[ReserveCode, tuple[Case, Limit, str]] = {
    ReserveCode.MEMBER: (
        Case.MEMBER_USED_UP,
        "member",
        "You have used {used:,} of the {limit:,} tokens that are yours within your team this "
        "month, and this request needs at least {needed:,}. They start again on {reset}.",
    ),
    ReserveCode.TIER: (
        Case.TIER_USED_UP,
        "tier",
        "All users of the tier '{tier}' together have used what is set aside for them this month. "
        "It starts again on {reset}.{way_on}",
    ),
    ReserveCode.BUDGET: (
        Case.BUDGET_SPENT,
        "budget",
        "What is left of your budget for this month does not pay for this request. It starts again "
        "on {reset}.{way_on}",
    ),
    ReserveCode.CONCURRENT: (
        Case.CONCURRENT,
        "concurrent",
        "As many of your requests are running as may run at once. Try again when one has ended.",
    ),
    ReserveCode.REQUESTS: (
        Case.REQUESTS_A_MINUTE,
        "requests_a_minute",
        "You have sent as many requests as you may within a minute. Try again in {wait} s.",
    ),
    ReserveCode.TOKENS: (
        Case.TOKENS_A_MINUTE,
        "tokens_a_minute",
        "You have used as many tokens as you may within a minute. Try again in {wait} s.",
    ),
}


def quota_view(reply: ReserveReply, tier: str) -> QuotaView:
    """The quota as the reserve found it (or left it)."""
    return QuotaView(
        tier=tier,
        limit_tokens=reply.limit_tokens,
        used_tokens=reply.used_tokens,
        held_tokens=reply.held_tokens,
        pack_tokens=reply.pack_tokens,
        reset_at_ms=reply.period_end_ms,
    )


def quota_refusal(reply: ReserveReply, asked: Hold, least: int, terms: Terms) -> Refused:
    """The refusal of a reserve that a limit bound. `least`: lowest cap worth a call."""
    needed = asked.prompt_tokens + least * asked.choices
    if reply.code is ReserveCode.TIER:
        reply = _of_the_tier(reply, terms)
    quota = _quota_refusal(reply, asked.caller.tier, needed, terms)
    if asked.prompt_tokens > _whole(reply):
        return _too_large(reply, asked, quota)
    if reply.code is ReserveCode.TIER and reply.wait_ms <= SHARED_MS:
        return Refused(
            Case.QUOTA_IN_FLIGHT,
            f"This request needs at least {needed:,} tokens. What is left for the tier "
            f"'{asked.caller.tier}' is being shared out anew. Try again in a moment.",
            retry_after_s=_IN_FLIGHT_RETRY_S,
            quota=_beside_the_month(quota, "tier"),
        )
    if reply.code is ReserveCode.IN_FLIGHT:
        return Refused(
            Case.QUOTA_IN_FLIGHT,
            f"This request needs at least {needed:,} tokens. They are left of your "
            f"{reply.limit_tokens:,} this month, but {reply.held_tokens:,} are held by your "
            "requests that are still running. Try again in a moment.",
            retry_after_s=_IN_FLIGHT_RETRY_S,
            quota=quota,
        )
    if reply.code is ReserveCode.TOKENS and not reply.wait_ms:
        return Refused(
            Case.REQUEST_EXCEEDS_QUOTA,
            f"This request needs at least {needed:,} tokens, more than you may use within a "
            "minute. Shorten it.",
            param="messages",
            quota=_beside_the_month(quota, "tokens_a_minute"),
        )
    if reply.code in _OTHERS:
        return _other_refusal(reply, quota)
    return Refused(
        Case.MONTH_USED_UP,
        f"You have used {reply.used_tokens:,} of your {reply.limit_tokens:,} tokens this month "
        f"(tier '{asked.caller.tier}'), and this request needs at least {needed:,}. Your quota "
        f"starts again on {_reset(reply)}.{_way_on(quota)}",
        retry_after_s=_seconds(reply.wait_ms),
        quota=quota,
    )


def _whole(reply: ReserveReply) -> int:
    """All that the caller could ever have in a period."""
    packs = 0 if reply.code is ReserveCode.MEMBER else reply.pack_tokens
    return reply.limit_tokens + packs


def _too_large(reply: ReserveReply, asked: Hold, quota: QuotaRefusal) -> Refused:
    whole = f"the whole quota of the tier '{asked.caller.tier}' ({reply.limit_tokens:,} a month)"
    if reply.code is ReserveCode.MEMBER:
        quota = _beside_the_month(quota, "member")
        whole = f"all that is yours within your team ({reply.limit_tokens:,} a month)"
    return Refused(
        Case.REQUEST_EXCEEDS_QUOTA,
        f"The prompt of this request alone has {asked.prompt_tokens:,} tokens, more than {whole}. "
        f"Shorten it.{_way_on(quota)}",
        param="messages",
        quota=quota,
    )


def _of_the_tier(reply: ReserveReply, terms: Terms) -> ReserveReply:
    """The same, until the tier's own period ends: it is the plan's, whatever the payer's is."""
    calendar = Calendar(terms.plan.anchor_day, terms.plan.zone)
    ends_ms = calendar.period_at(reply.now_ms).end_ms
    wait_ms = reply.wait_ms if reply.wait_ms <= SHARED_MS else ends_ms - reply.now_ms
    return structs.replace(reply, period_end_ms=ends_ms, wait_ms=wait_ms)


def _beside_the_month(quota: QuotaRefusal, limit: Limit) -> QuotaRefusal:
    """What helps against another limit than the month's: no pack, and a member's own no upgrade."""
    upgrade = None if limit == "member" else quota.upgrade
    return replace(quota, limit=limit, upgrade=upgrade, topup=None)


def _other_refusal(reply: ReserveReply, quota: QuotaRefusal) -> Refused:
    case, limit, words = _OTHERS[reply.code]
    quota = _beside_the_month(quota, limit)
    wait_s = _CONCURRENT_RETRY_S if case is Case.CONCURRENT else _seconds(reply.wait_ms)
    return Refused(
        case,
        words.format(
            used=reply.used_tokens,
            limit=reply.limit_tokens,
            needed=quota.needed_tokens,
            tier=quota.view.tier,
            reset=_reset(reply),
            wait=wait_s,
            way_on=_way_on(quota),
        ),
        retry_after_s=wait_s,
        quota=quota,
    )


def _reset(reply: ReserveReply) -> str:
    return f"{datetime.fromtimestamp(reply.period_end_ms / 1000, UTC):%-d %B %Y at %H:%M} UTC"


def _seconds(wait_ms: int) -> int:
    return max(1, -(-wait_ms // 1000))


def offers(tier_name: str, terms: Terms) -> tuple[Upgrade | None, TopUp | None]:
    """How a payer of that tier may go on before the period ends; a tier that is not in the plan any
    more offers nothing."""
    tier = terms.plan.tiers.get(tier_name)
    if tier is None:
        return None, None
    upgrade = Upgrade(tier.upgrade, terms.upgrade_url) if tier.upgrade else None
    packs = tier.packs
    topup = TopUp(packs.tokens, packs.price_gbp, terms.topup_url) if packs else None
    return upgrade, topup


def _quota_refusal(reply: ReserveReply, tier_name: str, needed: int, terms: Terms) -> QuotaRefusal:
    upgrade, topup = offers(tier_name, terms)
    return QuotaRefusal(
        limit="month",
        view=quota_view(reply, tier_name),
        needed_tokens=needed,
        upgrade=upgrade,
        topup=topup,
    )


def _way_on(quota: QuotaRefusal) -> str:
    """How to go on before the period ends, as sentences; '' when there is no way."""
    ways = ""
    if quota.upgrade:
        at = f" at {quota.upgrade.url}" if quota.upgrade.url else ""
        ways += f" To go on now, upgrade to the tier '{quota.upgrade.tier}'{at}."
    if quota.topup:
        at = f" at {quota.topup.url}" if quota.topup.url else ""
        ways += (
            f" To go on now, buy a pack of {quota.topup.tokens:,} tokens for "
            f"£{quota.topup.price_gbp}{at}."
        )
    return ways
