"""The cap sent upstream is always the cap held, and what exceeds it all the same is overdraft."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.running_gateway import RunningGateway, prompt

DEFAULT_CAP = 4096


def sent(gateway: RunningGateway) -> dict[str, Any]:
    """The body of the newest request at the upstream."""
    body = gateway.stand_in.last()["body"]
    assert isinstance(body, dict)
    return body


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_a_cap_is_cut_at_exactly_the_default(
    gateway: RunningGateway, stream: bool
) -> None:
    user, key = gateway.new_user()
    reply = gateway.chat(key, prompt("Go on.\n@stand-in write=10000", stream=stream))
    assert reply.status == 200
    assert '"finish_reason":"length"' in reply.text
    assert "x-quota-output-cap-tokens" not in reply.headers
    assert sent(gateway)["max_completion_tokens"] == DEFAULT_CAP
    (row,) = gateway.ledger_rows(user)
    assert row["output_tokens"] == DEFAULT_CAP
    assert row["held_tokens"] == row["charged_tokens"] == row["prompt_tokens"] + DEFAULT_CAP
    assert row["overdraft_tokens"] == 0


@pytest.mark.parametrize(
    ("caps", "smaller"),
    [
        ({"max_tokens": 40, "max_completion_tokens": 90}, 40),
        ({"max_tokens": 90, "max_completion_tokens": 40}, 40),
        ({"max_tokens": 40}, 40),
        ({"max_completion_tokens": 40}, 40),
        ({"max_completion_tokens": 10**9}, 16_384),  # the model's longest answer
    ],
)
def test_one_cap_is_sent_and_it_is_the_smaller(
    gateway: RunningGateway, caps: dict[str, int], smaller: int
) -> None:
    user, key = gateway.new_user()
    assert gateway.chat(key, prompt("Hello", **caps)).status == 200
    body = sent(gateway)
    assert body["max_completion_tokens"] == smaller
    assert "max_tokens" not in body
    (row,) = gateway.ledger_rows(user)
    assert row["held_tokens"] == row["prompt_tokens"] + smaller


@pytest.mark.parametrize("choices", [1, 2, 3])
def test_little_room_lowers_the_cap_to_what_fits_and_says_so(
    gateway: RunningGateway, choices: int
) -> None:
    room = 200
    user, key = gateway.new_user("free", 100_000 - room)
    reply = gateway.chat(key, prompt("Go on.\n@stand-in write=10000", n=choices))
    usage = reply.json["usage"]
    cap = (room - usage["prompt_tokens"]) // choices
    assert reply.headers["x-quota-output-cap-tokens"] == str(cap)
    assert sent(gateway)["max_completion_tokens"] == cap
    assert usage["completion_tokens"] == cap * choices
    _, row = gateway.ledger_rows(user, 2)
    assert row["held_tokens"] == usage["prompt_tokens"] + cap * choices
    assert room - choices < row["held_tokens"] <= room
    assert row["overdraft_tokens"] == 0
    assert gateway.shown(user)["remaining_tokens"] == room - usage["total_tokens"] < choices
    refusal = gateway.chat(key, "Go on.")
    assert refusal.code == (429, "insufficient_quota")
    assert refusal.headers["x-quota-remaining-tokens"] == str(room - usage["total_tokens"])


def test_a_cap_below_the_least_is_a_refusal_unless_so_little_was_asked(
    gateway: RunningGateway,
) -> None:
    user, key = gateway.new_user("free", 100_000 - 20)  # 8 for the prompt, so 12 for the answer
    assert gateway.chat(key, "Hello").code == (429, "insufficient_quota")
    assert gateway.stand_in.served(user)["requests"] == 0
    asked = gateway.chat(key, prompt("Hello", max_tokens=12))
    assert asked.status == 200
    assert "x-quota-output-cap-tokens" not in asked.headers
    assert gateway.shown(user)["remaining_tokens"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_ignores_the_cap_makes_an_overdraft_of_the_excess_once(
    gateway: RunningGateway, stream: bool
) -> None:
    labels = {"tier": "lite", "kind": "overdraft"}
    before = gateway.metric("tokens_total", **labels)
    user, key = gateway.new_user("lite", 999_900)
    words = "Go on.\n@stand-in write=500 ignore_cap"
    assert gateway.chat(key, prompt(words, max_tokens=50, stream=stream)).status == 200
    assert sent(gateway)["max_completion_tokens"] == 50
    _, row = gateway.ledger_rows(user, 2)
    assert row["output_tokens"] == 500
    assert row["held_tokens"] == row["prompt_tokens"] + 50
    assert row["overdraft_tokens"] == row["charged_tokens"] - row["held_tokens"] == 450
    assert gateway.metric("tokens_total", **labels) == before + 450
    shown = gateway.shown(user)
    assert shown["used_tokens"] == 999_900 + row["charged_tokens"] > shown["limit_tokens"]
    refusal = gateway.chat(key, "Hello")
    assert refusal.code == (429, "insufficient_quota")
    assert refusal.headers["x-quota-remaining-tokens"] == "0"
    assert refusal.headers["x-quota-warning"] == "100"


def test_a_prompt_larger_than_the_whole_quota_is_told_so_at_once(gateway: RunningGateway) -> None:
    user, key = gateway.new_user("free")
    reply = gateway.chat(key, " morning" * 100_001)
    assert reply.code == (400, "request_exceeds_quota")
    assert reply.error["param"] == "messages"
    assert "100,008 tokens" in reply.error["message"]
    assert "upgrade to the tier 'lite'" in reply.error["message"]
    assert gateway.stand_in.served(user)["requests"] == 0
    assert gateway.shown(user)["held_tokens"] == 0


def test_the_prompt_is_held_as_exactly_what_the_upstream_then_reports(
    gateway: RunningGateway,
) -> None:
    user, key = gateway.new_user()
    conversation = [
        {"role": "system", "content": "Antworte auf Deutsch. 用中文也可以。 🙂🙃"},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Grüß Gott!"}]},
        {"role": "assistant", "content": "<|endoftext|> def f(x):\n\treturn x ** 2\n\n\n"},
        {"role": "user", "content": "   and   now?   \n@stand-in write=1"},
    ]
    reply = gateway.chat(key, {"model": "gpt-4o-mini", "messages": conversation, "max_tokens": 7})
    assert reply.status == 200
    (row,) = gateway.ledger_rows(user)
    assert row["held_tokens"] - 7 == row["prompt_tokens"] == reply.json["usage"]["prompt_tokens"]
