"""Trouble upstream: what the client is told, and what is charged for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.gateway.loopback import Reply
from tests.gateway.running_gateway import (
    MODEL,
    MODEL_WITH_WRONG_KEY,
    MODEL_WITHOUT_UPSTREAM,
    WRONG_KEY,
    RunningGateway,
    prompt,
)
from tests.gateway.standin_process import UPSTREAM_KEY
from tests.gateway.waiting_for import until

Client = Callable[[str], openai.OpenAI]


def nothing_is_held(gateway: RunningGateway, user: str) -> None:
    until(lambda: gateway.shown(user)["open_holds"] == 0, 10, "the hold to end")
    assert gateway.shown(user)["held_tokens"] == 0


def check_gateways_own(reply: Reply, status: int, code: str) -> None:
    """An answer in the gateway's own words, with nothing of the upstream's."""
    assert reply.code == (status, code)
    assert reply.headers["x-quota-source"] == "upstream"
    assert "charged" in reply.error["message"] or "quota" in reply.error["message"]
    assert "stand-in" not in reply.text


def events(reply: Reply) -> list[Any]:
    """The data of a stream's events, '[DONE]' left out."""
    assert reply.status == 200
    found = [event.removeprefix("data: ") for event in reply.text.strip().split("\n\n")]
    return [json.loads(data) for data in found if data != "[DONE]"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_500_is_passed_on_and_leaves_a_row_for_the_invoice(
    gateway: RunningGateway, stream: bool
) -> None:
    user, key = gateway.new_user()
    reply = gateway.chat(key, prompt("@stand-in status=500", stream=stream))
    assert reply.status == 500
    assert "The server had an error" in reply.error["message"]
    assert reply.headers["x-quota-source"] == "upstream"
    assert reply.headers["x-quota-remaining-tokens"] == "100000"
    (row,) = gateway.ledger_rows(user)
    assert (row["outcome"], row["status"]) == ("unknown_upstream", 500)
    assert row["charged_tokens"] == row["cost_nano_gbp"] == 0
    assert row["upstream_id"].startswith("req_")
    nothing_is_held(gateway, user)


@pytest.mark.parametrize("status", [400, 404, 422])
def test_an_upstreams_own_refusal_is_passed_on_and_costs_nothing(
    gateway: RunningGateway, status: int
) -> None:
    user, key = gateway.new_user()
    reply = gateway.chat(key, f"@stand-in status={status} code=because")
    assert reply.code == (status, "because")
    nothing_is_held(gateway, user)
    gateway.ledger_rows(user, 0)


def test_a_rate_limit_of_the_upstream_is_passed_on_with_its_wait(gateway: RunningGateway) -> None:
    user, key = gateway.new_user()
    reply = gateway.chat(key, "@stand-in status=429 retry_after=7")
    assert reply.code == (429, "rate_limit_exceeded")
    assert reply.headers["retry-after"] == "7"
    assert reply.headers["x-quota-source"] == "upstream"
    assert "x-should-retry" not in reply.headers
    nothing_is_held(gateway, user)
    gateway.ledger_rows(user, 0)


def test_our_own_empty_account_is_no_refusal_of_the_user(gateway: RunningGateway) -> None:
    user, key = gateway.new_user()
    reply = gateway.chat(key, "@stand-in status=429 code=insufficient_quota retry_after=7")
    check_gateways_own(reply, 503, "upstream_quota_exhausted")
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["retry-after"] == "60"
    assert "billing" not in reply.text
    nothing_is_held(gateway, user)
    gateway.ledger_rows(user, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_our_own_wrong_key_is_never_shown_to_a_client(
    gateway: RunningGateway, stream: bool
) -> None:
    user, key = gateway.new_user()
    reply = gateway.chat(key, prompt("Hello", model=MODEL_WITH_WRONG_KEY, stream=stream))
    check_gateways_own(reply, 502, "upstream_auth_failed")
    assert reply.headers["x-should-retry"] == "false"
    whole = f"{reply.headers} {reply.text}"
    for part in (WRONG_KEY[:8], WRONG_KEY[-4:], UPSTREAM_KEY, "platform.openai.com"):
        assert part not in whole
    assert gateway.stand_in.served(user)["requests"] == 1
    nothing_is_held(gateway, user)
    gateway.ledger_rows(user, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_cannot_be_reached_costs_nothing(
    gateway: RunningGateway, stream: bool
) -> None:
    user, key = gateway.new_user()
    reply = gateway.chat(key, prompt("Hello", model=MODEL_WITHOUT_UPSTREAM, stream=stream))
    check_gateways_own(reply, 502, "upstream_unavailable")
    nothing_is_held(gateway, user)
    gateway.ledger_rows(user, 0)


def test_an_upstream_that_went_away_and_came_back_is_asked_again(
    impatient: RunningGateway,
) -> None:
    stand_in = impatient.stand_in
    user, key = impatient.new_user()
    assert impatient.chat(key, "Hello").status == 200  # a pooled connection now exists
    stand_in.stop()
    try:
        check_gateways_own(impatient.chat(key, "Hello"), 502, "upstream_unavailable")
        nothing_is_held(impatient, user)
    finally:
        stand_in.start()
    assert impatient.chat(key, "Hello").status == 200
    assert [row["outcome"] for row in impatient.ledger_rows(user, 2)] == ["done", "done"]


def test_silence_before_the_answer_is_a_timeout_and_a_row_for_the_invoice(
    impatient: RunningGateway,
) -> None:
    user, key = impatient.new_user()
    check_gateways_own(impatient.chat(key, "@stand-in never_ends"), 504, "upstream_timeout")
    (row,) = impatient.ledger_rows(user)
    assert (row["outcome"], row["status"], row["charged_tokens"]) == ("unknown_upstream", 504, 0)
    nothing_is_held(impatient, user)


def test_an_answer_cut_half_way_is_an_error_and_a_row_for_the_invoice(
    gateway: RunningGateway,
) -> None:
    user, key = gateway.new_user()
    check_gateways_own(
        gateway.chat(key, "@stand-in write=100 cut_after=1"), 502, "upstream_unavailable"
    )
    (row,) = gateway.ledger_rows(user)
    assert (row["outcome"], row["charged_tokens"]) == ("unknown_upstream", 0)
    nothing_is_held(gateway, user)


def test_a_stream_cut_half_way_is_raised_and_charged_as_far_as_it_came(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    words = "@stand-in write=400 cut_after=5"
    stream = sdk(key).chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": words}], stream=True
    )
    pieces: list[str] = []
    with pytest.raises(openai.APIError, match="broke off") as raised:
        pieces.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert raised.value.code == "upstream_unavailable"
    assert "".join(pieces).startswith("Hello! Your words arrived,")
    (row,) = gateway.ledger_rows(user)
    assert (row["quality"], row["outcome"]) == ("partial", "upstream_error")
    assert row["output_tokens"] == 5 * 4
    assert row["charged_tokens"] == row["prompt_tokens"] + 20
    served = gateway.stand_in.calls()[row["event_id"]]
    assert (served["prompt_tokens"], served["completion_tokens"]) == (row["prompt_tokens"], 20)


def test_an_error_event_in_a_stream_is_raised_and_charged_as_far_as_it_came(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    words = "@stand-in write=400 error_after=5"
    stream = sdk(key).chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": words}], stream=True
    )
    with pytest.raises(openai.APIError, match="The server had an error"):
        list(stream)
    (row,) = gateway.ledger_rows(user)
    assert (row["quality"], row["outcome"]) == ("partial", "upstream_error")
    assert row["charged_tokens"] == row["prompt_tokens"] + 20


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("usage", ["none", "zero", "text"])
def test_usage_that_cannot_be_believed_is_estimated_and_never_zero(
    gateway: RunningGateway, usage: str, stream: bool
) -> None:
    user, key = gateway.new_user()
    words = f"@stand-in write=60 usage={usage}"
    reply = gateway.chat(key, prompt(words, stream=stream))
    assert reply.status == 200
    (row,) = gateway.ledger_rows(user)
    assert (row["quality"], row["outcome"]) == ("estimated", "done")
    assert row["output_tokens"] == 60
    assert row["charged_tokens"] == row["prompt_tokens"] + 60
    assert row["held_tokens"] == row["prompt_tokens"] + 4096
    assert gateway.shown(user)["used_tokens"] == row["charged_tokens"]


def test_reported_parts_are_booked_as_they_were_reported(gateway: RunningGateway) -> None:
    user, key = gateway.new_user()
    for stream in (False, True):
        gateway.chat(key, prompt("@stand-in usage=700/80/600/30", stream=stream))
    for row in gateway.ledger_rows(user, 2):
        assert (row["prompt_tokens"], row["cached_tokens"]) == (700, 600)
        assert (row["output_tokens"], row["reasoning_tokens"]) == (80, 30)
        assert (row["charged_tokens"], row["quality"]) == (780, "measured")
        # 100 at 0.15, 600 at 0.075, 80 at 0.60 dollars a million; 0.79 pounds a dollar
        assert row["cost_nano_gbp"] == round(0.79 * (100 * 150 + 600 * 75 + 80 * 600))


def test_a_stream_without_end_is_ended_politely(impatient: RunningGateway) -> None:
    user, key = impatient.new_user()
    words = "@stand-in never_ends chunk_ms=20"
    reply = impatient.chat(key, prompt(words, stream=True, n=2))
    assert reply.text.endswith("data: [DONE]\n\n")
    *chunks, last = events(reply)
    assert [choice["finish_reason"] for choice in last["choices"]] == ["length", "length"]
    assert last["id"] == chunks[0]["id"]
    (row,) = impatient.ledger_rows(user)
    assert (row["outcome"], row["quality"]) == ("done", "estimated")
    relayed = [chunk for chunk in chunks if chunk["choices"][0]["delta"].get("content")]
    assert row["output_tokens"] == 4 * len(relayed)
    nothing_is_held(impatient, user)
