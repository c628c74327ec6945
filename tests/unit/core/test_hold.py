"""Each way in which a call ends, and what it charges."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.core.event import Outcome, Quality, decode_tail, encode_tail
from gateway.core.hold import (
    NOTHING_USED,
    UNSEEN_TOKENS_MAX,
    Caller,
    Ending,
    Hold,
    expiry_event,
    tail_of,
    usage_event,
)
from gateway.core.models import Weights
from gateway.core.period import Calendar
from gateway.core.pricing import Price
from gateway.core.usage import Usage

PRICE = Price("2026-11", input_nano_gbp=2_000_000, cached_nano_gbp=1_000_000, output_nano_gbp=10**7)
HOLD = Hold(
    rid="017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
    caller=Caller(
        "ada", "team-1", "free", Calendar(1, "UTC"), tag="quiz", sdk_retry=2, client_id="c-1"
    ),
    route="chat",
    model="gpt-4o-mini",
    stream=True,
    price=PRICE,
    weights=Weights(),
    prompt_tokens=100,
    output_tokens=50,
    choices=2,
    hold_tokens=200,
    epoch=3,
    period_start_ms=7,
    limit_tokens=5_000,
    tier_period_start_ms=9,
)
USAGE = Usage(prompt_tokens=90, cached_tokens=40, output_tokens=30, reasoning_tokens=10)
TOKENS = st.integers(0, 10**6)


@pytest.mark.parametrize("outcome", get_args(Outcome))
@pytest.mark.parametrize("quality", get_args(Quality))
def test_every_ending_tells_who_what_and_how(outcome: Outcome, quality: Quality) -> None:
    event = usage_event(HOLD, Ending(USAGE, quality, outcome, 200, "flex", "req_1"))
    assert (event.event_id, event.payer, event.user_id) == (HOLD.rid, "team-1", "ada")
    assert (event.tier, event.route, event.model) == ("free", "chat", "gpt-4o-mini")
    assert (event.price_id, event.stream, event.tag) == ("2026-11", True, "quiz")
    assert (event.sdk_retry, event.client_id) == (2, "c-1")
    assert (event.quality, event.outcome, event.status) == (quality, outcome, 200)
    assert (event.service_tier, event.upstream_id) == ("flex", "req_1")
    assert (event.prompt_tokens, event.cached_tokens) == (90, 40)
    assert (event.output_tokens, event.reasoning_tokens) == (30, 10)
    assert event.charged_tokens == 90 + 30
    assert event.cost_nano_gbp == 50 * 2 + 40 * 1 + 30 * 10


def test_weights_lower_the_charge_and_leave_the_raw_counts_and_the_cost() -> None:
    weighted = replace(HOLD, weights=Weights(cached_per_mille=500, reasoning_per_mille=0))
    event = usage_event(weighted, Ending(USAGE, "measured", "done", 200))
    plain = usage_event(HOLD, Ending(USAGE, "measured", "done", 200))
    assert event.charged_tokens == 90 + 30 - 20 - 10
    assert msgspec.structs.replace(plain, charged_tokens=event.charged_tokens) == event


def test_a_call_that_used_nothing_charges_and_costs_nothing() -> None:
    event = usage_event(HOLD, Ending(NOTHING_USED, "estimated", "unknown_upstream", 502))
    assert (event.charged_tokens, event.cost_nano_gbp) == (0, 0)


def test_what_was_used_beyond_the_hold_is_charged_in_full() -> None:
    event = usage_event(HOLD, Ending(Usage(100, 0, 900, 0), "measured", "done", 200))
    assert event.charged_tokens == 1000 > HOLD.hold_tokens


def test_the_tail_is_all_that_another_gateway_needs() -> None:
    tail = decode_tail(encode_tail(tail_of(HOLD)))
    event = expiry_event(HOLD.rid, tail, PRICE, HOLD.hold_tokens, progress_tokens=20)
    settled = usage_event(HOLD, Ending(USAGE, "estimated", "expired", 0))
    for name in ("event_id", "payer", "user_id", "tier", "route", "model", "price_id", "stream"):
        assert getattr(event, name) == getattr(settled, name)
    assert (event.tag, event.sdk_retry) == ("quiz", 2)
    assert (tail.limit_tokens, tail.tier_period_start_ms) == (5_000, 9)


@pytest.mark.parametrize(("body_bytes", "likely"), [(1, 1), (4, 1), (5, 2), (100, 25), (101, 26)])
def test_of_a_prompt_held_by_its_bytes_the_tail_has_what_they_likely_come_to(
    body_bytes: int, likely: int
) -> None:
    bound = replace(HOLD, prompt_tokens=body_bytes, prompt_is_bound=True)
    assert tail_of(bound).prompt_tokens == likely <= body_bytes
    assert tail_of(replace(bound, prompt_is_bound=False)).prompt_tokens == body_bytes


def test_a_tail_of_the_first_release_has_neither_allowance_nor_tier_period() -> None:
    old = b'{"payer":"p","user_id":"u","tier":"t","route":"r","model":"m","price_id":"i"}'
    tail = decode_tail(old)
    assert (tail.limit_tokens, tail.tier_period_start_ms) == (0, None)
    assert encode_tail(tail) == old


def test_a_member_is_who_calls_on_another_payer_s_account() -> None:
    assert HOLD.caller.member == "ada"
    assert replace(HOLD.caller, payer="ada").member is None


@pytest.mark.parametrize(
    ("progress_tokens", "output_tokens"),
    [(0, 512), (10, 522), (488, 1000), (489, 1000), (10**6, 1000)],
)
def test_an_expired_stream_charges_what_may_have_been_read_within_its_hold(
    progress_tokens: int, output_tokens: int
) -> None:
    tail = tail_of(HOLD)
    event = expiry_event(HOLD.rid, tail, PRICE, 1100, progress_tokens)
    assert UNSEEN_TOKENS_MAX == 512
    assert (event.prompt_tokens, event.output_tokens) == (100, output_tokens)
    assert event.charged_tokens == 100 + output_tokens
    assert (event.quality, event.outcome) == ("estimated", "expired")


def test_an_expired_whole_answer_charges_nothing_and_leaves_a_row_for_the_invoice() -> None:
    tail = tail_of(replace(HOLD, stream=False))
    event = expiry_event(HOLD.rid, tail, PRICE, HOLD.hold_tokens, progress_tokens=40)
    assert (event.charged_tokens, event.cost_nano_gbp) == (0, 0)
    assert (event.quality, event.outcome) == ("estimated", "unknown_upstream")


@settings(deadline=None)
@given(TOKENS, TOKENS, TOKENS)
def test_an_expired_hold_never_charges_more_than_it_held(
    prompt_tokens: int, hold_tokens: int, progress_tokens: int
) -> None:
    tail = tail_of(replace(HOLD, prompt_tokens=prompt_tokens))
    event = expiry_event(HOLD.rid, tail, PRICE, hold_tokens, progress_tokens)
    assert 0 <= event.charged_tokens <= hold_tokens
    assert min(event.prompt_tokens, event.output_tokens) >= 0
    assert event.charged_tokens == event.prompt_tokens + event.output_tokens
    assert event.charged_tokens or not hold_tokens
