"""A prompt is held by its bytes where much is left, and never to anyone's cost."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.event import decode_tail
from gateway.core.hold import BYTES_A_TOKEN, UNSEEN_TOKENS_MAX
from gateway.core.models import ModelTable
from gateway.core.prompt.pictures import FlatRule
from gateway.core.refusal import Case, Refused
from gateway.flow.admit import Admitted, Call
from gateway.flow.room import BOUND_SHARE
from gateway.ports.upstream import UpstreamBroke
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import DONE, completion, finish, text, usage
from tests.fakes.flow_rig import COUNTS, MODEL, PLAN, TERMS, FlowRig, flow_rig
from tests.fakes.upstream import ScriptedAnswer, stream

PROMPT_TOKENS = len("user") + len("Hi") + 6  # a token is a character here
HELLO = (text("Hello"), text(" world"), finish())


async def seen(rig: FlowRig, key: str) -> None:
    """One call to its end, so that the user's room is known."""
    rig.will_answer(ScriptedAnswer([completion("Hi", COUNTS)]))
    await rig.exchange.run(rig.call(key), RecordedAnswer())
    await rig.settled()
    rig.tokenizer.counted.clear()
    rig.store.sent.clear()


async def rich(rig: FlowRig) -> str:
    """The key of a user with 16,020 tokens, of whom the gateway knows it."""
    key = await rig.user(tier="full")
    await seen(rig, key)
    return key


async def admitted(rig: FlowRig, call: Call) -> Admitted:
    return await rig.admission.admit(call)


async def test_at_first_sight_the_prompt_is_counted(rig: FlowRig) -> None:
    hold = (await admitted(rig, rig.call(await rig.user(tier="full")))).hold
    assert (hold.prompt_tokens, hold.prompt_is_bound) == (PROMPT_TOKENS, False)
    assert rig.tokenizer.counted


async def test_with_room_the_bytes_are_held_and_nothing_is_counted(rig: FlowRig) -> None:
    key = await rich(rig)
    call = rig.call(key)
    hold = (await admitted(rig, call)).hold
    assert (hold.prompt_tokens, hold.prompt_is_bound) == (call.body_bytes, True)
    assert hold.hold_tokens == call.body_bytes + 100
    assert rig.tokenizer.counted == []
    assert rig.store.asked.count("reserve") == 3  # two of them at first sight


async def test_the_bound_is_held_in_money_as_well(rig: FlowRig) -> None:
    call = rig.call(await rich(rig))
    await admitted(rig, call)
    assert rig.store.asks[-1].prompt_nano_gbp == 2 * call.body_bytes


@pytest.mark.parametrize(("more", "is_bound"), [(0, True), (-1, False)])
@pytest.mark.parametrize("choices", [1, 3])
async def test_a_twentieth_of_the_room_is_enough_and_no_less(
    rig: FlowRig, choices: int, more: int, is_bound: bool
) -> None:
    key = await rig.user(tier="full")
    call = rig.call(key, n=choices)
    left = BOUND_SHARE * (call.body_bytes + 100 * choices) + more
    await rig.accounts.set_used("ada", 16_020 - left - sum(COUNTS.values()), "test", "tester")
    await seen(rig, key)
    assert (await admitted(rig, call)).hold.prompt_is_bound is is_bound


async def test_a_request_that_is_not_text_is_counted(rig: FlowRig) -> None:
    key = await rich(rig)
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2, 3]}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert not (await admitted(rig, rig.call(key, tools=[tool]))).hold.prompt_is_bound


@pytest.mark.parametrize(
    "limits", [{"tokens_a_minute": 9000}, {"nano_gbp": 10**12}, {"shadow": True}], ids=str
)
async def test_where_a_hold_too_large_keeps_out_others_the_prompt_is_counted(
    limits: dict[str, Any],
) -> None:
    tiers = {**PLAN.tiers, "full": replace(PLAN.tiers["full"], **limits)}
    async with flow_rig(plan=replace(PLAN, tiers=tiers)) as rig:
        assert not (await admitted(rig, rig.call(await rich(rig)))).hold.prompt_is_bound


PICTURE = {"type": "image_url", "image_url": {"url": "https://example.test/a.png"}}
PICTURED: dict[str, Any] = {"messages": [{"role": "user", "content": [PICTURE]}]}


async def test_a_picture_is_held_by_its_rule() -> None:
    model = replace(TERMS.models[MODEL], pictures=FlatRule(700))
    async with flow_rig(models=ModelTable([model])) as rig:
        hold = (await admitted(rig, rig.call(await rich(rig), **PICTURED))).hold
        assert (hold.prompt_tokens, hold.prompt_is_bound) == (PROMPT_TOKENS - 2 + 700, False)


