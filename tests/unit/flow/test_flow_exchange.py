"""Whole answers and upstream's refusals: what the client gets, what is charged, and only once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.refusal import Case, Refused
from gateway.flow.accounts import project
from gateway.ports.directory import PackCredit
from gateway.ports.upstream import (
    UpstreamBroke,
    UpstreamCutOff,
    UpstreamSilent,
    UpstreamUnreachable,
)
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import completion
from tests.fakes.flow_rig import FlowRig
from tests.fakes.upstream import ScriptedAnswer

# A release carries an event, in case the hold turns out to have expired.
RELEASED = ("release", 0, "upstream_error", 0)
COUNTS = {"prompt_tokens": 20, "completion_tokens": 30}


async def answered(rig: FlowRig, source: ScriptedAnswer, **body: Any) -> RecordedAnswer:
    rig.will_answer(source)
    answer = RecordedAnswer(rig.store.journal)
    await rig.exchange.run(rig.call(await rig.user(), **body), answer)
    return answer


async def refused(rig: FlowRig, source: ScriptedAnswer | Exception) -> Refused:
    rig.will_answer(source)
    answer = RecordedAnswer()
    with pytest.raises(Refused) as caught:
        await rig.exchange.run(rig.call(await rig.user()), answer)
    assert answer.head is None
    assert len(rig.open_holds) == 0
    return caught.value


async def ended(rig: FlowRig) -> list[tuple[str, int, str, int]]:
    """(kind, charge, outcome, status) of each settlement sent; nothing is held any more."""
    account = await rig.account()
    assert (account.held_tokens, account.open_holds) == (0, 0)
    found: list[tuple[str, int, str, int]] = []
    for each in rig.store.sent:
        event = json.loads(each.event_json)
        found.append(
            (each.kind, each.charged_tokens, event.get("outcome", ""), event.get("status", 0))
        )
    return found


async def test_a_whole_answer_is_charged_as_it_says_and_tells_so(rig: FlowRig) -> None:
    body = completion("Hello", COUNTS, service_tier="flex")
    answer = await answered(rig, ScriptedAnswer([body[:9], body[9:]], relayed=(("a", "b"),)))
    assert answer.body == body
    assert answer.head is not None
    assert (answer.head.status, answer.head.charged_tokens) == (200, 50)
    assert answer.head.quota.used_tokens == 50
    assert answer.head.quota.held_tokens == 0
    assert answer.head.relayed == (("a", "b"),)
    assert answer.head.output_cap_tokens is None
    (row,) = await rig.rows()
    assert (row.charged_tokens, row.event.quality, row.event.outcome) == (50, "measured", "done")
    assert (row.event.service_tier, row.event.upstream_id) == ("flex", "req_up")
    assert await ended(rig) == [("settle", 50, "done", 200)]
    assert rig.store.journal == ["settle", "whole"]


async def test_what_the_allowance_cannot_pay_is_off_the_packs_in_the_answer(rig: FlowRig) -> None:
    """Thirty tokens are left of the month, and fifty are charged."""
    key = await rig.user(tier="full")
    await rig.accounts.set_used("ada", 15_990, "test", "tester")
    ends_ms = rig.clock.now_ms() + 1000
    credit = PackCredit("credit", "ada", "pack", 320, ends_ms, "payment", "ops")
    await project(await rig.directory.credit_pack(credit), rig.directory, rig.store, rig.clock)
    rig.will_answer(ScriptedAnswer([completion("Hello", COUNTS)]))
    answer = RecordedAnswer()
    await rig.exchange.run(rig.call(key), answer)
    assert answer.head is not None
    quota = answer.head.quota
    assert (quota.used_tokens, quota.pack_tokens, quota.remaining_tokens) == (16_020, 300, 300)


@pytest.mark.parametrize(
    "counts", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": 20}, 3]
)
async def test_a_whole_answer_without_believable_usage_is_counted(
    rig: FlowRig, counts: Any
) -> None:
    answer = await answered(rig, ScriptedAnswer([completion("Hello", counts)]))
    (row,) = await rig.rows()
    charge = row.held_tokens - 100 + len("Hello")
    assert (row.charged_tokens, row.event.quality) == (charge, "estimated")
    assert answer.head is not None
    assert answer.head.charged_tokens == charge


@pytest.mark.parametrize("body", [b"", b"Bad gateway, but 200", b"[]", b"\xff\xfe"])
async def test_a_body_that_is_no_completion_is_relayed_and_never_free(
    rig: FlowRig, body: bytes
) -> None:
    answer = await answered(rig, ScriptedAnswer([body] if body else []))
    assert answer.body == body
    (row,) = await rig.rows()
    assert row.event.quality == "estimated"
    assert row.charged_tokens >= row.held_tokens - 100


async def test_upstream_is_asked_once_with_the_held_cap_and_on_the_user_s_behalf(
    rig: FlowRig,
) -> None:
    await answered(rig, ScriptedAnswer([completion("Hi", COUNTS)]), max_tokens=70)
    (call,) = rig.upstream.calls
    assert (call.upstream, call.path, call.user_id) == ("openai", "/chat/completions", "ada")
    assert json.loads(call.body)["max_completion_tokens"] == 70
    assert rig.store.asks[-1].rid == call.rid
    (row,) = await rig.rows()
    assert row.event_id == call.rid


async def test_a_lowered_cap_is_held_sent_and_shown(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.accounts.set_used("ada", 950, "test", "tester")
    rig.will_answer(ScriptedAnswer([completion("Hi", COUNTS)]))
    answer = RecordedAnswer()
    await rig.exchange.run(rig.call(key), answer)
    cap = json.loads(rig.upstream.calls[0].body)["max_completion_tokens"]
    assert answer.head is not None
    assert answer.head.output_cap_tokens == cap < 100
    (row,) = await rig.rows()
    assert row.held_tokens == 50  # all that was left


async def test_the_metrics_tell_the_decision_the_times_and_the_charge(rig: FlowRig) -> None:
    await answered(rig, ScriptedAnswer([completion("Hi", COUNTS)]))
    await rig.settled()
    assert rig.metrics.of("decided") == [("free", "chat", "admitted", "ok")]
    assert [phase for phase, _ in rig.metrics.of("added_seconds")] == ["before", "after"]
    assert rig.metrics.of("first_byte_seconds") == [("gpt-4o-mini", 0.0)]
    ((event, held),) = rig.metrics.of("charged")
    assert (event.charged_tokens, held) == (50, (await rig.rows())[0].held_tokens)
    assert rig.metrics.of("hold_ended") == ["settled"]
    assert rig.metrics.of("unpriced") == []


async def test_a_model_without_a_price_is_booked_at_the_default_and_counted(rig: FlowRig) -> None:
    key = await rig.user(tier="lite")
    rig.will_answer(ScriptedAnswer([completion("Hi", COUNTS)]))
    await rig.exchange.run(rig.call(key, model="gpt-9"), RecordedAnswer())
    (row,) = await rig.rows()
    assert row.cost_nano_gbp == (20 + 30) * 9
    assert rig.metrics.of("unpriced") == ["gpt-9"]


# --- upstream's trouble ------------------------------------------------------------------------


async def test_an_upstream_without_a_connection_costs_nothing(rig: FlowRig) -> None:
    refusal = await refused(rig, UpstreamUnreachable("closed"))
    assert refusal.case is Case.UPSTREAM_UNAVAILABLE
    assert "Nothing was charged" in refusal.message
    assert await ended(rig) == [RELEASED]


@pytest.mark.parametrize("in_the_body", [False, True])
@pytest.mark.parametrize(
    ("error", "case", "status"),
    [
        (UpstreamBroke("cut"), Case.UPSTREAM_UNAVAILABLE, 502),
        (UpstreamSilent("silent"), Case.UPSTREAM_TIMEOUT, 504),
        (UpstreamCutOff("stopping"), Case.SHUTTING_DOWN, 503),
    ],
)
async def test_an_upstream_that_fails_after_the_request_leaves_a_row_for_the_invoice(
    rig: FlowRig, error: Exception, case: Case, status: int, in_the_body: bool
) -> None:
    refusal = await refused(rig, ScriptedAnswer([b"{", error]) if in_the_body else error)
    assert refusal.case is case
    assert await ended(rig) == [("settle", 0, "unknown_upstream", status)]
    assert len(rig.upstream.calls) == 1


@pytest.mark.parametrize("status", [400, 404, 409, 422, 429])
async def test_a_refusal_of_upstream_s_is_relayed_and_costs_nothing(
    rig: FlowRig, status: int
) -> None:
    body = b'{"error":{"message":"no","type":"x","code":"rate_limit_exceeded"}}'
    answer = await answered(rig, ScriptedAnswer([body], status, retry_after="7"))
    assert answer.body == body
    assert answer.head is not None
    assert (answer.head.status, answer.head.retry_after) == (status, "7")
    assert (answer.head.quota.held_tokens, answer.head.quota.used_tokens) == (0, 0)
    assert await ended(rig) == [RELEASED]


@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_a_fault_of_upstream_s_is_relayed_and_leaves_a_row_for_the_invoice(
    rig: FlowRig, status: int
) -> None:
    answer = await answered(rig, ScriptedAnswer([b'{"error":{}}'], status))
    assert answer.head is not None
    assert answer.head.status == status
    assert await ended(rig) == [("settle", 0, "unknown_upstream", status)]


@pytest.mark.parametrize(
    ("status", "body", "case"),
    [
        (401, b'{"error":{"message":"Incorrect key: sk-1***9"}}', Case.UPSTREAM_AUTH_FAILED),
        (403, b"sk-1***9", Case.UPSTREAM_AUTH_FAILED),
        (429, b'{"error":{"code":"insufficient_quota"}}', Case.UPSTREAM_QUOTA_EXHAUSTED),
        (301, b"sk-1***9", Case.UPSTREAM_UNAVAILABLE),
        (307, b"", Case.UPSTREAM_UNAVAILABLE),
    ],
)
async def test_what_would_tell_of_our_own_account_is_never_relayed(
    rig: FlowRig, status: int, body: bytes, case: Case
) -> None:
    refusal = await refused(rig, ScriptedAnswer([body], status))
    assert refusal.case is case
    assert "sk-" not in refusal.message
    assert await ended(rig) == [RELEASED]


async def test_an_error_whose_body_breaks_off_is_still_the_error(rig: FlowRig) -> None:
    answer = await answered(rig, ScriptedAnswer([b"{", UpstreamBroke("cut")], 400))
    assert answer.head is not None
    assert (answer.head.status, answer.body) == (400, b"")
    assert await ended(rig) == [RELEASED]


@pytest.mark.parametrize("status", [200, 400, 500])
async def test_every_answer_is_closed_once(rig: FlowRig, status: int) -> None:
    source = ScriptedAnswer([completion("Hi", COUNTS)], status)
    await answered(rig, source)
    assert source.closed == 1


async def test_a_client_that_left_is_no_error_and_pays(rig: FlowRig) -> None:
    rig.will_answer(ScriptedAnswer([completion("Hi", COUNTS)]))
    await rig.exchange.run(rig.call(await rig.user()), RecordedAnswer(gone_at=0))
    assert await ended(rig) == [("settle", 50, "done", 200)]


async def test_a_refused_call_never_reaches_upstream(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.accounts.set_used("ada", 1000, "test", "tester")
    with pytest.raises(Refused):
        await rig.exchange.run(rig.call(key), RecordedAnswer())
    assert rig.upstream.calls == []
