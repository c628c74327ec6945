"""Forty requests of somebody who means harm: none of their bytes reaches the upstream, and each is
answered in a way that can be understood. What may pass, passes as the gateway judged it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fakes.pictures import data_url, png
from tests.gateway.loopback import send_raw
from tests.gateway.running_gateway import MODEL, RunningGateway, prompt

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
HELLO = json.dumps(prompt("Hello")).encode()
NOT_HERE = (404, "route_not_available")
NO_HTTP = (400, "invalid_http")
UNSUPPORTED = (400, "unsupported_parameter")
INVALID = (400, "invalid_value")
NO_JSON = (400, "invalid_json")


def message(*lines: str, body: bytes = HELLO) -> Callable[[str], bytes]:
    """A request of these lines, with the key where `KEY` stands."""

    def of(key: str) -> bytes:
        head = "\r\n".join([*lines, "", ""]).replace("KEY", key)
        return head.encode("utf-8", "surrogateescape") + body

    return of


def at(target: str, *fields: str, method: str = "POST", body: bytes = HELLO) -> Any:
    """A request that is sound but for its target and these fields."""
    return message(
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        "Authorization: Bearer KEY",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *fields,
        body=body,
    )


def framed(*fields: str, body: bytes) -> Any:
    """A request that says with these fields where its body ends."""
    return message(
        f"POST {CHAT} HTTP/1.1", "Host: localhost", "Authorization: Bearer KEY", *fields, body=body
    )


def asking(path: str = CHAT, **fields: Any) -> Any:
    return at(path, body=json.dumps({**prompt("Hello"), **fields}).encode())


def responding(**fields: Any) -> Any:
    body = {"model": MODEL, "input": "Hello", **fields}
    return at(RESPONSES, body=json.dumps(body).encode())


def said(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


@dataclass(frozen=True)
class Attack:
    """What is sent, and the status and code of its answer."""

    raw: Callable[[str], bytes]
    answer: tuple[int, str]


HIDDEN = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer KEY\r\n\r\n"
CHUNKED_HELLO = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HELLO), HELLO)
ATTACKS = {
    # where it goes
    "absolute form": Attack(at("http://127.0.0.1:1/v1/chat/completions"), NOT_HERE),
    "absolute form of ours": Attack(at(f"http://localhost{CHAT}"), NOT_HERE),
    "another host": Attack(at("//example.test/v1/chat/completions"), NOT_HERE),
    "a user in the host": Attack(at("//localhost@example.test/v1/chat/completions"), NOT_HERE),
    "encoded slash": Attack(at("/v1/chat%2fcompletions"), NOT_HERE),
    "encoded twice": Attack(at("/v1/chat%252fcompletions"), NOT_HERE),
    "backslash": Attack(at("/v1/chat\\completions"), NOT_HERE),
    "encoded dots": Attack(at("/v1/files/%2e%2e/chat/completions"), NOT_HERE),
    "dots": Attack(at("/v1/files/../chat/completions"), NOT_HERE),
    "empty segment": Attack(at("/v1//chat/completions"), NOT_HERE),
    "encoded null": Attack(at("/v1/chat/completions%00"), NOT_HERE),
    "path parameter": Attack(at("/v1/chat/completions;/../../files"), NOT_HERE),
    "another user's response": Attack(
        at("/v1/responses/resp_67cb61fa", method="GET", body=b""), NOT_HERE
    ),
    "another user's file": Attack(
        at("/v1/files/file-abc/content", method="GET", body=b""), NOT_HERE
    ),
    "keys of the account": Attack(at("/v1/organization/admin_api_keys"), NOT_HERE),
    "a socket": Attack(
        at("/v1/realtime", "Upgrade: websocket", "Connection: Upgrade", method="GET", body=b""),
        NOT_HERE,
    ),
    # where it ends
    "both lengths": Attack(
        framed("Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
        NO_HTTP,
    ),
    "two lengths": Attack(
        framed("Content-Length: 5", f"Content-Length: {len(HELLO)}", body=HELLO), NO_HTTP
    ),
    "a negative length": Attack(framed("Content-Length: -1", body=HELLO), NO_HTTP),
    "a length with a sign": Attack(framed(f"Content-Length: +{len(HELLO)}", body=HELLO), NO_HTTP),
    "a space before the colon": Attack(
        framed("Transfer-Encoding : chunked", body=CHUNKED_HELLO), NO_HTTP
    ),
    "chunked but not last": Attack(
        framed("Transfer-Encoding: chunked, identity", body=CHUNKED_HELLO), NO_HTTP
    ),
    "a chunk without end": Attack(
        framed("Transfer-Encoding: chunked", body=b"fffffffffffffffff\r\n" + HELLO), NO_HTTP
    ),
    "a folded field": Attack(at(CHAT, "X-One: 1", " Transfer-Encoding: chunked"), NO_HTTP),
    "a line feed in a field": Attack(at(CHAT, "X-One: 1\nX-Quota-User: root"), NO_HTTP),
    "compressed": Attack(
        at(CHAT, "Content-Encoding: gzip", body=b"\x1f\x8b\x08" + b"\0" * 20), UNSUPPORTED
    ),
    # what it asks
    "n = 1,000,000,000": Attack(asking(n=10**9), INVALID),
    "a negative cap": Attack(asking(max_tokens=-100_000), INVALID),
    "a cap of 1e3": Attack(at(CHAT, body=HELLO[:-1] + b',"max_tokens":1e3}'), INVALID),
    "1e400": Attack(at(CHAT, body=HELLO[:-1] + b',"temperature":1e400}'), NO_JSON),
    "an integer beyond 64 bits": Attack(
        at(CHAT, body=HELLO[:-1] + b',"seed":%d}' % 2**65), NO_JSON
    ),
    "deep nesting": Attack(
        at(CHAT, body=HELLO[:-1] + b',"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"), NO_JSON
    ),
    "another encoding": Attack(at(CHAT, body=HELLO.decode().encode("utf-16")), NO_JSON),
    "a file of this machine": Attack(
        asking(messages=said({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})),
        INVALID,
    ),
    "a file of the account": Attack(
        asking(messages=said({"type": "file", "file": {"file_id": "file-abc"}})), UNSUPPORTED
    ),
    "continue another's response": Attack(
        responding(previous_response_id="resp_67cb61fa"), UNSUPPORTED
    ),
    "read another's item": Attack(
        responding(input=[{"type": "item_reference", "id": "msg_67cb61fa"}]), UNSUPPORTED
    ),
    "tools smuggled in as input": Attack(
        responding(input=[{"type": "additional_tools", "tools": [{"type": "web_search"}]}]),
        UNSUPPORTED,
    ),
    "work after the answer": Attack(responding(background=True), UNSUPPORTED),
    "a server of theirs": Attack(
        responding(tools=[{"type": "mcp", "server_url": "https://example.test"}]), UNSUPPORTED
    ),
}


@pytest.fixture
def caller(gateway: RunningGateway) -> Iterator[str]:
    """The key of a user for whom the upstream must not have seen a single request."""
    user, key = gateway.new_user("full")
    yield key
    assert gateway.stand_in.served(user)["requests"] == 0
    shown = gateway.shown(user)
    assert (shown["used_tokens"], shown["open_holds"]) == (0, 0)


def test_there_are_forty() -> None:
    assert len(ATTACKS) >= 40


@pytest.mark.parametrize("name", ATTACKS)
def test_no_byte_of_it_reaches_the_upstream(
    gateway: RunningGateway, caller: str, name: str
) -> None:
    attack, before = ATTACKS[name], gateway.stand_in.requests()
    reply = send_raw(gateway.proxy, attack.raw(caller))
    assert reply.code == attack.answer, reply
    assert len(reply.error["message"]) > 20
    assert caller not in reply.text
    assert gateway.stand_in.requests() == before


def test_of_a_key_given_twice_one_meaning_is_judged_and_sent(gateway: RunningGateway) -> None:
    """JSON readers differ in which they take; upstream must not read another than was counted."""
    user, key = gateway.new_user("lite")
    cheap, dear = prompt("Hi")["messages"], prompt("word " * 5000)["messages"]
    body = json.dumps({"model": MODEL, "messages": cheap, "max_tokens": 5})[:-1].encode()
    body += b',"max_tokens":7,"n":128,"n":1,"messages":' + json.dumps(dear).encode() + b"}"
    reply = gateway.chat(key, body)
    assert reply.status == 200
    last = gateway.stand_in.last()
    assert (last["body"]["n"], last["body"]["messages"]) == (1, dear)
    assert last["body"]["max_completion_tokens"] == 7
    once = json.dumps(last["body"], separators=(",", ":"))
    assert int(last["headers"]["content-length"]) == len(once), "nothing stands there twice"
    assert reply.json["usage"]["prompt_tokens"] > 5000
    assert reply.json["usage"]["completion_tokens"] == 7
    (row,) = gateway.ledger_rows(user)
    assert row["charged_tokens"] == reply.json["usage"]["total_tokens"]
    assert row["overdraft_tokens"] == 0, "what was judged was held"


def test_nobody_speaks_for_another_or_for_the_gateway(gateway: RunningGateway) -> None:
    user, key = gateway.new_user("lite")
    other, _ = gateway.new_user("lite")
    spoofed = {
        "X-Quota-User": other,
        "X-Request-Id": "forged",
        "X-Client-Request-Id": "mine-1",
        "Api-Key": "sk-forged",
        "OpenAI-Organization": "org-forged",
        "Connection": "keep-alive, Authorization, X-Client-Request-Id",
        "X-Forwarded-Host": "example.test",
        "X-HTTP-Method-Override": "DELETE",
    }
    reply = gateway.chat(key, "Hello", spoofed)
    assert reply.status == 200
    last = gateway.stand_in.last()
    assert last["headers"]["x-quota-user"] == user
    ours = reply.headers["x-quota-request-id"]
    assert (reply.headers["x-request-id"], last["headers"]["x-client-request-id"]) == (
        "forged",
        ours,
    )
    assert not {"api-key", "openai-organization", "x-forwarded-host"} & set(last["headers"])
    (row,) = gateway.ledger_rows(user)
    assert (row["user_id"], row["event_id"]) == (user, ours)
    gateway.ledger_rows(other, 0)


@pytest.mark.parametrize(
    "raw",
    [png(2**31 - 1, 2**31 - 1), b"\xff\xd8" + b"\xff\xe1\x00\x00" * 100_000],
    ids=["a header of 2^31 x 2^31 pixels", "segments that never get anywhere"],
)
def test_a_picture_bomb_costs_what_a_picture_can_cost(gateway: RunningGateway, raw: bytes) -> None:
    user, key = gateway.new_user("lite")
    part = {"type": "image_url", "image_url": {"url": data_url(raw), "detail": "high"}}
    reply = gateway.chat(key, prompt("", messages=said(part)))
    assert reply.status == 200
    (row,) = gateway.ledger_rows(user)
    assert row["held_tokens"] <= 48_169 + 4096 + 20, "the most that a picture costs, and the cap"
    assert row["overdraft_tokens"] == 0


def test_a_body_that_does_not_come_is_not_waited_for(impatient: RunningGateway) -> None:
    user, key = impatient.new_user("lite")
    slow = at(CHAT)(key)[:-1]
    reply = send_raw(impatient.proxy, slow)
    assert reply.code == (408, "request_timeout")
    assert reply.error["type"] == "invalid_request_error"
    assert reply.headers["connection"] == "close"
    assert impatient.shown(user)["open_holds"] == 0
    assert impatient.stand_in.served(user)["requests"] == 0
    assert impatient.metric("decisions_total", reason="request_timeout") == 1