async def test_a_picture_for_a_model_that_takes_none_is_refused_and_holds_nothing(
    rig: FlowRig,
) -> None:
    key = await rich(rig)
    asked = rig.store.asked.count("reserve")
    with pytest.raises(Refused) as caught:
        await admitted(rig, rig.call(key, **PICTURED))
    assert caught.value.case is Case.UNSUPPORTED_PARAMETER
    assert rig.store.asked.count("reserve") == asked


# --- the bound never costs anyone a call -------------------------------------------------------


async def left_behind(rig: FlowRig, tokens: int) -> str:
    """A user of whom this gateway knows a full account, and another gateway left `tokens` of it."""
    key = await rich(rig)
    await rig.accounts.set_used("ada", 16_020 - tokens, "test", "tester")
    await rig.identities.again(rig.identities.credential(key))
    return key


@pytest.mark.parametrize("cap", [16, 99, 100])
async def test_a_call_that_fits_exactly_is_admitted_whatever_its_bytes(
    rig: FlowRig, cap: int
) -> None:
    key = await left_behind(rig, PROMPT_TOKENS + cap)
    call = rig.call(key)
    found = await admitted(rig, call)
    assert [ask.rid for ask in rig.store.asks[-2:]] == [call.rid] * 2
    assert [ask.prompt_tokens for ask in rig.store.asks[-2:]] == [call.body_bytes, PROMPT_TOKENS]
    assert (found.hold.prompt_tokens, found.hold.prompt_is_bound) == (PROMPT_TOKENS, False)
    assert (found.hold.output_tokens, found.lowered) == (cap, cap < 100)
    assert decode_tail(rig.store.asks[-1].tail).prompt_tokens == PROMPT_TOKENS


async def test_a_cap_is_not_lowered_because_of_the_bound(rig: FlowRig) -> None:
    body_bytes = rig.call(await rig.user("other")).body_bytes
    found = await admitted(rig, rig.call(await left_behind(rig, body_bytes + 50)))
    assert (found.hold.output_tokens, found.lowered) == (100, False)
    assert not found.hold.prompt_is_bound


async def test_a_refusal_tells_the_exact_figures(rig: FlowRig) -> None:
    key = await left_behind(rig, PROMPT_TOKENS + 15)
    with pytest.raises(Refused) as caught:
        await admitted(rig, rig.call(key))
    assert caught.value.case is Case.MONTH_USED_UP
    assert caught.value.quota is not None
    assert caught.value.quota.needed_tokens == PROMPT_TOKENS + 16
    assert f"needs at least {PROMPT_TOKENS + 16:,}" in caught.value.message


async def test_whoever_was_refused_is_counted_at_once_the_next_time(rig: FlowRig) -> None:
    key = await left_behind(rig, PROMPT_TOKENS + 15)
    for asks in (2, 1):
        before = rig.store.asked.count("reserve")
        with pytest.raises(Refused):
            await admitted(rig, rig.call(key))
        assert rig.store.asked.count("reserve") - before == asks


async def test_a_change_of_tier_on_the_way_keeps_the_bound_it_asked_with(rig: FlowRig) -> None:
    key = await rich(rig)
    await rig.accounts.set_tier("ada", "lite")
    hold = (await admitted(rig, rig.call(key))).hold
    assert (hold.prompt_is_bound, hold.limit_tokens) == (True, 10_000)


async def test_calls_at_once_hold_at_most_a_twentieth_by_their_bytes(rig: FlowRig) -> None:
    key = await rich(rig)
    found = await asyncio.gather(*(admitted(rig, rig.call(key)) for _ in range(20)))
    by_bytes = [each.hold for each in found if each.hold.prompt_is_bound]
    assert len(by_bytes) == 16_020 // BOUND_SHARE // by_bytes[0].hold_tokens
    assert len(found) == 20


# --- what is charged where the answer does not tell --------------------------------------------


async def charged(rig: FlowRig, source: ScriptedAnswer, **how: Any) -> tuple[int, str]:
    """What a call under a bound is charged for its prompt, and how good that is."""
    gone_at = how.pop("gone_at", None)
    call = rig.call(await rich(rig), **how)
    rig.will_answer(source)
    await rig.exchange.run(call, RecordedAnswer(gone_at=gone_at))
    row = (await rig.rows())[-1]
    assert row.held_tokens == call.body_bytes + 100
    return row.event.prompt_tokens, row.event.quality


async def test_reported_usage_is_charged_and_the_prompt_never_counted(rig: FlowRig) -> None:
    found = await charged(rig, ScriptedAnswer([completion("Hi", COUNTS)]))
    assert found == (20, "measured")
    assert rig.tokenizer.counted == []


