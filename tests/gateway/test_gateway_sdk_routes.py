"""The official Python client on every inference route, told nothing but where and who."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests.gateway.running_gateway import MODEL, RunningGateway

Client = Callable[[str], openai.OpenAI]
Row = dict[str, Any]
HELLO = "Hello! Your words arrived, and here is an answer."
EMBEDDING, MODERATION, AUDIO = "text-embedding-3-small", "omni-moderation-latest", "gpt-audio-1.5"
PARAMETERS: Any = {
    "type": "object",
    "properties": {"town": {"type": "string"}},
    "required": ["town"],
    "additionalProperties": False,
}
PIXEL = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde"
).decode()
PICTURE: Any = f"data:image/png;base64,{PIXEL}"


class Weather(BaseModel):
    town: str
    degrees: int


def row_of(gateway: RunningGateway, user: str) -> Row:
    """The one row of the user: measured, done, and not more than was held."""
    (row,) = gateway.ledger_rows(user)
    assert (row["quality"], row["outcome"], row["status"]) == ("measured", "done", 200)
    assert row["overdraft_tokens"] == 0
    return row


# --- /v1/responses -----------------------------------------------------------------------------


def test_a_response(gateway: RunningGateway, sdk: Client) -> None:
    user, key = gateway.new_user()
    answer = sdk(key).responses.create(model=MODEL, input="Hello", instructions="Be brief.")
    assert (answer.output_text, answer.status) == (HELLO, "completed")
    assert answer.usage is not None
    row = row_of(gateway, user)
    assert (row["route"], row["charged_tokens"]) == ("responses", answer.usage.total_tokens)
    assert answer._request_id == row["event_id"]
    sent = gateway.stand_in.last()["body"]
    assert (sent["store"], sent["max_output_tokens"]) == (False, 4096)


def test_a_streamed_response(gateway: RunningGateway, sdk: Client) -> None:
    user, key = gateway.new_user()
    events = list(sdk(key).responses.create(model=MODEL, input="Hello", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert text == HELLO
    assert last.type == "response.completed"
    assert last.response.usage is not None
    assert row_of(gateway, user)["charged_tokens"] == last.response.usage.total_tokens


def test_a_response_that_the_sdk_gathers_from_events(gateway: RunningGateway, sdk: Client) -> None:
    user, key = gateway.new_user()
    with sdk(key).responses.stream(model=MODEL, input="Hello", max_output_tokens=16) as stream:
        for _ in stream:
            pass
        answer = stream.get_final_response()
    assert answer.output_text == HELLO
    assert row_of(gateway, user)["output_tokens"] == 12


def test_a_response_that_reaches_its_cap_is_incomplete_and_charged(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    asked: Any = {"model": MODEL, "input": "@stand-in write=500", "max_output_tokens": 20}
    answer = sdk(key).responses.create(**asked)
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    *_, last = sdk(key).responses.create(**asked, stream=True)
    assert last.type == "response.incomplete"
    rows = gateway.ledger_rows(user, 2)
    assert [(row["output_tokens"], row["quality"]) for row in rows] == [(20, "measured")] * 2


def test_a_response_that_fails_in_its_stream_is_charged_what_was_written(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    *_, last = sdk(key).responses.create(
        model=MODEL, input="@stand-in write=80 fail_after=5", stream=True
    )
    assert last.type == "response.failed"
    (row,) = gateway.ledger_rows(user)
    assert row["outcome"] == "upstream_error"
    assert row["output_tokens"] == 20


def test_a_response_in_a_form_that_was_asked_for(gateway: RunningGateway, sdk: Client) -> None:
    user, key = gateway.new_user()
    answer = sdk(key).responses.parse(model=MODEL, input="Weather?", text_format=Weather)
    assert isinstance(answer.output_parsed, Weather)
    assert row_of(gateway, user)["route"] == "responses"


def test_a_response_that_calls_functions_and_goes_on_by_itself(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    tools: Any = [{"type": "function", "name": "weather", "strict": True, "parameters": PARAMETERS}]
    asked: Any = [{"role": "user", "content": "@stand-in calls=1"}]
    first = sdk(key).responses.create(model=MODEL, input=asked, tools=tools)
    (call,) = [item for item in first.output if item.type == "function_call"]
    asked += [item.model_dump(exclude_none=True) for item in first.output]
    asked += [{"type": "function_call_output", "call_id": call.call_id, "output": "dry"}]
    second = sdk(key).responses.create(model=MODEL, input=asked, tools=tools)
    assert second.output_text == HELLO
    assert [row["quality"] for row in gateway.ledger_rows(user, 2)] == ["measured"] * 2


def test_a_response_to_a_picture(gateway: RunningGateway, sdk: Client) -> None:
    user, key = gateway.new_user("lite")
    part: Any = {"type": "input_image", "image_url": PICTURE, "detail": "low"}
    message: Any = {"role": "user", "content": [{"type": "input_text", "text": "What?"}, part]}
    answer = sdk(key).responses.create(model=MODEL, input=[message])
    assert answer.output_text == HELLO
    assert row_of(gateway, user)["held_tokens"] < 10_000, "its bytes are no text"


# --- /v1/chat/completions ------------------------------------------------------------------------


def test_a_chat_with_several_choices_tools_and_a_picture(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user("lite")
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
    content: Any = [
        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
        {"type": "text", "text": "@stand-in calls=2"},
    ]
    answer = sdk(key).chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": content}], tools=[tool], n=2
    )
    assert [len(choice.message.tool_calls or ()) for choice in answer.choices] == [2, 2]
    assert answer.usage is not None
    assert row_of(gateway, user)["charged_tokens"] == answer.usage.total_tokens


def test_a_chat_in_a_form_that_was_asked_for(gateway: RunningGateway, sdk: Client) -> None:
    user, key = gateway.new_user()
    answer = sdk(key).chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "Weather?"}], response_format=Weather
    )
    assert isinstance(answer.choices[0].message.parsed, Weather)
    assert row_of(gateway, user)["route"] == "chat"


def test_cached_thought_and_predicted_tokens_are_booked(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user("lite")
    text = "word " * 100
    sdk(key).chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": f"{text}\n@stand-in cached=64 think=30"}],
    )
    sdk(key).chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "@stand-in predicted=5/7"}],
        prediction={"type": "content", "content": "Hello! Your words arrived"},
    )
    thought, predicted = gateway.ledger_rows(user, 2)
    assert (thought["cached_tokens"], thought["reasoning_tokens"]) == (64, 30)
    assert thought["output_tokens"] == 42
    assert predicted["overdraft_tokens"] == 0
    assert predicted["held_tokens"] > 16_384, "a prediction allows no cap"
    assert "max_completion_tokens" not in gateway.stand_in.last()["body"]


def test_a_chat_that_is_spoken(gateway: RunningGateway, sdk: Client) -> None:
    user, key = gateway.new_user("full")
    sound: Any = {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(b"RIFF" * 500).decode(), "format": "wav"},
    }
    answer = sdk(key).chat.completions.create(
        model=AUDIO,
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        messages=[{"role": "user", "content": [sound]}],
    )
    assert answer.choices[0].message.audio is not None
    assert row_of(gateway, user)["model"] == AUDIO


# --- /v1/completions, /v1/embeddings, /v1/moderations --------------------------------------------


def test_a_completion_is_capped_at_sixteen_unless_it_says_more(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    answer = sdk(key).completions.create(model=MODEL, prompt="@stand-in write=500")
    assert answer.choices[0].finish_reason == "length"
    row = row_of(gateway, user)
    assert (row["route"], row["output_tokens"]) == ("completions", 16)
    assert gateway.stand_in.last()["body"]["max_tokens"] == 16


def test_a_streamed_completion_of_several_prompts(gateway: RunningGateway, sdk: Client) -> None:
    user, key = gateway.new_user()
    chunks = list(
        sdk(key).completions.create(
            model=MODEL, prompt=["Hello", "again"], n=2, max_tokens=40, stream=True
        )
    )
    texts = dict.fromkeys(range(4), "")
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert set(texts.values()) == {HELLO}
    assert all(chunk.usage is None for chunk in chunks)
    assert row_of(gateway, user)["output_tokens"] == 48


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_cost_their_prompt(gateway: RunningGateway, sdk: Client, encoding: Any) -> None:
    user, key = gateway.new_user()
    answer = sdk(key).embeddings.create(
        model=EMBEDDING, input=["Hello", "world"], encoding_format=encoding, dimensions=64
    )
    assert len(answer.data) == 2
    row = row_of(gateway, user)
    assert (row["prompt_tokens"], row["output_tokens"]) == (answer.usage.prompt_tokens, 0)
    assert row["charged_tokens"] == answer.usage.total_tokens == row["held_tokens"]


def test_moderations_are_free(gateway: RunningGateway, sdk: Client) -> None:
    user, key = gateway.new_user("free", 100_000)
    answer = sdk(key).moderations.create(model=MODERATION, input=["Hello", "world"])
    assert len(answer.results) == 2
    assert sdk(key).moderations.create(input="Hello").results[0].flagged is False
    gateway.ledger_rows(user, 1)  # the adjustment that used the month up, and nothing more
    assert gateway.shown(user)["used_tokens"] == 100_000


async def test_the_async_client_streams_them_alike(gateway: RunningGateway) -> None:
    user, key = gateway.new_user()
    async with openai.AsyncOpenAI(base_url=f"{gateway.proxy}/v1", api_key=key) as client:
        events = [
            event
            async for event in await client.responses.create(
                model=MODEL, input="Hello", stream=True
            )
        ]
        chunks: list[ChatCompletionChunk] = [
            chunk
            async for chunk in await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Hello"}], stream=True
            )
        ]
    assert events[-1].type == "response.completed"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == HELLO
    assert {row["route"] for row in gateway.ledger_rows(user, 2)} == {"responses", "chat"}


def test_a_refusal_is_raised_on_every_route(gateway: RunningGateway, sdk: Client) -> None:
    _, key = gateway.new_user("free", 100_000)
    client = sdk(key)
    calls: list[Callable[[], object]] = [
        lambda: client.responses.create(model=MODEL, input="Hello"),
        lambda: client.responses.create(model=MODEL, input="Hello", stream=True),
        lambda: client.completions.create(model=MODEL, prompt="Hello"),
        lambda: client.embeddings.create(model=EMBEDDING, input="Hello"),
    ]
    for call in calls:
        with pytest.raises(openai.RateLimitError) as caught:
            call()
        assert caught.value.code == "insufficient_quota"
