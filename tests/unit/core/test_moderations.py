"""A moderation is free, so only its form is judged: a model, and something to look at."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.inference.moderations import DEFAULT_MODEL, judge_moderation
from gateway.core.refusal import Case, Refused
from tests.fakes.judging import judged

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def sent(**body: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(judge_moderation(json.dumps(body).encode()).upstream_body())
    return found


@pytest.mark.parametrize(
    "given_input",
    ["I hate you", ["a", "b"], [{"type": "text", "text": "a"}, PICTURE], [PICTURE]],
)
def test_texts_and_pictures_pass_as_they_are(given_input: Any) -> None:
    body = {"model": "omni-moderation-2024-09-26", "input": given_input, "next_year": [1]}
    assert sent(**body) == body


@pytest.mark.parametrize("named", [{}, {"model": None}])
def test_without_a_model_it_is_openai_s_default(named: dict[str, Any]) -> None:
    assert judge_moderation(json.dumps({"input": "a", **named}).encode()).model == DEFAULT_MODEL
    assert sent(input="a", **named) == {"input": "a", "model": "omni-moderation-latest"}


ODD_INPUTS: list[Any] = [None, "", [], {}, 3, True, {"text": "a"}]
ODD_MODELS: list[Any] = ["", 3, [], {}, False]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        *(({"input": odd}, "input") for odd in ODD_INPUTS),
        *(({"input": "a", "model": odd}, "model") for odd in ODD_MODELS),
    ],
)
def test_an_odd_request_is_refused_by_the_name_of_its_field(
    body: dict[str, Any], param: str
) -> None:
    with pytest.raises(Refused) as caught:
        sent(**body)
    assert (caught.value.case, caught.value.param) == (Case.INVALID_VALUE, param)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda node: (
        st.lists(node, max_size=3)
        | st.dictionaries(st.sampled_from(["input", "model", "type", "text"]), node)
    ),
)


@settings(deadline=None)
@given(st.binary() | ANY.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_bring_anything_but_a_request_or_a_refusal(raw: bytes) -> None:
    request = judged(judge_moderation, raw)
    assert request is None or json.loads(request.upstream_body())["model"] == request.model
