"""Where the network cuts a stream changes neither what is charged nor one byte of what is relayed.

Every API's streams are cut at every byte, into single bytes, and at random.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.inference.judges import JUDGES
from gateway.core.inference.observed_stream import ObservedStream
from gateway.core.usage import Usage
from tests.fakes import chat_stream as chat
from tests.fakes import responses_stream as responses

ASKS: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "Hi"}]},
    "responses": {"input": "Hi"},
}
USAGE = Usage(20, 0, 30, 0)
DETAILED = Usage(20, 4, 30, 6)
COMMENT = b": keep-alive\r\n\r\n"
CALLED = (
    responses.event("response.output_item.added", output_index=0, item=responses.call()),
    responses.delta('{"a":"€"}', kind="function_call_arguments"),
    responses.event("response.output_item.done", item=responses.call("find", '{"a":"€"}')),
)


@dataclass(frozen=True)
class Case:
    """A stream, and what it must come to. `hidden` is what the client may not see of it."""

    api: str
    stream: bytes
    usage: Usage | None
    text: str
    hidden: bytes = b""
    failed: bool = False


CASES = {
    "chat": Case(
        "chat",
        b"".join((chat.text("Hello"), COMMENT, chat.text(" €"), chat.usage(20, 30), chat.DONE)),
        USAGE,
        "Hello €",
        hidden=chat.usage(20, 30),
    ),
    "chat without usage": Case(
        "chat", b"".join((chat.text("Hello"), chat.finish(), chat.DONE)), None, "Hello"
    ),
    "chat with an error": Case(
        "chat",
        chat.text("Hello") + b'event: error\r\ndata: {"message":\rdata: "No."}\n\n',
        None,
        "Hello",
        failed=True,
    ),
    "responses": Case(
        "responses",
        b"".join((*responses.said("Hello", " €"), COMMENT, responses.last(number=9))),
        DETAILED,
        "Hello €",
    ),
    "responses with a call": Case(
        "responses", b"".join((*CALLED, responses.last())), DETAILED, 'find{"a":"€"}'
    ),
    "responses told at the end only": Case(
        "responses",
        responses.last(usage=None, output=[responses.message("Hello")]) + chat.DONE,
        None,
        "Hello",
    ),
    "responses that repeat at the end": Case(
        "responses",
        b"".join((*responses.said("Hello"), responses.last(output=[responses.message("Hello")]))),
        DETAILED,
        "Hello",
    ),
    "responses that failed": Case(
        "responses",
        b"".join((*responses.said("Hello"), responses.last("failed", usage=None))).replace(
            b"\n", b"\r\n"
        ),
        None,
        "Hello",
        failed=True,
    ),
    "responses cut off": Case("responses", b"".join(responses.said("Hello"))[:-20], None, "Hello"),
}
CUTS = st.lists(st.floats(0, 1), max_size=12)


def observe(case: Case, *chunks: bytes) -> tuple[ObservedStream, bytes]:
    """Watch a stream that comes in these chunks; the stream, and what the client sees of it."""
    asked = {"model": "gpt-4o-mini", "stream": True, **ASKS[case.api]}
    watched = ObservedStream(JUDGES[case.api](json.dumps(asked).encode()), len)
    seen = b"".join([watched.feed(chunk) for chunk in chunks])
    return watched, seen + watched.finish()


def check(case: Case, *chunks: bytes) -> None:
    watched, seen = observe(case, *chunks)
    assert seen == case.stream.replace(case.hidden, b"") if case.hidden else case.stream
    assert watched.usage == case.usage
    assert watched.written_tokens() == len(case.text)
    assert watched.has_error is case.failed


each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
def test_a_cut_at_any_byte_changes_nothing(case: Case) -> None:
    for place in range(len(case.stream) + 1):
        check(case, case.stream[:place], case.stream[place:])


@each_case
def test_single_bytes_change_nothing(case: Case) -> None:
    check(case, *(case.stream[place : place + 1] for place in range(len(case.stream))))


@given(st.sampled_from(sorted(CASES)), CUTS)
def test_random_cuts_change_nothing(name: str, cuts: list[float]) -> None:
    stream = CASES[name].stream
    places = [0, *sorted(int(cut * len(stream)) for cut in cuts), len(stream)]
    check(CASES[name], *(stream[start:end] for start, end in pairwise(places)))
