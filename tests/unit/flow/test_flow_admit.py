"""Every answer of `reserve` leads to a hold, a repair or a refusal; nothing else stays behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.event import decode_tail
from gateway.core.hold import Hold
from gateway.core.quota.settle import Settlement
from gateway.core.refusal import Case, Refused
from gateway.flow import admit
from gateway.flow.admit import Admitted
from gateway.ports.quota_store import StoreNotAsked
from tests.fakes.clock import DAY_MS
from tests.fakes.flow_rig import FlowRig, until


async def admitted(rig: FlowRig, key: str, **body: Any) -> Admitted:
    return await rig.admission.admit(rig.call(key, **body))


async def refusal(rig: FlowRig, key: str, **body: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await admitted(rig, key, **body)
    return caught.value


def reserves(rig: FlowRig) -> int:
    return rig.store.asked.count("reserve")


async def use(rig: FlowRig, user_id: str, tokens: int) -> None:
    await rig.accounts.set_used(user_id, tokens, "test", "tester")


async def test_a_call_at_first_sight_brings_the_account_back_and_holds(rig: FlowRig) -> None:
    found = await admitted(rig, await rig.user())
    hold = found.hold
    assert reserves(rig) == 2  # HYDRATE, then HELD
    assert hold.hold_tokens == hold.prompt_tokens + 100
    assert (hold.output_tokens, hold.choices, found.lowered) == (100, 1, False)
    assert (hold.epoch, hold.period_start_ms) == (1, rig.period.start_ms)
    assert (await rig.account()).held_tokens == hold.hold_tokens


async def test_a_call_of_a_known_user_takes_one_reserve_and_no_look_up(rig: FlowRig) -> None:
    key = await rig.user()
    await admitted(rig, key)
    asked, looked = reserves(rig), rig.directory.asked
    found = await admitted(rig, key)
    assert (reserves(rig) - asked, rig.directory.asked - looked) == (1, 0)
    assert found.quota.held_tokens == 2 * found.hold.hold_tokens
    assert found.quota.tier == "free"
    assert found.quota.reset_at_ms == rig.period.end_ms


async def test_the_hold_carries_all_that_its_row_needs(rig: FlowRig) -> None:
    await admitted(rig, await rig.user(), stream=True)
    tail = decode_tail(rig.store.asks[-1].tail)
    assert (tail.payer, tail.user_id, tail.tier, tail.tag) == ("ada", "ada", "free", "quiz")
    assert (tail.route, tail.model, tail.price_id, tail.stream) == (
        *("chat", "gpt-4o-mini", "2026", True),
    )


@pytest.mark.parametrize(
    ("body", "output_tokens", "choices"),
    [
        ({"max_tokens": 30}, 30, 1),
        ({"max_completion_tokens": 5}, 5, 1),
        ({"max_tokens": 9999}, 400, 1),
        ({"n": 3, "max_tokens": 30}, 30, 3),
    ],
)
async def test_what_is_held_is_prompt_plus_cap_for_each_choice(
    rig: FlowRig, body: dict[str, int], output_tokens: int, choices: int
) -> None:
    hold = (await admitted(rig, await rig.user(), **body)).hold
    assert (hold.output_tokens, hold.choices) == (output_tokens, choices)
    assert hold.hold_tokens == hold.prompt_tokens + output_tokens * choices


async def test_the_cap_is_lowered_to_what_is_left_and_no_further_than_it_is_worth(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    prompt = (await admitted(rig, key, max_tokens=1)).hold.prompt_tokens
    await use(rig, "ada", 1000 - (prompt + 1) - (prompt + 2 * 20))
    found = await admitted(rig, key, n=2, max_tokens=50)
    assert (found.hold.output_tokens, found.lowered) == (20, True)
    refused = await refusal(rig, key, max_tokens=50)
    assert refused.case is Case.QUOTA_IN_FLIGHT


async def test_a_month_used_up_is_refused_with_the_figures_and_holds_nothing(rig: FlowRig) -> None:
    key = await rig.user()
    await use(rig, "ada", 995)
    refused = await refusal(rig, key)
    assert refused.case is Case.MONTH_USED_UP
    assert refused.tier == "free"
    assert refused.quota is not None
    assert refused.quota.view.used_tokens == 995
    assert (await rig.account()).held_tokens == 0
    assert not rig.store.sent


async def test_a_call_that_fits_once_others_end_is_told_so(rig: FlowRig) -> None:
    key = await rig.user()
    await admitted(rig, key, max_tokens=400)
    await admitted(rig, key, max_tokens=400)
    await admitted(rig, key, max_tokens=400)  # lowered
    refused = await refusal(rig, key, max_tokens=400)
    assert (refused.case, refused.retry_after_s) == (Case.QUOTA_IN_FLIGHT, 2)


async def test_a_prompt_larger_than_the_whole_quota_is_a_mistake_of_the_request(
    rig: FlowRig,
) -> None:
    long = [{"role": "user", "content": "x" * 1001}]
    refused = await refusal(rig, await rig.user(), messages=long)
    assert (refused.case, refused.param) == (Case.REQUEST_EXCEEDS_QUOTA, "messages")


@pytest.mark.parametrize("model", ["gpt-9", "unknown", "x" * 128])
async def test_a_model_outside_of_the_tier_is_refused_before_the_store_is_asked(
    rig: FlowRig, model: str
) -> None:
    refused = await refusal(rig, await rig.user(), model=model)
    assert (refused.case, refused.param) == (Case.MODEL_NOT_ALLOWED, "model")
    assert "Available: gpt-4o-mini." in refused.message
    assert len(refused.message) < 300
    assert reserves(rig) == 0


async def test_a_tier_that_the_plan_has_no_terms_for_is_our_trouble(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.directory.set_tier("ada", "gold")
    refused = await refusal(rig, key)
    assert refused.case is Case.QUOTA_BACKEND_UNAVAILABLE
    assert "'gold'" in refused.message


# --- mending -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-9"])
async def test_a_change_of_tier_binds_at_the_very_next_call(rig: FlowRig, model: str) -> None:
    key = await rig.user()
    await admitted(rig, key)
    await rig.accounts.set_tier("ada", "lite")
    found = await admitted(rig, key, model=model)
    assert found.quota.limit_tokens == 10_000
    assert found.hold.caller.tier == found.quota.tier == "lite"
    assert decode_tail(rig.store.asks[-1].tail).tier == "lite"


async def test_a_newer_revision_in_the_ledger_is_projected_by_the_call_itself(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    await admitted(rig, key)
    await rig.directory.set_tier("ada", "lite")  # and its projection is missing
    await rig.identities.again(rig.identities.credential(key))
    asked = reserves(rig)
    assert (await admitted(rig, key)).quota.limit_tokens == 10_000
    assert reserves(rig) - asked == 2  # STALE, then HELD
    assert "entitle" in rig.store.asked
    assert (await rig.account()).rev == rig.directory.people["ada"].rev


async def test_a_revoked_key_is_refused_at_the_very_next_call(rig: FlowRig) -> None:
    key = await rig.user()
    await admitted(rig, key)
    (key_id,) = rig.directory.key_ids
    await rig.accounts.revoke_key(key_id)
    assert (await refusal(rig, key)).case is Case.INVALID_API_KEY
    assert (await rig.account()).open_holds == 1


async def test_a_smaller_tier_s_models_bind_a_call_that_is_under_way(rig: FlowRig) -> None:
    key = await rig.user(tier="lite")
    await admitted(rig, key)
    await rig.accounts.set_tier("ada", "free")
    refused = await refusal(rig, key, model="gpt-9")
    assert (refused.case, refused.tier) == (Case.MODEL_NOT_ALLOWED, "free")


async def test_a_period_by_a_wrong_clock_is_computed_anew_by_the_store_s(rig: FlowRig) -> None:
    key = await rig.user()
    rig.clock.ms -= 40 * DAY_MS
    old = rig.period
    hold = (await admitted(rig, key)).hold
    assert rig.store.asks[0].period_start_ms == old.start_ms
    assert hold.period_start_ms > old.start_ms
    rig.clock.ms += 40 * DAY_MS
    assert hold.period_start_ms == rig.period.start_ms


async def test_a_store_that_lost_everything_is_opened_and_brought_back(rig: FlowRig) -> None:
    key = await rig.user()
    await admitted(rig, key)
    await rig.lose_everything()
    asked = reserves(rig)
    hold = (await admitted(rig, key)).hold
    assert reserves(rig) - asked == 3  # NOT_READY, HYDRATE, HELD
    assert hold.epoch == 2


async def test_a_rid_that_was_released_before_it_arrived_is_never_forwarded(rig: FlowRig) -> None:
    key = await rig.user()
    await admitted(rig, key)
    call = rig.call(key)
    release = Settlement(call.rid, "ada", "release", 1, rig.period.start_ms, 0, 0, b"{}", "free")
    await (await rig.store.settle(release))
    with pytest.raises(Refused) as caught:
        await rig.admission.admit(call)
    assert caught.value.case is Case.QUOTA_BACKEND_UNAVAILABLE
    assert (await rig.account()).open_holds == 1


async def test_a_refusal_after_a_change_of_tier_is_counted_under_the_new_one(rig: FlowRig) -> None:
    key = await rig.user(tier="lite")
    await admitted(rig, key)
    await rig.accounts.set_tier("ada", "free")
    await rig.accounts.set_used("ada", 1000, "test", "tester")
    refused = await refusal(rig, key)
    assert (refused.case, refused.tier) == (Case.MONTH_USED_UP, "free")
    assert refused.quota is not None
    assert refused.quota.view.tier == "free"


async def test_a_call_that_can_never_be_mended_gives_up(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await rig.user()
    await admitted(rig, key)
    identity = rig.directory.people["ada"]
    await rig.accounts.set_tier("ada", "free")
    rig.directory.people["ada"] = identity  # a copy that lags behind what the store has seen

    async def raised_elsewhere(payer: str, past: int) -> None:
        pass

    monkeypatch.setattr(rig.directory, "raise_revision", raised_elsewhere)
    monkeypatch.setattr(admit, "_ASKS_MAX", 3)
    asked = reserves(rig)
    refused = await refusal(rig, key)
    assert refused.case is Case.QUOTA_BACKEND_UNAVAILABLE
    assert reserves(rig) - asked == 3


# --- stores away -------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["never arrives", "reply lost"])
async def test_a_reserve_of_unknown_outcome_is_released_under_its_rid(
    rig: FlowRig, trouble: Any
) -> None:
    key = await rig.user()
    await admitted(rig, key)
    held = (await rig.account()).held_tokens
    rig.store.trouble("reserve", trouble)
    call = rig.call(key)
    with pytest.raises(Refused) as caught:
        await rig.admission.admit(call)
    assert (caught.value.case, caught.value.retry_after_s) == (Case.QUOTA_BACKEND_UNAVAILABLE, 1)
    await rig.settled()
    account = await rig.account()
    assert [(each.rid, each.kind) for each in rig.store.sent] == [(call.rid, "release")]
    assert (account.held_tokens, account.open_holds) == (held, 1)


async def test_where_redis_was_not_even_asked_there_is_nothing_to_release(rig: FlowRig) -> None:
    key = await rig.user()
    await admitted(rig, key)
    rig.store.trouble("reserve", StoreNotAsked("the breaker is open"))
    assert (await refusal(rig, key)).case is Case.QUOTA_BACKEND_UNAVAILABLE
    assert (rig.store.sent, rig.settlements.unconfirmed) == ([], 0)


async def test_a_ledger_that_is_away_while_an_account_comes_back_is_our_trouble(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    await rig.identities.of(rig.identities.credential(key))
    rig.ledger.away = True
    refused = await refusal(rig, key)
    assert (refused.case, refused.retry_after_s) == (Case.QUOTA_BACKEND_UNAVAILABLE, 1)
    assert "its ledger" in refused.message
    rig.ledger.away = False
    assert (await admitted(rig, key)).hold.hold_tokens


# --- cancelled in between ----------------------------------------------------------------------


class Stop:
    """Stands at the n-th wait of the store's calls until it is told to go on."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, where: str) -> None:
        self._left -= 1
        if self._left == 0:
            self.reached.set()
            await self.go_on.wait()