async def test_usage_that_a_stream_reports_is_charged(rig: FlowRig) -> None:
    assert await charged_of_stream(rig, (*HELLO, usage(20, 30), DONE)) == (20, "measured")


async def charged_of_stream(rig: FlowRig, pieces: Any, **how: Any) -> tuple[int, str]:
    return await charged(rig, stream(*pieces), stream=True, **how)


async def test_an_answer_without_usage_has_its_prompt_counted_then(rig: FlowRig) -> None:
    found = await charged(rig, ScriptedAnswer([completion("Hello", None)]))
    assert found == (PROMPT_TOKENS, "estimated")


@pytest.mark.parametrize(
    ("pieces", "gone_at", "quality"),
    [
        ((*HELLO, DONE), None, "estimated"),
        (HELLO, None, "estimated"),
        ((HELLO[0], UpstreamBroke("cut")), None, "partial"),
        ((HELLO[0], b'data: {"error":{"message":"no"}}\n\n'), None, "partial"),
        ((*HELLO, DONE), 1, "partial"),
    ],
    ids=["no usage", "no end", "cut", "error", "client gone"],
)
async def test_a_stream_without_usage_has_its_prompt_counted_then(
    rig: FlowRig, pieces: Any, gone_at: int | None, quality: str
) -> None:
    assert await charged_of_stream(rig, pieces, gone_at=gone_at) == (PROMPT_TOKENS, quality)


async def test_a_stream_that_nobody_ends_is_not_charged_its_bytes(rig: FlowRig) -> None:
    key = await rich(rig)
    call = rig.call(key, stream=True)
    hold = (await admitted(rig, call)).hold
    await rig.expire()
    row = (await rig.rows())[-1]
    likely = -(-call.body_bytes // BYTES_A_TOKEN)
    assert (row.event.prompt_tokens, row.event.outcome) == (likely, "expired")
    assert row.charged_tokens == min(hold.hold_tokens, likely + UNSEEN_TOKENS_MAX)


async def test_cancelled_while_it_counts_a_stream_settles_all_the_same(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = asyncio.Event()
    to_thread = asyncio.to_thread

    async def slow(work: Any, *given: Any) -> Any:
        if not counting.is_set():
            counting.set()
            await asyncio.Event().wait()
        return await to_thread(work, *given)

    key = await rich(rig)
    monkeypatch.setattr("gateway.flow.prompt_count.is_large", lambda chars: True)
    monkeypatch.setattr(asyncio, "to_thread", slow)
    rig.will_answer(stream(*HELLO, DONE))
    run = asyncio.ensure_future(rig.exchange.run(rig.call(key, stream=True), RecordedAnswer()))
    await counting.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    row = (await rig.rows())[-1]
    assert (row.event.prompt_tokens, row.event.outcome) == (PROMPT_TOKENS, "done")
    assert json.loads(rig.store.sent[-1].event_json)["output_tokens"] == len("Hello world")


async def test_the_loop_goes_on_while_a_large_prompt_is_counted(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, went_on = asyncio.get_running_loop(), threading.Event()
    reached = asyncio.Event()
    seen_going_on: list[bool] = []

    def count(text: str, encoding: str) -> int:
        loop.call_soon_threadsafe(reached.set)
        seen_going_on.append(went_on.wait(10))  # on the loop itself, it would wait in vain
        return len(text)

    monkeypatch.setattr(rig.tokenizer, "count", count)
    key = await rig.user(tier="full")
    admission = asyncio.ensure_future(admitted(rig, rig.call(key, padding="x" * 70_000)))
    await reached.wait()
    assert not admission.done()
    went_on.set()
    assert (await admission).hold.prompt_tokens == PROMPT_TOKENS
    assert set(seen_going_on) == {True}


# --- how good the count was --------------------------------------------------------------------


async def test_a_counted_prompt_is_compared_with_what_was_measured(rig: FlowRig) -> None:
    await seen(rig, await rig.user())
    assert rig.metrics.of("prompt_measured") == [(MODEL, PROMPT_TOKENS, 20)]


async def test_a_bound_is_no_estimate(rig: FlowRig) -> None:
    await charged(rig, ScriptedAnswer([completion("Hi", COUNTS)]))
    assert len(rig.metrics.of("prompt_measured")) == 1  # of the first sight


async def test_neither_is_a_prompt_that_nobody_measured(rig: FlowRig) -> None:
    rig.will_answer(ScriptedAnswer([completion("Hi", None)]))
    await rig.exchange.run(rig.call(await rig.user()), RecordedAnswer())
    assert rig.metrics.of("prompt_measured") == []
