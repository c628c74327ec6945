"""Bad input: each kind has a clear answer, costs nothing and never reaches the upstream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.gateway.loopback import Reply, ask, send_raw
from tests.gateway.running_gateway import MODEL, RunningGateway, prompt

HELLO = json.dumps(prompt("Hello")).encode()
IMAGE = {"type": "image_url", "image_url": {"file_id": "file-1"}}


@pytest.fixture
def caller(gateway: RunningGateway) -> Iterator[str]:
    """The key of a user who must not have cost anything afterwards."""
    user, key = gateway.new_user()
    yield key
    assert gateway.stand_in.served(user)["requests"] == 0
    shown = gateway.shown(user)
    assert (shown["used_tokens"], shown["open_holds"]) == (0, 0)
    gateway.ledger_rows(user, 0)


def check(reply: Reply, status: int, code: str, *words: str) -> None:
    """An error in OpenAI's shape whose message has these words."""
    assert reply.code == (status, code), reply
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert reply.error["type"] == "invalid_request_error"
    for word in words:
        assert word in reply.error["message"]


def nested(depth: int) -> bytes:
    return b'{"model":"gpt-4o-mini","x":' + b"[" * depth + b"]" * depth + b"}"


BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "truncated"),
    "cut off": (b'{"model": "gpt-4o-mini", "messages"', "truncated"),
    "not JSON": (b"model=gpt-4o-mini", "malformed"),
    "two documents": (HELLO + HELLO, "trailing"),
    "no UTF-8": (b'{"model": "\xff\xfe"}', "utf-8"),
    "a list": (b"[]", "not an object"),
    "null": (b"null", "not an object"),
    "too deep": (nested(65), "deeper than 64"),
    "far too deep": (nested(100_000), "deeper than 64"),
    "1e400": (b'{"temperature": 1e400}', "out of range"),
    "NaN": (b'{"temperature": NaN}', "malformed"),
    "integer of 65 bits": (b'{"seed": 18446744073709551616}', "64 bits"),
    "integer of 400 digits": (b'{"seed": 1' + b"0" * 400 + b"}", "64 bits"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_json_is_refused_with_the_reason(
    gateway: RunningGateway, caller: str, name: str
) -> None:
    body, reason = BODIES[name]
    reply = gateway.chat(caller, body)
    check(reply, 400, "invalid_json")
    assert reason in reply.error["message"].lower()


FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no model": ({"model": None}, "invalid_value", "model"),
    "model is a number": ({"model": 4}, "invalid_value", "model"),
    "no messages": ({"messages": []}, "invalid_value", "messages"),
    "messages are text": ({"messages": "Hello"}, "invalid_value", "messages"),
    "a message is text": ({"messages": ["Hello"]}, "invalid_value", "messages[0]"),
    "n is 0": ({"n": 0}, "invalid_value", "n"),
    "n is huge": ({"n": 10**9}, "invalid_value", "n"),
    "n is true": ({"n": True}, "invalid_value", "n"),
    "n is text": ({"n": "2"}, "invalid_value", "n"),
    "negative cap": ({"max_tokens": -1}, "invalid_value", "max_tokens"),
    "cap 0": ({"max_completion_tokens": 0}, "invalid_value", "max_completion_tokens"),
    "cap with a fraction": ({"max_tokens": 1.5}, "invalid_value", "max_tokens"),
    "stream is text": ({"stream": "yes"}, "invalid_value", "stream"),
    "stream options are text": ({"stream_options": "usage"}, "invalid_value", "stream_options"),
    "hosted tool": ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools[0]"),
    "previous response": (
        {"previous_response_id": "resp_1"},
        "unsupported_parameter",
        "previous_response_id",
    ),
    "background": ({"background": True}, "unsupported_parameter", "background"),
    "conversation": ({"conversation": "conv_1"}, "unsupported_parameter", "conversation"),
    "stored prompt": ({"prompt": {"id": "pmpt_1"}}, "unsupported_parameter", "prompt"),
    "prediction of nothing": (
        {"prediction": {"type": "content"}},
        "invalid_value",
        "prediction",
    ),
    "prediction and a cap": (
        {"prediction": {"type": "content", "content": "Hi"}, "max_tokens": 9},
        "unsupported_parameter",
        "max_tokens",
    ),
    "audio": ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
    "web search": ({"web_search_options": {"a": 1}}, "unsupported_parameter", "web_search_options"),
    "stored picture": (
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        "unsupported_parameter",
        "messages[0].content[0].image_url.file_id",
    ),
    "file": (
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        "unsupported_parameter",
        "messages[0].content[0]",
    ),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_cannot_be_served_is_refused_by_its_name(
    gateway: RunningGateway, caller: str, name: str
) -> None:
    fields, code, param = FIELDS[name]
    reply = gateway.chat(caller, prompt("Hello", **fields))
    check(reply, 400, code, f"'{param}'")
    assert reply.error["param"] == param


def test_an_unknown_model_is_refused_with_those_there_are(
    gateway: RunningGateway, caller: str
) -> None:
    reply = gateway.chat(caller, prompt("Hello", model="gpt-7"))
    check(reply, 403, "model_not_allowed", "'gpt-7'", MODEL)
    assert reply.error["param"] == "model"


def test_a_model_beyond_the_tier_is_refused_like_an_unknown_one(impatient: RunningGateway) -> None:
    user, key = impatient.new_user("free")
    reply = impatient.chat(key, prompt("Hello", model="gpt-4o"))
    check(reply, 403, "model_not_allowed", "tier 'free'", f"Available: {MODEL}.")
    assert impatient.stand_in.served(user)["requests"] == 0


UNKNOWN_KEY = "qg_" + "A" * 43


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {UNKNOWN_KEY}",
        f"Basic {UNKNOWN_KEY}",
        "Bearer sk-proj-1234567890abcdef",
        "Bearer qg_" + "A" * 5000,
        "Bearer qg_\xe4",
    ],
)
def test_every_wrong_key_gets_the_same_answer(
    gateway: RunningGateway, authorization: str | None
) -> None:
    given = {} if authorization is None else {"Authorization": authorization}
    replies = [
        ask(f"{gateway.proxy}/v1/chat/completions", "POST", HELLO, given),
        ask(f"{gateway.proxy}/v1/chat/completions", "POST", b"no JSON", given),
        ask(f"{gateway.proxy}/v1/models", "GET", None, given),
    ]
    for reply in replies:
        check(reply, 401, "invalid_api_key", "Bearer qg_", "OpenAI keys do not work here")
        assert reply.body == replies[0].body


