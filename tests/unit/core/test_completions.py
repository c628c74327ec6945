"""A completion is judged before it costs anything: every prompt counts, and every answer does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.inference.caps import CAPS
from gateway.core.inference.completions import CompletionsRequest, judge_completions
from gateway.core.inference.request import Closing, Dialect, Sending
from gateway.core.models import Model, Weights
from gateway.core.refusal import Case, Refused
from gateway.core.rid import make_rid
from gateway.core.sse import SseEvent
from gateway.core.usage import Usage
from tests.fakes.judging import judged

MODEL = Model("m", "vllm", "cl100k_base", 1000, 400, 100, 8, Weights())
LEFT_OUT = "nothing at all"
RID = make_rid(1_795_000_000_000, bytes(10))


def judge(**changes: Any) -> CompletionsRequest:
    body = {"model": "m", "prompt": "Once", **changes}
    kept = {name: value for name, value in body.items() if value != LEFT_OUT}
    return judge_completions(json.dumps(kept).encode())


def refusal(**changes: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        judge(**changes)
    return caught.value


def sent(request: CompletionsRequest, output_tokens: int = 16, **dialect: Any) -> dict[str, Any]:
    body = request.upstream_body(Sending("m", output_tokens, Dialect(**dialect)))
    found: dict[str, Any] = json.loads(body)
    return found


def each(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


@pytest.mark.parametrize(
    "changes",
    [
        *each("model", LEFT_OUT, None, "", 3),
        *each("prompt", LEFT_OUT, None, 3, True, {}, [], [[]], [None], [True], [1.5], ["a", 1]),
        *each("prompt", [[1], "a"], [[1], 2], [["a"]], [[1], []], [[True]], {"id": "pmpt_1"}),
        *each("suffix", 3, ["a"], True),
        *each("stream", 1, "yes"),
        *each("echo", 1, "yes"),
        *each("stream_options", 1, True),
        *each("n", 0, 129, "2", True, 1.0),
        *each("best_of", 0, 129, "2", True, 1.0),
        *each("max_tokens", -1, 1.5, "10", True),
    ],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_name(changes: dict[str, Any]) -> None:
    refused = refusal(**changes)
    assert (refused.case, [refused.param]) == (Case.INVALID_VALUE, list(changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt_embeds": "AAAA"},
        {"background": True},
        {"container": "cntr_1"},
        {"conversation": "conv_1"},
        {"previous_response_id": "resp_1"},
    ],
    ids=str,
)
def test_what_cannot_be_metered_is_refused_by_its_name(changes: dict[str, Any]) -> None:
    refused = refusal(**changes)
    assert (refused.case, [refused.param]) == (Case.UNSUPPORTED_PARAMETER, list(changes))


@pytest.mark.parametrize(
    ("prompt", "prompts", "tokens"),
    [
        ("Once", 1, 4),
        ("", 1, 1),
        (["Once", "upon a"], 2, 10),
        (["", ""], 2, 2),
        ([1, 2, 3], 1, 3),
        ([[1, 2, 3], [4]], 2, 4),
    ],
)
def test_every_prompt_counts_and_every_token_id_is_one(
    prompt: Any, prompts: int, tokens: int
) -> None:
    request = judge(prompt=prompt)
    assert request.count_prompt(MODEL, len) == tokens
    assert request.choices == prompts
    assert judge(prompt=prompt, suffix="end").count_prompt(MODEL, len) == tokens + 3 * prompts
    assert sent(request)["prompt"] == prompt
    assert request.text_only


@pytest.mark.parametrize(
    ("changes", "choices"),
    [
        ({}, 2),
        ({"n": 3}, 6),
        ({"best_of": 5}, 10),
        ({"n": 3, "best_of": 5}, 10),
        ({"n": 3, "best_of": 2}, 6),
        ({"n": None, "best_of": None}, 2),
    ],
)
def test_every_answer_may_take_the_cap_also_those_that_are_thrown_away(
    changes: dict[str, Any], choices: int
) -> None:
    assert judge(prompt=["a", "b"], **changes).choices == choices


@pytest.mark.parametrize(
    ("caps", "bounds"),
    [
        ({}, (16, 8)),
        ({"max_tokens": None}, (16, 8)),
        ({"max_tokens": 50}, (50, 8)),
        ({"max_tokens": 5}, (5, 5)),
        ({"max_tokens": 9999}, (400, 8)),
        ({"max_tokens": 0, "echo": True}, (0, 0)),
        ({"max_tokens": 50, "n_predict": 20}, (20, 8)),
    ],
)
def test_the_cap_is_the_caller_s_or_openai_s_sixteen(
    caps: dict[str, Any], bounds: tuple[int, int]
) -> None:
    request = judge(**caps)
    assert request.output_bounds(MODEL) == bounds
    body = sent(request, bounds[0])
    assert {name: body[name] for name in CAPS if name in body} == {"max_tokens": bounds[0]}


def test_a_model_that_writes_nothing_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        judge().output_bounds(Model("embed", "vllm", "cl100k_base", 1000, 0, 0, 0, Weights()))
    assert (caught.value.case, caught.value.param) == (Case.INVALID_VALUE, "model")


def test_the_rest_is_sent_on_and_nothing_is_stored() -> None:
    kept = {"suffix": "end", "logprobs": 3, "echo": True, "best_of": 2, "a_field_of_next_year": [1]}
    body = sent(judge(**kept, store=True, metadata={"a": "b"}))
    assert body == {"model": "m", "prompt": "Once", "max_tokens": 16, **kept}


@pytest.mark.parametrize("asked", [None, {}, {"include_usage": False}, {"include_usage": True}])
def test_usage_is_asked_for_and_hidden_unless_the_client_did(asked: Any) -> None:
    request = judge(stream=True, stream_options=asked)
    assert sent(request)["stream_options"]["include_usage"] is True
    assert "stream_options" not in sent(request, stream_usage=False)
    usage = {"prompt_tokens": 4, "completion_tokens": 9, "total_tokens": 13}
    last = event(choices=[], usage=usage)
    assert request.read_event(last).usage == Usage(4, 0, 9, 0)
    assert request.hides(request.read_event(last)) is (asked != {"include_usage": True})


# --- answers -----------------------------------------------------------------------------------


def event(**fields: Any) -> SseEvent:
    data = json.dumps({"id": "cmpl-1", "object": "text_completion", **fields}).encode()
    return SseEvent(raw=b"data: " + data + b"\n\n", name="", data=data)


def answer(*texts: str, usage: Any = None) -> bytes:
    choices = [
        {"index": index, "text": text, "logprobs": None, "finish_reason": "length"}
        for index, text in enumerate(texts)
    ]
    document = {"id": "cmpl-1", "object": "text_completion", "choices": choices, "usage": usage}
    return json.dumps(document).encode()


def test_an_answer_tells_its_usage_and_its_texts() -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 9, "total_tokens": 13}
    said = judge().read_whole(answer(" upon", " there", usage=usage))
    assert said.usage == Usage(4, 0, 9, 0)
    assert said.texts() == [" upon", " there"]


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({}, ["Once upon", "Once there"]),
        ({"echo": True}, [" upon", " there"]),
        # Of several prompts, or of token ids, it is not known what each text begins with.
        ({"echo": True, "prompt": ["Once", "Once"]}, ["Once upon", "Once there"]),
        ({"echo": True, "prompt": [1]}, ["Once upon", "Once there"]),
        ({"echo": True, "max_tokens": 0}, []),
        ({"echo": True, "max_tokens": 0, "prompt": [1]}, []),
    ],
)
def test_an_echo_is_not_output(changes: dict[str, Any], texts: list[str]) -> None:
    assert judge(**changes).read_whole(answer("Once upon", "Once there")).texts() == texts


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_without_output_is_believed(stream: bool) -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 4}
    request = judge(echo=True, max_tokens=0, logprobs=1, stream=stream)
    assert request.read_whole(answer("Once", usage=usage)).usage == Usage(4, 0, 0, 0)
    said = request.read_event(event(choices=[{"index": 0, "text": "Once"}], usage=usage))
    assert (said.usage, said.texts()) == (Usage(4, 0, 0, 0), [])
    assert judge(echo=True).read_whole(answer("Once upon", usage=usage)).usage is None


def test_a_stream_ends_as_a_completion_does() -> None:
    raw = judge().closing_events(Closing(RID, None, "m", choices=2, events=3))
    first, last, rest = raw.split(b"\n\n")
    chunk = json.loads(first.removeprefix(b"data: "))
    assert (chunk["object"], chunk["id"], chunk["model"]) == ("text_completion", f"cmpl-{RID}", "m")
    assert chunk["choices"] == [
        {"index": index, "text": "", "logprobs": None, "finish_reason": "length"}
        for index in (0, 1)
    ]
    assert (last, rest) == (b"data: [DONE]", b"")
    named = judge().closing_events(Closing(RID, "cmpl-7", "m", choices=1, events=3))
    assert b'"id":"cmpl-7"' in named


def test_a_cut_stream_tells_its_error() -> None:
    raw = judge().broken_event(Case.UPSTREAM_TIMEOUT, "silent", 3)
    error = json.loads(raw.removeprefix(b"data: "))["error"]
    assert (error["message"], error["code"]) == ("silent", "upstream_timeout")


# --- any JSON ----------------------------------------------------------------------------------

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
)
ANY = st.recursive(
    LEAVES,
    lambda node: st.lists(node, max_size=3) | st.dictionaries(st.text(max_size=3), node),
    max_leaves=10,
)
PROMPT = (
    st.text(max_size=5)
    | st.lists(st.text(max_size=3), max_size=3)
    | st.lists(st.integers(0, 10**6), max_size=3)
    | st.lists(st.lists(st.integers(0, 10**6), max_size=3), max_size=3)
    | ANY
)
NAMES = ("n", "best_of", "max_tokens", "n_predict", "echo", "suffix", "stream", "stream_options")


@settings(deadline=None, max_examples=200)
@given(
    st.fixed_dictionaries(
        {"model": st.just("m"), "prompt": PROMPT},
        optional=dict.fromkeys(NAMES, ANY | st.integers(0, 200) | st.booleans()),
    ),
    st.binary() | ANY.map(lambda value: json.dumps(value).encode()),
)
def test_no_json_brings_anything_but_a_request_or_a_refusal(
    document: dict[str, Any], raw: bytes
) -> None:
    for body in (json.dumps(document).encode(), raw):
        request = judged(judge_completions, body)
        if request is None:
            continue
        assert request.choices >= 1
        assert request.count_prompt(MODEL, len) >= len(request.prompts)
        wanted, least = request.output_bounds(MODEL)
        assert 0 <= least <= wanted <= MODEL.output_tokens_max
        assert [name for name in sent(request) if name in CAPS] == ["max_tokens"]
        assert request.read_whole(raw).texts() is not None
        request.read_event(SseEvent(raw=raw, name="", data=raw))
