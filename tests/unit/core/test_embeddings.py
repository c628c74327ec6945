"""An embedding costs its prompt and writes nothing; its numbers are never looked at."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.inference.embeddings import (
    EmbeddingsRequest,
    judge_embeddings,
    read_embeddings,
)
from gateway.core.inference.request import Dialect, Sending
from gateway.core.models import Model, Weights
from gateway.core.refusal import Case, Refused
from gateway.core.sse import SseEvent
from gateway.core.usage import Usage, believe
from tests.fakes.judging import judged

MODEL = Model("embed", "openai", "cl100k_base", 8191, 0, 0, 0, Weights())
USAGE = {"prompt_tokens": 8, "total_tokens": 8}
USED = Usage(8, 0, 0, 0)
LEFT_OUT = "nothing at all"


def judge(**changes: Any) -> EmbeddingsRequest:
    body = {"model": "embed", "input": "Once", **changes}
    kept = {name: value for name, value in body.items() if value != LEFT_OUT}
    return judge_embeddings(json.dumps(kept).encode())


def answer(*embeddings: Any, **fields: Any) -> bytes:
    data = [
        {"object": "embedding", "index": index, "embedding": embedding}
        for index, embedding in enumerate(embeddings)
    ]
    return json.dumps({"object": "list", "data": data, "model": "embed", **fields}).encode()


@pytest.mark.parametrize(
    ("given_input", "tokens"),
    [
        ("Once", 4),
        ("", 1),
        (["Once", "upon a", ""], 11),
        ([1, 2, 3], 3),
        ([[1, 2, 3], [4]], 4),
    ],
)
def test_every_input_counts_and_nothing_is_written(given_input: Any, tokens: int) -> None:
    request = judge(input=given_input)
    assert request.count_prompt(MODEL, len) == tokens
    assert request.output_bounds(MODEL) == (0, 0)
    assert (request.choices, request.stream, request.text_only) == (1, False, True)


ODD_MODELS: list[Any] = [LEFT_OUT, None, "", 3]
ODD_INPUTS: list[Any] = [
    *(LEFT_OUT, None, 3, {}, [], [[]], [{}], [True], [1.5], ["a", 1], [["a"]]),
]


@pytest.mark.parametrize(
    ("changes", "case"),
    [
        *(({"model": odd}, Case.INVALID_VALUE) for odd in ODD_MODELS),
        *(({"input": odd}, Case.INVALID_VALUE) for odd in ODD_INPUTS),
        ({"stream": True}, Case.UNSUPPORTED_PARAMETER),
    ],
    ids=str,
)
def test_an_odd_request_is_refused_by_the_name_of_its_field(
    changes: dict[str, Any], case: Case
) -> None:
    with pytest.raises(Refused) as caught:
        judge(**changes)
    assert (caught.value.case, [caught.value.param]) == (case, list(changes))


def test_what_was_judged_is_sent_on_and_no_cap_is() -> None:
    kept = {"dimensions": 256, "encoding_format": "base64", "user": "u", "next_year": {"a": 1}}
    request = judge(**kept, stream=False)
    sent = json.loads(request.upstream_body(Sending("embed-2", 0, Dialect())))
    assert sent == {"model": "embed-2", "input": "Once", **kept, "stream": False}


@pytest.mark.parametrize("embedding", [[0.1, -2e-5, 3], "zczMPQ==", [], None])
def test_the_prompt_is_all_that_an_answer_costs(embedding: Any) -> None:
    said = judge().read_whole(answer(embedding, embedding, usage=USAGE))
    assert said.usage == USED
    assert list(said.texts()) == []
    assert believe(said.usage, wrote_text=bool(said.texts())) == USED
    assert said.service_tier is None


@pytest.mark.parametrize(
    "raw",
    [
        answer(usage=USAGE),
        answer([0.5], usage={"prompt_tokens": 8}),
        answer([0.5], usage={**USAGE, "completion_tokens": 0}),
        answer([0.5], usage={**USAGE, "completion_tokens": 5}),  # no text was written
        answer([0.5], usage=USAGE) + b" \n",
        json.dumps({"usage": USAGE, "data": [{"embedding": [0.5]}]}).encode(),
        json.dumps({"usage": USAGE, "data": [{"usage": {"prompt_tokens": 99}}]}).encode(),
        json.dumps({"data": [], "usage": USAGE, "note": '"usage"'}).encode(),
        json.dumps({"data": [], "usage": USAGE, "note": 'a "usage'}).encode(),
        json.dumps({"data": [], "usage": USAGE, "note": "usage"}).encode(),
        json.dumps({"data": [], "usage": USAGE, "meta": {"usage": {"prompt_tokens": 9}}}).encode(),
        json.dumps({"data": [], "usage": {**USAGE, "usage": {"prompt_tokens": 9}}}).encode(),
    ],
)
def test_the_answer_s_own_usage_is_read_wherever_it_stands(raw: bytes) -> None:
    assert read_embeddings(raw).usage == USED


@pytest.mark.parametrize(
    "raw",
    [
        answer([0.5]),
        answer([0.5], usage=None),
        answer([0.5], usage=[8]),
        answer([0.5], usage={"prompt_tokens": 0}),
        answer([0.5], usage={"prompt_tokens": "8"}),
        json.dumps({"data": [{"usage": USAGE}]}).encode(),
        json.dumps({"meta": {"usage": USAGE}}).encode(),
        json.dumps([{"usage": USAGE}]).encode(),
        *(b"", b"{}", b"null", b"[]", b"\xff", b"<html>busy</html>", b'{"usage"', b'"usage"'),
        b"[" * 100_000,
        b'{"usage":' + b"[" * 100_000,
    ],
)
def test_no_usage_is_believed_that_is_not_the_answer_s_own(raw: bytes) -> None:
    assert read_embeddings(raw).usage is None


def test_the_numbers_are_not_read() -> None:
    """What is not JSON between the first byte and the usage shows that nobody looked there."""
    whole = answer(*[[0.5] * 10] * 10, usage=USAGE)
    assert read_embeddings(whole.replace(b"0.5", b"0.x")).usage == USED


def test_a_stream_that_nobody_asked_for_is_relayed() -> None:
    request = judge()
    data = json.dumps({"usage": USAGE}).encode()
    said = request.read_event(SseEvent(raw=b"", name="", data=data))
    assert (said.usage, said.is_done, said.is_error, said.id) == (USED, False, False, None)
    assert not request.hides(said)
    assert b"upstream_timeout" in request.broken_event(Case.UPSTREAM_TIMEOUT, "silent", 1)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda node: (
        st.lists(node, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "data", "prompt_tokens", "input", "model"]), node
        )
    ),
    max_leaves=15,
)


@settings(deadline=None)
@given(st.binary() | ANY.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_raise_anything_but_a_refusal(raw: bytes) -> None:
    usage = read_embeddings(raw).usage
    assert usage is None or (usage.prompt_tokens > 0 and usage.output_tokens == 0)
    request = judged(judge_embeddings, raw)
    assert request is None or request.count_prompt(MODEL, len) >= 1


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["usage", "data", "meta", "x"]), ANY, max_size=4))
def test_reading_from_the_end_finds_what_reading_it_all_finds(document: dict[str, Any]) -> None:
    wire = json.loads(json.dumps(document)).get("usage")
    expected = wire.get("prompt_tokens") if isinstance(wire, dict) else None
    usage = read_embeddings(json.dumps(document).encode()).usage
    if usage is not None:
        assert usage.prompt_tokens == expected
    elif "NaN" not in (text := json.dumps(document)) and "Infinity" not in text:
        assert type(expected) is not int or not 0 < expected <= 2**40
