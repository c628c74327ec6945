"""What goes upstream and what comes back, header by header: only what is on the lists."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from tests.gateway.loopback import Reply, ask
from tests.gateway.running_gateway import RunningGateway, prompt
from tests.gateway.standin_process import UPSTREAM_KEY

UPWARDS = {
    *("host", "content-type", "content-length", "accept-encoding"),
    *("authorization", "x-client-request-id", "x-quota-user"),
}
NEVER_DOWNWARDS = ("set-cookie", "openai-organization", "x-ratelimit-")
QUOTA = {
    *("x-quota-decision", "x-quota-limit-tokens", "x-quota-remaining-tokens"),
    *("x-quota-held-tokens", "x-quota-reset"),
}
ANSWER = {
    *("content-type", "date", "server", "x-request-id", "openai-processing-ms", "openai-version"),
    *QUOTA,
}


def check_downwards(reply: Reply) -> None:
    assert reply.headers["server"] == "quota-gateway"
    assert not [name for name in reply.headers if name.startswith(NEVER_DOWNWARDS)]


def test_only_listed_headers_go_upstream_and_no_credential_of_the_client(
    gateway: RunningGateway,
) -> None:
    user, key = gateway.new_user()
    reply = gateway.chat(
        key,
        "Hello",
        {
            "Cookie": "session=1",
            "OpenAI-Organization": "org-of-the-client",
            "OpenAI-Project": "proj",
            "X-Forwarded-For": "10.0.0.1",
            "Forwarded": "for=10.0.0.1",
            "User-Agent": "client/1",
            "X-Api-Key": key,
            "X-Quota-User": "somebody-else",
            "X-Stainless-Lang": "python",
            "TE": "trailers",
            "Connection": "keep-alive, X-Hop",
            "X-Hop": "1",
        },
    )
    last = gateway.stand_in.last()
    assert set(last["headers"]) == UPWARDS
    assert last["headers"]["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert last["headers"]["x-quota-user"] == user
    assert last["headers"]["x-client-request-id"] == reply.headers["x-request-id"]
    assert last["headers"]["host"] == urlsplit(gateway.stand_in.url).netloc
    assert key not in json.dumps(last)


def test_the_upstream_path_is_the_tables_whatever_the_query(gateway: RunningGateway) -> None:
    _, key = gateway.new_user()
    reply = ask(
        f"{gateway.proxy}/v1/chat/completions?api-version=1&x=%2f..",
        "POST",
        json.dumps(prompt("Hello")).encode(),
        {"Authorization": f"Bearer {key}"},
    )
    assert reply.status == 200
    assert gateway.stand_in.last()["path"] == "/v1/chat/completions"


def test_nothing_is_stored_upstream_whatever_is_asked(gateway: RunningGateway) -> None:
    _, key = gateway.new_user()
    body = prompt("Hello", store=True, metadata={"a": "b"}, seed=7)
    assert gateway.chat(key, body).status == 200
    sent = gateway.stand_in.last()["body"]
    assert (sent["store"], sent["seed"], "metadata" in sent) == (False, 7, False)


def test_a_key_given_twice_means_upstream_what_it_meant_here(gateway: RunningGateway) -> None:
    user, key = gateway.new_user()
    raw = json.dumps(prompt("Hello", max_tokens=5))[:-1] + ', "max_tokens": 9, "n": 2, "n": 1}'
    assert gateway.chat(key, raw.encode()).status == 200
    sent = gateway.stand_in.last()["body"]
    (row,) = gateway.ledger_rows(user)
    assert sent["max_completion_tokens"] * sent["n"] == row["held_tokens"] - row["prompt_tokens"]


def test_an_answer_has_the_listed_headers_and_no_others(gateway: RunningGateway) -> None:
    _, key = gateway.new_user("lite", 100_000)
    reply = gateway.chat(key, "Hello")
    check_downwards(reply)
    assert set(reply.headers) == ANSWER | {"content-length", "x-quota-charged-tokens"}
    assert reply.headers["x-quota-decision"] == "admitted"
    remaining = 900_000 - int(reply.headers["x-quota-charged-tokens"])
    assert reply.headers["x-quota-remaining-tokens"] == str(remaining)
    assert reply.headers["x-quota-limit-tokens"] == "1000000"


def test_a_stream_has_them_as_they_were_at_admission(gateway: RunningGateway) -> None:
    _, key = gateway.new_user("lite", 100_000)
    reply = gateway.chat(key, prompt("Hello", stream=True))
    check_downwards(reply)
    assert set(reply.headers) == ANSWER | {"transfer-encoding", "cache-control"}
    assert reply.headers["x-quota-remaining-tokens"] == "900000"


def test_a_refusal_and_an_error_of_the_upstream_say_whose_they_are(
    gateway: RunningGateway,
) -> None:
    _, key = gateway.new_user()
    ours = ask(f"{gateway.proxy}/v1/files", headers={"Authorization": f"Bearer {key}"})
    theirs = gateway.chat(key, "Hello\n@stand-in status=400 code=teapot")
    check_downwards(ours)
    check_downwards(theirs)
    assert (ours.headers["x-quota-source"], ours.headers["x-quota-decision"]) == (
        "gateway",
        "refused",
    )
    assert theirs.code == (400, "teapot")
    assert theirs.headers["x-quota-source"] == "upstream"
    assert ours.headers["x-request-id"] != theirs.headers["x-request-id"]


def test_warnings_rise_with_what_is_used(gateway: RunningGateway) -> None:
    for used, warning in ((79_000, None), (80_000, "80"), (95_500, "95")):
        _, key = gateway.new_user("free", used)
        reply = gateway.chat(key, "Hello")
        assert reply.headers.get("x-quota-warning") == warning


def test_what_a_client_says_of_its_call_is_in_the_ledger_and_not_upstream(
    gateway: RunningGateway,
) -> None:
    user, key = gateway.new_user()
    gateway.chat(
        key,
        "Hello",
        {
            "x-quota-tag": "quiz",
            "x-stainless-retry-count": "2",
            "x-client-request-id": "mine-1",
        },
    )
    (row,) = gateway.ledger_rows(user)
    assert (row["tag"], row["sdk_retry"], row["client_id"]) == ("quiz", 2, "mine-1")
    last = gateway.stand_in.last()["headers"]
    assert last["x-client-request-id"] == row["event_id"]
    assert "quiz" not in last.values()
