"""With a prediction no cap may be sent, so all that the model can write is held."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.inference.chat import ChatRequest, judge_chat
from gateway.core.inference.chat_answer import read_completion
from gateway.core.inference.request import Dialect, Sending
from gateway.core.models import Model, Weights
from gateway.core.refusal import Case, Refused
from gateway.core.usage import Usage

MODEL = Model("m", "openai", "o200k_base", 1000, 400, 100, 16, Weights())
PARTS = [{"type": "text", "text": "abc"}, {"type": "text", "text": "de"}]


def judge(prediction: Any, **changes: Any) -> ChatRequest:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "m", "messages": messages, "prediction": prediction, **changes}
    return judge_chat(json.dumps(body).encode())


def predicted(content: Any) -> dict[str, Any]:
    return {"type": "content", "content": content}


@pytest.mark.parametrize(("content", "tokens"), [("abcde", 5), (PARTS, 5), ("", 0), ([], 0)])
def test_the_prediction_is_held_beside_the_prompt(content: Any, tokens: int) -> None:
    plain = judge(None).count_prompt(MODEL, len)
    request = judge(predicted(content))
    assert request.count_prompt(MODEL, len) == plain + tokens
    assert not request.text_only
    assert judge(None).text_only


def test_each_choice_may_reject_the_prediction() -> None:
    plain = judge(None).count_prompt(MODEL, len)
    assert judge(predicted("abcde"), n=3).count_prompt(MODEL, len) == plain + 15


def test_the_model_s_own_maximum_is_held_never_lowered_and_no_cap_is_sent() -> None:
    request = judge(predicted("abcde"))
    assert request.output_bounds(MODEL) == (400, 400)
    sent = json.loads(request.upstream_body(Sending("m", 400, Dialect())))
    assert sent["prediction"] == predicted("abcde")
    assert not [name for name in sent if name.startswith("max_")]
    assert sent["store"] is False


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_a_cap_beside_a_prediction_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(Refused) as caught:
        judge(predicted("abcde"), **{name: 9})
    assert (caught.value.case, caught.value.param) == (Case.UNSUPPORTED_PARAMETER, name)


@pytest.mark.parametrize(
    "prediction", ["abcde", 3, True, False, [], {}, {"type": "content"}, predicted(None)]
)
def test_a_prediction_of_nothing_is_refused(prediction: Any) -> None:
    with pytest.raises(Refused) as caught:
        judge(prediction)
    assert (caught.value.case, caught.value.param) == (Case.INVALID_VALUE, "prediction")


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ("abc", "prediction.content[0]"),
        ({"type": "text"}, "prediction.content[0].text"),
        ({"type": "refusal", "refusal": "no"}, "prediction.content[0]"),
        ({"type": "input_audio", "input_audio": {"data": ""}}, "prediction.content[0]"),
        ({"type": "image_url", "image_url": {"url": "data:"}}, "prediction.content[0]"),
    ],
)
def test_a_prediction_is_text(part: Any, param: str) -> None:
    with pytest.raises(Refused) as caught:
        judge(predicted([part]))
    assert caught.value.param == param


def test_what_was_rejected_is_part_of_the_output_already() -> None:
    """As OpenAI's guide to predicted outputs shows an answer."""
    usage = {
        "prompt_tokens": 270,
        "completion_tokens": 184,
        "total_tokens": 454,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 85,
            "rejected_prediction_tokens": 15,
        },
    }
    choices = [{"index": 0, "message": {"role": "assistant", "content": "class User"}}]
    raw = json.dumps({"id": "chatcmpl-1", "choices": choices, "usage": usage}).encode()
    assert read_completion(raw).usage == Usage(270, 0, 184, 0)
