"""POST /v1/responses: the object, the events one by one, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent

from tests.unit.standin.standin_client import Client, count_words
from tests.unit.standin.strict_shapes import strictly

GREETING = "Hello! Your words arrived, and here is an answer."
ADD = {
    "type": "function",
    "name": "add",
    "description": "Adds two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "note": {"type": "string"}},
        "required": ["a", "note"],
        "additionalProperties": False,
    },
    "strict": True,
}


def asking(given: Any = "hi", **parameters: Any) -> dict[str, Any]:
    return {"model": "gpt-6-luna", "input": given, **parameters}


async def events(client: Client, sent: dict[str, Any], **headers: str) -> list[dict[str, Any]]:
    """The events of a stream: each named, counted and of the shape that the client knows."""
    *told, rest = (await client.stream("responses", sent, **headers)).split("\n\n")
    assert rest == ""
    read = []
    for number, event in enumerate(told):
        name, data = event.split("\n")
        read.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {read[-1]['type']}"
        assert read[-1]["sequence_number"] == number
        if "error" not in read[-1] and "rate_limits" not in read[-1]:
            strictly(ResponseStreamEvent, read[-1], beyond=("store", "obfuscation"))
    return read


def kinds(told: list[dict[str, Any]]) -> list[str]:
    """Their types in order, runs of the same one shown once, without the word they share."""
    shown: list[str] = []
    for event in told:
        if not shown or shown[-1] != event["type"].removeprefix("response."):
            shown.append(event["type"].removeprefix("response."))
    return shown


def usage(prompt: int, output: int, reasoning: int = 0) -> dict[str, Any]:
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + output,
    }


async def test_a_response_has_openais_shape(client: Client) -> None:
    answer = await client.answer("responses", asking(store=False, metadata={"a": "b"}))
    response = strictly(Response, answer, beyond=("store",))
    assert response.id.startswith("resp_")
    assert response.output_text == GREETING
    assert (response.status, response.service_tier) == ("completed", "default")
    assert (answer["store"], answer["metadata"]) == (False, {"a": "b"})
    assert answer["usage"] == usage(3 + 3 + 1 + 1, 12)


async def test_a_stream_has_openais_events(client: Client) -> None:
    told = await events(client, asking("hi\n@stand-in write=6"))
    assert [event["type"].removeprefix("response.") for event in told] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["delta"] for event in told[4:6]] == ["Hello! Your words", " arrived,"]
    assert told[6]["text"] == "Hello! Your words arrived,"
    assert told[0]["response"]["usage"] is None
    response = told[-1]["response"]
    assert response["usage"]["output_tokens"] == 6
    assert response["output"] == [told[8]["item"]]
    assert len({event["item_id"] for event in told[3:8]}) == 1


async def test_the_cap_makes_a_response_incomplete(client: Client) -> None:
    asked = asking("hi\n@stand-in write=50", max_output_tokens=20)
    answer = await client.answer("responses", asked)
    told = await events(client, asked)
    assert kinds(told)[-1] == "incomplete"
    for response in (answer, told[-1]["response"]):
        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["usage"]["output_tokens"] == response["max_output_tokens"] == 20
        [message] = response["output"]
        assert message["status"] == "incomplete"
        assert count_words(message["content"][0]["text"]) == 20


async def test_thoughts_come_first_and_are_counted(client: Client) -> None:
    asked = asking("hi\n@stand-in think=30 write=5")
    answer = await client.answer("responses", asked)
    assert [item["type"] for item in answer["output"]] == ["reasoning", "message"]
    assert answer["output"][0]["summary"] == []
    assert answer["usage"]["output_tokens"] == 35
    assert answer["usage"]["output_tokens_details"] == {"reasoning_tokens": 30}
    told = await events(client, asked)
    assert kinds(told)[:5] == [
        *("created", "in_progress", "output_item.added", "output_item.done", "output_item.added"),
    ]
    assert told[-1]["response"]["usage"] == answer["usage"]


async def test_thoughts_are_summed_up_and_sealed_when_that_is_asked_for(client: Client) -> None:
    asked = asking(
        "hi\n@stand-in think=30",
        reasoning={"effort": "low", "summary": "auto"},
        include=["reasoning.encrypted_content"],
    )
    told = await events(client, asked)
    assert kinds(told)[3:8] == [
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    answer = await client.answer("responses", asked)
    thoughts = answer["output"][0]
    assert thoughts["summary"] == [{"type": "summary_text", "text": GREETING}]
    assert thoughts["encrypted_content"]
    again = [{"role": "user", "content": "hi"}, thoughts, {"role": "user", "content": "on"}]
    assert (await client.answer("responses", asking(again)))["status"] == "completed"


async def test_thoughts_can_eat_the_whole_cap(client: Client) -> None:
    asked = asking("hi\n@stand-in think=100", max_output_tokens=16)
    answer = await client.answer("responses", asked)
    assert answer["status"] == "incomplete"
    assert answer["usage"] == usage(answer["usage"]["input_tokens"], 16, 16)
    assert kinds(await events(client, asked))[-4:] == [
        *("output_text.done", "content_part.done", "output_item.done", "incomplete"),
    ]


async def test_functions_are_called(client: Client) -> None:
    asked = asking("hi\n@stand-in calls=2 write=3", tools=[ADD])
    answer = await client.answer("responses", asked)
    strictly(Response, answer, beyond=("store",))
    assert [item["type"] for item in answer["output"]] == ["function_call"] * 2
    assert len({item["call_id"] for item in answer["output"]}) == 2
    arguments = {"a": 1, "note": "Hello! Your"}
    assert [json.loads(item["arguments"]) for item in answer["output"]] == [arguments] * 2
    written = sum(count_words("add" + " " + item["arguments"]) for item in answer["output"])
    assert answer["usage"]["output_tokens"] == written
    told = await events(client, asked)
    of_one = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert kinds(told) == ["created", "in_progress", *of_one, *of_one, "completed"]
    deltas = [event["delta"] for event in told if "delta" in event and event["output_index"] == 1]
    assert json.loads("".join(deltas)) == arguments


async def test_a_call_is_cut_at_the_cap(client: Client) -> None:
    asked = asking("hi\n@stand-in calls=3 write=30", tools=[ADD], max_output_tokens=60)
    answer = await client.answer("responses", asked)
    assert answer["status"] == "incomplete"
    assert [item["status"] for item in answer["output"]] == ["completed", "incomplete"]
    assert 55 <= answer["usage"]["output_tokens"] <= 60


async def test_a_call_and_its_output_may_be_handed_back(client: Client) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "3\n@stand-in write=2"}
    asked = [{"role": "user", "content": "add"}, call, output]
    answer = await client.answer("responses", asking(asked, tools=[ADD]))
    assert answer["usage"]["output_tokens"] == 2
    status, error = await client.refusal("responses", asking([output]))
    assert (status, error["param"]) == (400, "input")
    assert "No tool call found" in error["message"]


async def test_a_forced_call_needs_no_directive(client: Client) -> None:
    for choice in ("required", {"type": "function", "name": "add"}):
        answer = await client.answer("responses", asking(tools=[ADD], tool_choice=choice))
        assert [item["type"] for item in answer["output"]] == ["function_call"]


async def test_text_may_have_to_satisfy_a_schema(client: Client) -> None:
    text_format = {"type": "json_schema", "name": "sum", "schema": ADD["parameters"]}
    answer = await client.answer("responses", asking(text={"format": text_format}))
    response = strictly(Response, answer, beyond=("store",))
    assert json.loads(response.output_text) == {"a": 1, "note": GREETING}


async def test_a_refusal_is_told_as_one(client: Client) -> None:
    asked = asking("hi\n@stand-in refuse")
    answer = await client.answer("responses", asked)
    assert answer["output"][0]["content"] == [{"type": "refusal", "refusal": GREETING}]
    told = await events(client, asked)
    assert kinds(told)[4:6] == ["refusal.delta", "refusal.done"]


async def test_instructions_and_items_are_counted(client: Client) -> None:
    parts = [
        {"type": "input_text", "text": "one two"},
        {"type": "input_image", "image_url": "data:,", "detail": "low"},
    ]
    items = [{"type": "message", "role": "user", "content": parts}]
    answer = await client.answer("responses", asking(items, instructions="be brief"))
    assert answer["usage"]["input_tokens"] == 3 + (3 + 1 + 2) + (3 + 1 + 2 + 85)
    assert answer["instructions"] == "be brief"


async def test_a_stream_can_fail(client: Client) -> None:
    told = await events(client, asking("hi\n@stand-in fail_after=1"), x_client_request_id="f")
    assert kinds(told)[-2:] == ["output_text.delta", "failed"]
    response = told[-1]["response"]
    assert (response["status"], response["usage"]) == ("failed", None)
    assert response["error"]["code"] == "server_error"
    call = await client.ended("f")
    assert (call["completion_tokens"], call["finished"]) == (4, False)


async def test_a_stream_can_break_off_with_an_error_event(client: Client) -> None:
    told = await events(client, asking("hi\n@stand-in error_after=2"))
    assert kinds(told)[-3:] == ["output_text.delta", "error", "failed"]
    assert told[-2]["error"]["type"] == "server_error"


async def test_an_event_may_follow_the_last_one(client: Client) -> None:
    told = await events(client, asking("hi\n@stand-in postscript"))
    assert kinds(told)[-2:] == ["completed", "rate_limits.updated"]


async def test_deltas_are_padded_when_that_is_asked_for(client: Client) -> None:
    options = {"include_obfuscation": True}
    told = await events(client, asking("hi\n@stand-in write=8", stream_options=options))
    padded = [len(event["delta"]) + len(event["obfuscation"]) for event in told if "delta" in event]
    assert padded == [32, 32]


@pytest.mark.parametrize(
    ("order", "total"), [("500/70/100/60", 570), ("zero", 0), ("none", None), ("text", "22")]
)
async def test_usage_can_be_dictated_or_left_out(client: Client, order: str, total: object) -> None:
    asked = asking(f"@stand-in write=5 usage={order}")
    answer = await client.answer("responses", asked)
    *_, last, _ = (await client.stream("responses", asked)).split("\n\n")
    in_stream = json.loads(last.partition("data: ")[2])["response"]
    for response in (answer, in_stream):
        assert (response["usage"] or {}).get("total_tokens") == total


async def test_cached_tokens_are_part_of_the_prompt(client: Client) -> None:
    answer = await client.answer("responses", asking("hi\n@stand-in cached=9 cache_write=99"))
    prompt = answer["usage"]["input_tokens"]
    written = prompt - 9
    assert answer["usage"]["input_tokens_details"] == {
        "cached_tokens": 9,
        "cache_write_tokens": written,
    }


async def test_a_whole_response_can_be_cut_in_half(client: Client) -> None:
    asked = asking("hi\n@stand-in write=100 think=7 cut_after=0", reasoning={"summary": "auto"})
    received = await client.wire(asked, "cut", "/v1/responses")
    assert count_words(received.rpartition(b'"text":"')[2].decode()) == 50
    call = await client.ended("cut")
    assert (call["completion_tokens"], call["finished"]) == (57, False)


async def test_an_endless_response_ends_when_the_client_leaves(client: Client) -> None:
    sent = asking("hi\n@stand-in never_ends", stream=True, max_output_tokens=16)
    async with client.post_to("responses", sent, x_client_request_id="endless") as response:
        await response.content.readuntil(b" answer.")
        response.close()
    call = await client.ended("endless")
    assert (call["finished"], call["completion_tokens"] >= 12) == (False, True)


@pytest.mark.parametrize(
    ("sent", "status", "param", "code"),
    [
        ({"model": "m"}, 400, "input", "missing_required_parameter"),
        (asking([]), 400, "input", "empty_array"),
        (asking(5), 400, "input", "invalid_type"),
        (asking(["hi"]), 400, "input[0]", "invalid_type"),
        (asking([{"role": "boss", "content": "x"}]), 400, "input[0].role", "invalid_value"),
        (asking([{"type": "wish"}]), 400, "input[0].type", "invalid_value"),
        (asking([{"id": "msg_1"}]), 404, "input", None),
        (asking(max_output_tokens=15), 400, "max_output_tokens", "integer_below_min_value"),
        (asking(max_tokens=5), 400, "max_tokens", "unknown_parameter"),
        (asking(messages=[]), 400, "messages", "unknown_parameter"),
        (
            asking(stream=True, stream_options={"include_usage": True}),
            400,
            "stream_options.include_usage",
            "unknown_parameter",
        ),
        (
            asking(previous_response_id="resp_1"),
            400,
            "previous_response_id",
            "previous_response_not_found",
        ),
        (asking(conversation="conv_1"), 404, None, None),
        (asking(prompt={"id": "pmpt_1"}), 404, None, None),
        (asking(background=True), 400, "background", None),
        (asking(metadata={"a": 1}), 400, "metadata.a", "invalid_type"),
        (asking("@stand-in calls=1"), 400, "input", "stand_in_directive"),
        (asking("@stand-in fail_after=1"), 400, "input", "stand_in_directive"),
        (asking("@stand-in predicted=1/1"), 400, "input", "stand_in_directive"),
    ],
)
async def test_a_bad_request_is_refused(
    client: Client, sent: object, status: int, param: str | None, code: str | None
) -> None:
    found, error = await client.refusal("responses", sent)
    assert (found, error["param"], error["code"]) == (status, param, code), error