# A first call passes: before and after reserve, hydrate begin, hydrate finish, reserve.
@pytest.mark.parametrize("place", range(1, 9))
async def test_a_call_cancelled_at_any_await_leaves_nothing_held(rig: FlowRig, place: int) -> None:
    key = await rig.user()
    rig.store.pause = stop = Stop(place)
    admission = asyncio.ensure_future(admitted(rig, key))
    await asyncio.wait_for(stop.reached.wait(), 10)
    admission.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admission
    stop.go_on.set()
    rig.store.pause = None
    await until(lambda: rig.store.sent)
    account = await _account_in_force(rig)
    assert [each.kind for each in rig.store.sent] == ["release"]
    assert (account.held_tokens, account.open_holds) == (0, 0)


async def _account_in_force(rig: FlowRig) -> Any:
    await rig.hydrator.hydrate("ada", rig.period)
    return await rig.account()


async def test_a_call_cancelled_before_anything_was_asked_releases_nothing(rig: FlowRig) -> None:
    admission = asyncio.ensure_future(admitted(rig, await rig.user()))
    admission.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admission
    await rig.settled()
    assert rig.store.asked.count("settle") == 0


async def test_a_large_prompt_is_counted_in_a_thread_and_to_the_token(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[object] = []
    to_thread = asyncio.to_thread

    async def seen(work: Any, *given: Any) -> Any:
        threads.append(work)
        return await to_thread(work, *given)

    key = await rig.user(tier="full")
    small: Hold = (await admitted(rig, key)).hold
    assert not threads
    monkeypatch.setattr(asyncio, "to_thread", seen)
    text = "x" * 15_000 + "Hi"
    padded = {"messages": [{"role": "user", "content": text}], "padding": "x" * 60_000}
    large: Hold = (await admitted(rig, key, **padded)).hold
    assert len(threads) == 1
    assert large.prompt_tokens == small.prompt_tokens + 15_000
