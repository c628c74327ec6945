"""A refusal for quota says which limit, until when, and how to go on, to the token."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from msgspec import structs

from gateway.core.hold import Caller, Hold
from gateway.core.models import Weights
from gateway.core.period import Calendar
from gateway.core.pricing import Price
from gateway.core.quota.reserve import ReserveCode, ReserveReply
from gateway.core.refusal import Case, Limit, Refused, TopUp, Upgrade
from gateway.flow.quota_refusal import quota_refusal, quota_view
from tests.fakes.flow_rig import TERMS

DECEMBER_MS = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1000)
REPLY = ReserveReply(
    code=ReserveCode.MONTH,
    output_tokens=0,
    hold_tokens=0,
    hold_nano_gbp=0,
    used_tokens=999,
    held_tokens=1,
    limit_tokens=1000,
    pack_tokens=0,
    spent_nano_gbp=0,
    period_start_ms=0,
    period_end_ms=DECEMBER_MS,
    now_ms=DECEMBER_MS - 90_500,
    wait_ms=90_500,
    rev=1,
    member_rev=1,
    epoch=1,
)
PRICE, WEIGHTS = Price("p", 0, 0, 0), Weights()
ADA = Caller("ada", "ada", "free", Calendar(1, "UTC"))
HOLD = Hold("rid", ADA, "chat", "m", False, PRICE, WEIGHTS, 12, 100, 2)


def refusal(tier: str = "free", reply: ReserveReply = REPLY, urls: bool = False) -> Refused:
    asked = structs.replace(HOLD, caller=structs.replace(ADA, tier=tier))
    terms = replace(TERMS, upgrade_url="https://u.example", topup_url="https://t.example")
    return quota_refusal(reply, asked, 16, terms if urls else TERMS)


def test_a_month_used_up_names_use_limit_need_and_end() -> None:
    refused = refusal()
    assert refused.case is Case.MONTH_USED_UP
    assert refused.message == (
        "You have used 999 of your 1,000 tokens this month (tier 'free'), and this request needs "
        "at least 44. Your quota starts again on 1 December 2026 at 00:00 UTC. To go on now, "
        "upgrade to the tier 'lite'."
    )
    assert refused.retry_after_s == 91  # rounded up: never asked to come too early


@pytest.mark.parametrize(("wait_ms", "seconds"), [(1, 1), (0, 1), (1000, 1), (1001, 2)])
def test_the_time_to_wait_is_never_below_a_second(wait_ms: int, seconds: int) -> None:
    assert refusal(reply=structs.replace(REPLY, wait_ms=wait_ms)).retry_after_s == seconds


def test_the_figures_stand_beside_the_words() -> None:
    quota = refusal().quota
    assert quota is not None
    assert (quota.limit, quota.needed_tokens) == ("month", 12 + 16 * 2)
    assert quota.view == quota_view(REPLY, "free")
    assert (quota.view.used_tokens, quota.view.held_tokens) == (999, 1)
    assert quota.view.reset_at_ms == DECEMBER_MS


@pytest.mark.parametrize(
    ("tier", "urls", "words", "upgrade", "topup"),
    [
        ("free", False, "upgrade to the tier 'lite'.", Upgrade("lite", None), None),
        (
            *("free", True, "upgrade to the tier 'lite' at https://u.example."),
            *(Upgrade("lite", "https://u.example"), None),
        ),
        (
            *("full", False, "buy a pack of 320 tokens for £2.00.", None),
            TopUp(320, Decimal("2.00"), None),
        ),
        (
            *("full", True, "buy a pack of 320 tokens for £2.00 at https://t.example.", None),
            TopUp(320, Decimal("2.00"), "https://t.example"),
        ),
    ],
)
def test_the_way_on_is_the_tier_s_own(
    tier: str, urls: bool, words: str, upgrade: Upgrade | None, topup: TopUp | None
) -> None:
    refused = refusal(tier, urls=urls)
    assert refused.quota is not None
    assert refused.message.endswith(f"To go on now, {words}")
    assert (refused.quota.upgrade, refused.quota.topup) == (upgrade, topup)


def test_tokens_that_others_hold_will_be_free_in_a_moment() -> None:
    refused = refusal(reply=structs.replace(REPLY, code=ReserveCode.IN_FLIGHT, held_tokens=800))
    assert (refused.case, refused.retry_after_s) == (Case.QUOTA_IN_FLIGHT, 2)
    assert "needs at least 44" in refused.message
    assert "800 are held by your requests that are still running" in refused.message
    assert "upgrade" not in refused.message


def test_a_prompt_beyond_allowance_and_packs_is_the_request_s_own_mistake() -> None:
    def refused(pack_tokens: int) -> Refused:
        reply = structs.replace(REPLY, limit_tokens=10, pack_tokens=pack_tokens)
        return refusal(reply=reply)

    assert refused(0).case is Case.REQUEST_EXCEEDS_QUOTA
    assert refused(1).case is Case.REQUEST_EXCEEDS_QUOTA
    assert refused(2).case is Case.MONTH_USED_UP
    assert (refused(0).param, refused(0).retry_after_s) == ("messages", None)
    assert "has 12 tokens" in refused(0).message


@pytest.mark.parametrize(
    ("code", "case", "limit", "retry_after_s", "words"),
    [
        (
            *(ReserveCode.MEMBER, Case.MEMBER_USED_UP, "member", 91),
            "You have used 999 of the 1,000 tokens that are yours within your team this month, and "
            "this request needs at least 44. They start again on 1 December 2026 at 00:00 UTC.",
        ),
        (
            *(ReserveCode.TIER, Case.TIER_USED_UP, "tier", 91),
            "All users of the tier 'free' together have used what is set aside for them this "
            "month. It starts again on 1 December 2026 at 00:00 UTC. To go on now, upgrade to the "
            "tier 'lite'.",
        ),
        (
            *(ReserveCode.BUDGET, Case.BUDGET_SPENT, "budget", 91),
            "What is left of your budget for this month does not pay for this request. It starts "
            "again on 1 December 2026 at 00:00 UTC. To go on now, upgrade to the tier 'lite'.",
        ),
        (
            *(ReserveCode.CONCURRENT, Case.CONCURRENT, "concurrent", 1),
            "As many of your requests are running as may run at once. Try again when one has "
            "ended.",
        ),
        (
            *(ReserveCode.REQUESTS, Case.REQUESTS_A_MINUTE, "requests_a_minute", 91),
            "You have sent as many requests as you may within a minute. Try again in 91 s.",
        ),
        (
            *(ReserveCode.TOKENS, Case.TOKENS_A_MINUTE, "tokens_a_minute", 91),
            "You have used as many tokens as you may within a minute. Try again in 91 s.",
        ),
    ],
)
def test_each_other_limit_has_its_case_its_words_and_its_wait(
    code: ReserveCode, case: Case, limit: Limit, retry_after_s: int, words: str
) -> None:
    refused = refusal(reply=structs.replace(REPLY, code=code))
    assert (refused.case, refused.retry_after_s, refused.message) == (case, retry_after_s, words)
    assert refused.quota is not None
    assert (refused.quota.limit, refused.quota.needed_tokens) == (limit, 44)
    assert refused.quota.view.used_tokens == 999


def test_there_is_no_code_of_a_refusal_without_words() -> None:
    told = {
        refusal(reply=structs.replace(REPLY, code=code)).case for code in ReserveCode if code <= -10
    }
    assert len(told) == 8