def test_two_credentials_are_none(gateway: RunningGateway, caller: str) -> None:
    twice = f"Authorization: Bearer {caller}\r\n" * 2
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{twice}Content-Length: 2\r\n\r\n{{}}"
    check(send_raw(gateway.proxy, head.encode()), 401, "invalid_api_key")


def head(target: str, key: str, *fields: str, method: str = "POST") -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


CHAT = "/v1/chat/completions"


def test_a_body_announced_too_large_is_refused_before_it_is_sent(
    gateway: RunningGateway, caller: str
) -> None:
    reply = send_raw(gateway.proxy, head(CHAT, caller, f"Content-Length: {2**20 + 1}"))
    check(reply, 413, "request_too_large", "1 MiB")


def test_a_body_that_grows_too_large_is_refused_when_it_has(
    gateway: RunningGateway, caller: str
) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    start = head(CHAT, caller, "Transfer-Encoding: chunked")
    reply = send_raw(gateway.proxy, start, *[chunk] * 17)
    check(reply, 413, "request_too_large", "1 MiB")


def test_a_body_of_exactly_the_limit_is_read(gateway: RunningGateway, caller: str) -> None:
    check(gateway.chat(caller, b" " * 2**20), 400, "invalid_json")


def test_a_compressed_body_is_refused_whatever_it_would_become(
    gateway: RunningGateway, caller: str
) -> None:
    for encoding in ("gzip", "deflate", "br", "zstd"):
        reply = gateway.chat(caller, b"\x1f\x8b\x08", {"Content-Encoding": encoding})
        check(reply, 400, "unsupported_parameter", "Content-Encoding")


def test_a_tag_that_does_not_fit_the_ledger_is_refused(
    gateway: RunningGateway, caller: str
) -> None:
    for tag in ("x" * 65, "a\tb"):
        reply = gateway.chat(caller, "Hello", {"x-quota-tag": tag})
        check(reply, 400, "invalid_value", "'x-quota-tag'", "64")


UNKNOWN_TARGETS = (
    "GET /v1/chat/completions",
    "GET /v1/responses/resp_1",
    "GET /v1/files",
    "POST /v1/files",
    "GET /v1/organization/admin_api_keys",
    "DELETE /v1/models/gpt-4o-mini",
    "POST /v1/chat/completions/",
    "POST /v1//chat/completions",
    "POST /v1/chat%2fcompletions",
    "POST /v1/chat%2Fcompletions",
    "POST /v1/chat%5ccompletions",
    "POST /v1/./chat/completions",
    "POST /v1/files/../chat/completions",
    "POST /v1/files/%2e%2e/chat/completions",
    "POST /v1/chat/completions%00",
    "POST /V1/chat/completions",
    "POST //example.test/v1/chat/completions",
    "POST http://example.test/v1/chat/completions",
    "GET /",
    "GET /v1",
    "GET /v1/models/..",
    "GET /v1/models/a/b",
    "GET /admin/v1/users/ann",
    "GET /metrics",
    "OPTIONS *",
    "OPTIONS /v1/chat/completions",
)


@pytest.mark.parametrize("line", UNKNOWN_TARGETS)
def test_every_other_target_is_refused_as_it_stands(
    gateway: RunningGateway, caller: str, line: str
) -> None:
    method, target = line.split(" ")
    body = HELLO if method == "POST" else b""
    start = head(target, caller, f"Content-Length: {len(body)}", method=method)
    reply = send_raw(gateway.proxy, start + body)
    check(reply, 404, "route_not_available", "POST /v1/chat/completions")


def test_no_tunnel_is_opened(gateway: RunningGateway) -> None:
    where = urlsplit(gateway.stand_in.url).netloc
    start = f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()
    assert send_raw(gateway.proxy, start).status in (400, 404, 405)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\nhello\r\n\r\n",
        head(CHAT, "qg_a-key", "X-Long: " + "x" * 20_000),
        head(CHAT, "qg_a-key\0"),
        # Two lengths would let a second request be smuggled in.
        head(CHAT, "qg_a-key", "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    ],
    ids=["TLS", "version", "words", "long", "control character", "two lengths"],
)
def test_what_is_no_http_is_refused_and_its_bytes_are_not_logged(
    gateway: RunningGateway, raw: bytes
) -> None:
    reply = send_raw(gateway.proxy, raw)
    assert reply.status == 400
    assert reply.json["error"]["code"] == "invalid_http"
    assert "qg_a-key" not in reply.text
    assert reply.headers["server"] == "quota-gateway"
    log = gateway.stderr.read_text()
    assert "qg_a-key" not in log
    assert "Traceback" not in log
