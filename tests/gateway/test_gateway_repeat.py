"""Calls repeated with an Idempotency-Key: one answer, one charge, whatever happens between."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from gateway.adapters.embedded import postgres_url, redis_url
from tests.gateway.loopback import Reply
from tests.gateway.many_clients import Crowd
from tests.gateway.running_gateway import MODEL, MakeGateway, RunningGateway, prompt
from tests.gateway.waiting_for import until

Client = Callable[[str], openai.OpenAI]
KEY = {"Idempotency-Key": "order 66/1"}
LEASE = {"ms": 3000, "grace_ms": 500, "heartbeat_ms": 200}


def says(text: str) -> Any:
    return [{"role": "user", "content": text}]


def repeated(gateway: RunningGateway, key: str, body: Any) -> Reply:
    """The answer of a call that may still be running: asked again until there is one."""

    def answered() -> Reply | None:
        reply = gateway.chat(key, body, KEY)
        if reply.status == 200:
            return reply
        assert reply.code == (409, "idempotency_in_progress")
        return None

    return until(answered, 30, "an answer")


@pytest.fixture
def pair(make_gateway: MakeGateway) -> list[RunningGateway]:
    """The first has the stores and the jobs, the second is only a proxy."""
    keys = {"keys": {"pepper": "the-pepper-of-two"}}
    first = make_gateway(identity=keys, lease=LEASE).start()
    stores = {
        "redis": {"url": redis_url(first.state_dir)},
        "ledger": {"url": postgres_url(first.state_dir)},
    }
    return [first, make_gateway(identity=keys, lease=LEASE, **stores).start("--jobs", "none")]


def test_a_repetition_has_the_first_answer_and_costs_nothing(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    completions = sdk(key).chat.completions
    first = completions.create(model=MODEL, messages=says("Hello"), extra_headers=KEY)
    used = gateway.shown(user)["used_tokens"]
    before = gateway.metric("decisions_total", reason="replayed")
    raw = completions.with_raw_response.create(
        model=MODEL, messages=says("Hello"), extra_headers=KEY
    )
    assert raw.parse() == first
    assert raw.request_id == first._request_id
    told = {name.lower(): value for name, value in raw.headers.items()}
    assert told.pop("date")
    assert int(told.pop("content-length")) > 0
    assert told == {
        "content-type": "application/json",
        "server": "quota-gateway",
        "x-request-id": first._request_id,
        "x-quota-decision": "admitted",
        "x-quota-charged-tokens": "0",
        "idempotent-replayed": "true",
    }
    assert gateway.metric("decisions_total", reason="replayed") == before + 1
    (row,) = gateway.ledger_rows(user)
    assert row["charged_tokens"] == used == gateway.shown(user)["used_tokens"]
    assert gateway.stand_in.served(user)["requests"] == 1
    assert "idempotency-key" not in gateway.stand_in.last()["headers"]


def test_a_stream_is_repeated_as_the_same_chunks(gateway: RunningGateway, sdk: Client) -> None:
    user, key = gateway.new_user()

    def chunks() -> list[Any]:
        client = sdk(key)
        client.max_retries = 5  # the first may be kept a moment after its last chunk
        return list(
            client.chat.completions.create(
                model=MODEL,
                messages=says("@stand-in write=60"),
                stream=True,
                stream_options={"include_usage": True},
                extra_headers=KEY,
            )
        )

    assert chunks() == chunks()
    assert gateway.stand_in.served(user)["requests"] == 1
    gateway.ledger_rows(user, 1)


def test_a_key_for_another_body_is_an_error_that_no_client_repeats(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    first = gateway.chat(key, "Hello", KEY)
    before = gateway.metric("decisions_total", reason="idempotency_key_reused")
    with pytest.raises(openai.ConflictError, match="another request") as raised:
        sdk(key).chat.completions.create(model=MODEL, messages=says("Bye"), extra_headers=KEY)
    assert raised.value.code == "idempotency_key_reused"
    assert raised.value.param == "Idempotency-Key"
    assert first.headers["x-request-id"] in raised.value.message
    assert gateway.metric("decisions_total", reason="idempotency_key_reused") == before + 1
    assert gateway.stand_in.served(user)["requests"] == 1


def test_a_malformed_key_is_refused_and_names_of_others_are_free(gateway: RunningGateway) -> None:
    _, key = gateway.new_user()
    for bad in ("", "x" * 256, "a\tb"):
        reply = gateway.chat(key, "Hello", {"Idempotency-Key": bad})
        assert reply.code == (400, "invalid_value")
        assert reply.error["param"] == "Idempotency-Key"
    users = [gateway.new_user() for _ in range(2)]
    replies = [gateway.chat(each, "Hello", KEY) for _, each in users for _ in range(2)]
    assert ["idempotent-replayed" in reply.headers for reply in replies] == [False, True] * 2
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert (ids[0], ids[2]) == (ids[1], ids[3])
    assert ids[0] != ids[2]
    for user, _ in users:
        assert gateway.stand_in.served(user)["requests"] == 1


def test_a_client_that_lost_its_patience_gets_its_answer_by_trying_again(
    gateway: RunningGateway,
) -> None:
    user, key = gateway.new_user()
    words = "@stand-in hold=patience"
    with (
        openai.OpenAI(
            base_url=f"{gateway.proxy}/v1", api_key=key, timeout=1.0, max_retries=9
        ) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        before = gateway.metric("decisions_total", reason="idempotency_in_progress")
        answer = pool.submit(
            client.chat.completions.create, model=MODEL, messages=says(words), extra_headers=KEY
        )
        gateway.stand_in.await_held("patience")
        until(
            lambda: gateway.metric("decisions_total", reason="idempotency_in_progress") > before,
            20,
            "a second try",
        )
        gateway.stand_in.release("patience")
        got = answer.result(30)
    (row,) = gateway.ledger_rows(user)
    assert (got._request_id, row["outcome"]) == (row["event_id"], "done")
    assert gateway.stand_in.served(user)["requests"] == 1


def test_while_the_first_runs_a_repetition_is_told_when_to_come_back(
    gateway: RunningGateway,
) -> None:
    _, key = gateway.new_user()
    body = prompt("@stand-in hold=first")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.chat, key, body, KEY)
        gateway.stand_in.await_held("first")
        early = gateway.chat(key, body, KEY)
        gateway.stand_in.release("first")
    assert early.code == (409, "idempotency_in_progress")
    assert early.headers["retry-after"] == "2"
    assert "x-should-retry" not in early.headers  # SDKs repeat a 409 by themselves
    again = gateway.chat(key, body, KEY)
    assert again.body == first.result().body
    assert again.headers["x-request-id"] == first.result().headers["x-request-id"]


def test_who_left_a_stream_finds_all_of_it(gateway: RunningGateway, sdk: Client) -> None:
    user, key = gateway.new_user()
    body = prompt("@stand-in write=80 chunk_ms=20 hold=left hold_after=3", stream=True)
    stream = sdk(key).chat.completions.create(**body, extra_headers=KEY)
    next(iter(stream))
    gateway.stand_in.await_held("left")
    stream.close()
    gateway.stand_in.release("left")
    (row,) = gateway.ledger_rows(user)
    assert (row["outcome"], row["quality"]) == ("client_gone", "measured")
    again = sdk(key).chat.completions.create(**body, extra_headers=KEY)
    tokens = sum(4 for chunk in again if chunk.choices and chunk.choices[0].delta.content)
    assert tokens == 80
    gateway.ledger_rows(user, 1)
    assert gateway.stand_in.served(user)["requests"] == 1


def test_what_was_refused_or_failed_may_be_asked_again(gateway: RunningGateway) -> None:
    user, key = gateway.new_user()
    failing = prompt("Hello\n@stand-in status=500")
    assert [gateway.chat(key, failing, KEY).status for _ in range(2)] == [500, 500]
    assert gateway.stand_in.served(user)["requests"] == 2
    spent = gateway.new_user("free", 100_000)[1]
    for _ in range(2):
        assert gateway.chat(spent, "Hello", KEY).code == (429, "insufficient_quota")


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_was_not_kept_is_told_to_be_charged(
    impatient: RunningGateway, is_stream: bool
) -> None:
    user, key = impatient.new_user()
    body = prompt("@stand-in write=400", stream=is_stream)
    first = impatient.chat(key, body, KEY)
    assert len(first.body) > 1024
    again = impatient.chat(key, body, KEY)
    assert again.code == (409, "idempotency_answer_gone")
    assert again.headers["x-should-retry"] == "false"
    assert first.headers["x-request-id"] in again.error["message"]
    small = prompt("Hello")
    replies = [impatient.chat(key, small, {"Idempotency-Key": "small"}) for _ in range(2)]
    assert replies[0].body == replies[1].body
    impatient.ledger_rows(user, 2)


# --- two gateways on the same stores --------------------------------------------------------------


def test_of_fifty_calls_at_once_one_reaches_the_upstream(pair: list[RunningGateway]) -> None:
    first, stand_in = pair[0], pair[0].stand_in
    user, key = first.new_user()
    body = prompt("@stand-in hold=fifty")
    crowd = Crowd(pair, [(key, body)] * 50, KEY)
    until(lambda: crowd.refused() == 49, 30, "49 calls to be told to wait")
    stand_in.await_held("fifty")
    stand_in.release("fifty")
    assert Counter((answer.status, answer.code) for answer in crowd.done()) == {
        (200, ""): 1,
        (409, "idempotency_in_progress"): 49,
    }
    crowd = Crowd(pair, [(key, body)] * 50, KEY)
    answers = crowd.done()
    assert {answer.status for answer in answers} == {200}
    assert {answer.headers["idempotent-replayed"] for answer in answers} == {"true"}
    assert stand_in.served(user)["requests"] == 1
    (row,) = first.ledger_rows(user)
    assert {answer.headers["x-request-id"] for answer in answers} == {row["event_id"]}


def test_a_call_whose_gateway_died_may_be_asked_again_after_its_lease(
    pair: list[RunningGateway],
) -> None:
    first, second = pair
    user, key = first.new_user()
    body = prompt("@stand-in hold=dies_keyed")
    with ThreadPoolExecutor(1) as pool:
        dying = pool.submit(second.chat, key, body, KEY)
        first.stand_in.await_held("dies_keyed")
        os.kill(second.child("proxy-1"), signal.SIGKILL)
        assert dying.exception() is not None
        early = first.chat(key, body, KEY)
        assert early.code == (409, "idempotency_in_progress")
        later = pool.submit(repeated, first, key, body)
        until(lambda: first.stand_in.served(user)["requests"] == 2, 30, "a second call")
        first.stand_in.release("dies_keyed")
        answer = later.result(30)
    assert "idempotent-replayed" not in answer.headers
    assert first.chat(key, body, KEY).body == answer.body
    rows = {row["outcome"]: row["charged_tokens"] for row in first.ledger_rows(user, 2)}
    assert rows == {
        "unknown_upstream": 0,
        "done": int(answer.headers["x-quota-charged-tokens"]),
    }
