"""Chats that hear and speak: only with a model that says so, and never with stored objects."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.inference.chat import ChatRequest, judge_chat
from gateway.core.inference.chat_answer import read_chunk, read_completion
from gateway.core.inference.request import Dialect, Sending
from gateway.core.models import Model, Weights
from gateway.core.refusal import Case, Refused
from gateway.core.usage import Usage

DEAF = Model("m", "openai", "o200k_base", 1000, 400, 100, 16, Weights())
HEARS = replace(DEAF, takes_audio=True)
VOICE = {"voice": "alloy", "format": "wav"}
HEARD = {"type": "input_audio", "input_audio": {"data": "A" * 4000, "format": "mp3"}}
SPOKEN = {"modalities": ["text", "audio"], "audio": VOICE}


def judge(*parts: dict[str, Any], **changes: Any) -> ChatRequest:
    content = [{"type": "text", "text": "Hi"}, *parts]
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": content}]
    return judge_chat(json.dumps({"model": "m", "messages": messages, **changes}).encode())


def refusal(*parts: dict[str, Any], **changes: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        judge(*parts, **changes).count_prompt(DEAF, len)
    return caught.value


@pytest.mark.parametrize(
    ("parts", "changes", "param"),
    [
        ((HEARD,), {}, "messages[1].content[1]"),
        ((HEARD,), SPOKEN, "modalities"),
        ((), SPOKEN, "modalities"),
        ((), {"modalities": ["audio"]}, "modalities"),
        ((), {"audio": VOICE}, "audio"),
        ((), {"audio": {}}, "audio"),
    ],
)
def test_a_model_without_audio_is_refused_by_the_field_that_needs_it(
    parts: tuple[dict[str, Any], ...], changes: dict[str, Any], param: str
) -> None:
    refused = refusal(*parts, **changes)
    assert (refused.case, refused.param) == (Case.UNSUPPORTED_PARAMETER, param)
    assert "'m'" in refused.message


def test_a_model_with_audio_takes_both_and_they_are_sent_on_unchanged() -> None:
    request = judge(HEARD, **SPOKEN)
    assert request.count_prompt(HEARS, len) == judge().count_prompt(HEARS, len) + 30
    sent = json.loads(request.upstream_body(Sending("m", 50, Dialect())))
    assert (sent["modalities"], sent["audio"]) == (["text", "audio"], VOICE)
    assert sent["messages"][1]["content"][1] == HEARD
    assert sent["max_completion_tokens"] == 50
    assert not request.text_only


@pytest.mark.parametrize(
    "changes", [{}, {"modalities": None}, {"modalities": ["text"]}, {"audio": None}]
)
def test_text_needs_no_model_with_audio(changes: dict[str, Any]) -> None:
    request = judge(**changes)
    assert request.count_prompt(DEAF, len) > 0
    assert request.text_only


@pytest.mark.parametrize("voice", [{"id": "voice_1234"}, None, 3, ["alloy"]])
def test_a_stored_voice_is_refused(voice: Any) -> None:
    refused = refusal(audio={"voice": voice, "format": "wav"}, modalities=["text", "audio"])
    assert (refused.case, refused.param) == (Case.UNSUPPORTED_PARAMETER, "audio.voice")


@pytest.mark.parametrize("audio", ["alloy", 3, True, ["alloy"]])
def test_an_odd_voice_is_refused_by_its_name(audio: Any) -> None:
    refused = refusal(audio=audio)
    assert (refused.case, refused.param) == (Case.INVALID_VALUE, "audio")


@pytest.mark.parametrize(
    "sound", [None, "AAAA", 3, [], {}, {"format": "wav"}, {"data": None}, {"data": 3}]
)
def test_an_odd_recording_is_refused_by_its_place(sound: Any) -> None:
    refused = refusal({"type": "input_audio", "input_audio": sound})
    expected = (Case.INVALID_VALUE, "messages[1].content[1].input_audio")
    assert (refused.case, refused.param) == expected


def test_an_earlier_answer_is_not_referred_to_by_its_id() -> None:
    messages = [{"role": "assistant", "audio": {"id": "audio_1"}}]
    with pytest.raises(Refused) as caught:
        judge_chat(json.dumps({"model": "m", "messages": messages}).encode())
    assert caught.value.param == "messages[0].audio"


# --- answers -----------------------------------------------------------------------------------

# As gpt-4o-audio-preview answered "hello" in January 2026.
USAGE = {
    "prompt_tokens": 8,
    "completion_tokens": 54,
    "total_tokens": 62,
    "prompt_tokens_details": {
        "cached_tokens": 0,
        "audio_tokens": 0,
        "text_tokens": 8,
        "image_tokens": 0,
    },
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 37,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
        "text_tokens": 17,
    },
}
SAID = {
    "id": "audio_696496be735481908601f407fca4eb21",
    "data": "UklGRg" * 1000,
    "expires_at": 1768203470,
    "transcript": "Hello! How can I assist you today?",
}


def test_a_spoken_answer_tells_its_usage_and_its_transcript() -> None:
    message = {"role": "assistant", "content": None, "refusal": None, "audio": SAID}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    answer = read_completion(json.dumps({"choices": choices, "usage": USAGE}).encode())
    assert answer.usage == Usage(8, 0, 54, 0, audio_output_tokens=37)
    assert answer.texts() == [SAID["transcript"]]


def test_a_spoken_chunk_tells_its_transcript_and_never_its_data() -> None:
    for audio, texts in (
        ({"id": "audio_1", "transcript": "Hel"}, ["Hel"]),
        ({"id": "audio_1", "data": "A" * 1000}, []),
        ({"id": "audio_1", "expires_at": 1768203470}, []),
    ):
        raw = json.dumps({"choices": [{"index": 0, "delta": {"audio": audio}}]}).encode()
        assert read_chunk(raw).texts() == texts


@pytest.mark.parametrize("missing", ["prompt_tokens_details", "completion_tokens_details"])
@pytest.mark.parametrize("value", [None, {}, {"audio_tokens": None}, {"audio_tokens": 10**9}])
def test_details_of_sound_never_disturb_the_counts(missing: str, value: Any) -> None:
    raw = json.dumps({"choices": [], "usage": {**USAGE, missing: value}}).encode()
    usage = read_chunk(raw).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.cached_tokens) == (8, 0)
    assert (usage.output_tokens, usage.reasoning_tokens) == (54, 0)
    assert usage.audio_input_tokens <= 8
    assert usage.audio_output_tokens in (0, 37, 54)
