"""What binds a call: tiers, teams, users of their own limits, shadows; and what a refusal says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from gateway.core.identity import Identity
from gateway.core.overrides import Overrides
from gateway.core.period import Calendar
from gateway.core.plan import Plan
from gateway.core.pricing import nano_of
from gateway.core.quota.reserve import Limits, ReserveCode
from gateway.core.refusal import Case, Refused
from gateway.flow.limits import Bindings, models_of
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import completion
from tests.fakes.flow_rig import COUNTS, PLAN, FlowRig, flow_rig
from tests.fakes.upstream import ScriptedAnswer
from tests.unit.flow.test_flow_quota_refusal import DECEMBER_MS, REPLY, refusal

NOVEMBER_MS = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
ALL: dict[str, Any] = {
    "requests_a_minute": 5, "tokens_a_minute": 600, "concurrent": 7, "nano_gbp": 80,
}  # fmt: skip


def plan_of(**limits: Any) -> Plan:
    """The rig's plan, with these limits on the tier `full`."""
    tiers = {**PLAN.tiers, "full": replace(PLAN.tiers["full"], **limits)}
    return replace(PLAN, tiers=tiers)


def who(member: str = "ada", **own: Any) -> Identity:
    return Identity(member, "ada", "full", 1, Calendar(15, "UTC"), **own)


def limits_of(identity: Identity, **tier: Any) -> Limits:
    return Bindings(plan_of(**tier)).of(identity, NOVEMBER_MS).limits


def test_without_limits_of_its_own_a_user_has_its_tier_s() -> None:
    bindings = Bindings(plan_of(**ALL))
    found = bindings.of(who(), NOVEMBER_MS)
    assert found.limits == Limits(
        16_020, nano_gbp=80, requests_a_minute=5, tokens_a_minute=600, concurrent=7
    )
    assert bindings.of(who(), NOVEMBER_MS + 1) is found


def test_a_member_s_own_go_before_its_team_s_and_those_before_the_tier_s() -> None:
    team = Overrides(tokens=99, rpm=50, tpm=None, gbp="0.5")
    mine = Overrides(tokens=9, rpm=3, concurrent=None)
    found = limits_of(who("mia", member_rev=1, limits=team, member_limits=mine), **ALL)
    assert found == Limits(
        99, member_tokens=9, nano_gbp=500_000_000, requests_a_minute=3, tokens_a_minute=None,
        concurrent=None,
    )  # fmt: skip
    alone = limits_of(who(limits=team, member_limits=mine), **ALL)
    assert (alone.member_tokens, alone.requests_a_minute, alone.concurrent) == (None, 50, 7)


def test_pounds_are_exact() -> None:
    assert [nano_of(each) for each in ("0.01", "999999.999999999", None)] == [
        10_000_000, 999_999_999_999_999, None,
    ]  # fmt: skip


def test_a_capped_tier_has_the_period_of_the_plan_whatever_the_payer_s_is() -> None:
    bindings = Bindings(plan_of(tier_tokens=1))
    before, after = bindings.of(who(), NOVEMBER_MS - 1), bindings.of(who(), NOVEMBER_MS)
    own = bindings.of(who(limits=Overrides(rpm=1)), NOVEMBER_MS)
    assert after.limits.tier_period_start_ms == own.limits.tier_period_start_ms == NOVEMBER_MS
    assert before.limits.tier_period_start_ms == before.period.start_ms < NOVEMBER_MS
    assert bindings.of(who(), NOVEMBER_MS - 1).limits == before.limits  # a clock went back


@pytest.mark.parametrize(
    ("tier", "own", "by_bytes"),
    [
        ({}, {}, True),
        ({"requests_a_minute": 1, "concurrent": 1}, {}, True),
        *(({name: 5}, {}, False) for name in ("tokens_a_minute", "nano_gbp", "tier_tokens")),
        ({"shadow": True}, {}, False),
        ({}, {"member_rev": 1, "member_limits": Overrides(tokens=5)}, False),
        ({"tokens_a_minute": 5}, {"limits": Overrides(tpm=None)}, True),
    ],
)
def test_prompts_are_held_by_bytes_only_where_that_keeps_out_nobody(
    tier: dict[str, Any], own: dict[str, Any], by_bytes: bool
) -> None:
    found = Bindings(plan_of(**tier)).of(who("mia", **own), NOVEMBER_MS)
    assert found.by_bytes is by_bytes


def test_models_of_a_user_s_own_replace_its_tier_s() -> None:
    tier = PLAN.tiers["free"]
    own = who("mia", limits=Overrides(models=("a*",)), member_limits=Overrides(models=("b",)))
    assert models_of(tier, own).allows("b")
    assert not models_of(tier, own).allows("ab")
    assert models_of(tier, replace(own, member_limits=Overrides())).allows("ab")
    assert not models_of(tier, who()).allows("ab")


# --- shadow -------------------------------------------------------------------------------------


@pytest.fixture
async def shadow() -> AsyncIterator[FlowRig]:
    async with flow_rig(plan=plan_of(shadow=True, tokens=60, models=("none",))) as rig:
        yield rig


async def test_a_shadow_tier_lets_through_and_tells_why_it_would_not(shadow: FlowRig) -> None:
    key = await shadow.user("ada", "full")
    decisions = []
    for _ in range(3):
        shadow.will_answer(ScriptedAnswer([completion("Hi", COUNTS)]))
        answer = RecordedAnswer()
        await shadow.exchange.run(shadow.call(key, max_tokens=40), answer)
        await shadow.settled()
        assert answer.head is not None
        decisions.append(answer.head.decision)
    assert decisions == ["shadow-refused"] * 3
    assert [each[2:] for each in shadow.metrics.of("decided")] == [
        ("shadow-refused", "model_not_allowed"),  # the first would have fitted
        ("shadow-refused", "insufficient_quota"),
        ("shadow-refused", "insufficient_quota"),
    ]
    account = await shadow.account()
    assert (account.settled_tokens, account.held_tokens) == (150, 0)


async def test_a_shadow_tier_goes_on_while_the_store_is_away(shadow: FlowRig) -> None:
    key = await shadow.user("ada", "full")
    await shadow.spend(key)
    shadow.store.away = True
    admitted = await shadow.admission.admit(shadow.call(key, max_tokens=40))
    assert (admitted.hold.in_outage, admitted.hold.output_tokens) == (True, 40)
    shadow.store.away = False


@pytest.mark.parametrize("limits", [{"tier_tokens": 10**6}, {}], ids=["capped", "a ceiling"])
async def test_what_only_the_store_knows_is_not_spent_while_it_is_away(
    limits: dict[str, Any],
) -> None:
    async with flow_rig(plan=plan_of(**limits)) as rig:
        await rig.user("team", "full")
        key = await rig.member("mia", "team")
        if not limits:
            people = rig.directory.people
            people["mia"] = replace(people["mia"], member_limits=Overrides(tokens=900))
            await rig.spend(key)
        rig.store.away = True
        with pytest.raises(Refused) as refused:
            await rig.admission.admit(rig.call(key))
        assert refused.value.case is Case.QUOTA_BACKEND_UNAVAILABLE


# --- refusals -----------------------------------------------------------------------------------


def test_a_tier_s_cap_ends_with_the_plan_s_period_not_with_the_payer_s() -> None:
    reply = structs.replace(
        REPLY, code=ReserveCode.TIER, period_end_ms=DECEMBER_MS + 9 * 86_400_000
    )
    refused = refusal("free", reply)
    assert (refused.case, refused.retry_after_s) == (Case.TIER_USED_UP, 91)
    assert refused.quota is not None
    assert (refused.quota.limit, refused.quota.view.reset_at_ms) == ("tier", DECEMBER_MS)
    assert "starts again on 1 December 2026 at 00:00 UTC" in refused.message
    assert refused.message.endswith("upgrade to the tier 'lite'.")


def test_what_other_shards_may_have_is_worth_another_try() -> None:
    refused = refusal("full", structs.replace(REPLY, code=ReserveCode.TIER, wait_ms=1_000))
    assert (refused.case, refused.retry_after_s) == (Case.QUOTA_IN_FLIGHT, 2)
    assert refused.quota is not None
    assert (refused.quota.limit, refused.quota.topup) == ("tier", None)


@pytest.mark.parametrize("code", [ReserveCode.MEMBER, ReserveCode.BUDGET, ReserveCode.REQUESTS])
def test_no_pack_is_offered_against_another_limit_than_the_month_s(code: ReserveCode) -> None:
    refused = refusal("full", structs.replace(REPLY, code=code))
    assert refused.quota is not None
    assert refused.quota.topup is None
    assert "pack" not in refused.message


def test_a_prompt_beyond_a_member_s_ceiling_is_told_as_that() -> None:
    reply = structs.replace(REPLY, code=ReserveCode.MEMBER, limit_tokens=11, pack_tokens=500)
    refused = refusal("free", reply)
    assert refused.case is Case.REQUEST_EXCEEDS_QUOTA
    assert "more than all that is yours within your team (11 a month)" in refused.message
    assert refused.quota is not None
    assert (refused.quota.limit, refused.quota.upgrade) == ("member", None)
