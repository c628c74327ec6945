"""Completions, embeddings and a chat's prediction go through the same flow as a plain chat."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.core.models import Model, ModelTable, Weights
from gateway.core.refusal import Case, Refused
from gateway.core.routes import CHAT, COMPLETIONS, EMBEDDINGS, Route
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import DONE, completion
from tests.fakes.flow_rig import MODEL, TERMS, FlowRig, flow_rig, until
from tests.fakes.upstream import ScriptedAnswer, stream

EMBED = {"model": "embed", "input": ["Once", "upon a"]}  # ten tokens
WROTE = {"prompt_tokens": 4, "completion_tokens": 9, "total_tokens": 13}


@pytest.fixture
async def rig() -> AsyncIterator[FlowRig]:
    embed = Model("embed", "openai", "chars", 8191, 0, 0, 0, Weights())
    async with flow_rig(models=ModelTable([*TERMS.models, embed])) as opened:
        yield opened


async def answered(
    rig: FlowRig, route: Route, asked: dict[str, Any], source: ScriptedAnswer
) -> RecordedAnswer:
    key = await rig.user(tier="lite")
    rig.will_answer(source)
    answer = RecordedAnswer(rig.store.journal)
    await rig.exchange.run(rig.call_to(route, key, asked), answer)
    return answer


def embeddings(**fields: Any) -> bytes:
    data = [{"object": "embedding", "index": 0, "embedding": "zczMPQ=="}]
    return json.dumps({"object": "list", "data": data, "model": "embed", **fields}).encode()


def written(text: str, counts: Any = None, **fields: Any) -> dict[str, Any]:
    choices = [{"index": 0, "text": text, "logprobs": None, "finish_reason": None}]
    head = {"id": "cmpl-1", "object": "text_completion", "model": MODEL}
    return {**head, "choices": choices, "usage": counts, **fields}


def event(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


# --- embeddings --------------------------------------------------------------------------------


async def test_an_embedding_holds_and_pays_its_prompt_alone(rig: FlowRig) -> None:
    body = embeddings(usage={"prompt_tokens": 8, "total_tokens": 8})
    answer = await answered(rig, EMBEDDINGS, EMBED, ScriptedAnswer([body]))
    assert answer.body == body
    assert answer.head is not None
    assert answer.head.charged_tokens == answer.head.quota.used_tokens == 8
    assert answer.head.quota.held_tokens == 0
    assert answer.head.output_cap_tokens is None
    (row,) = await rig.rows()
    assert (row.held_tokens, row.charged_tokens) == (10, 8)
    assert (row.event.route, row.event.model, row.event.stream) == ("embeddings", "embed", False)
    assert (row.event.quality, row.event.outcome) == ("measured", "done")
    assert (row.event.prompt_tokens, row.event.output_tokens) == (8, 0)
    (call,) = rig.upstream.calls
    assert (call.path, json.loads(call.body)) == ("/embeddings", EMBED)


async def test_an_embedding_without_usage_pays_what_was_counted(rig: FlowRig) -> None:
    await answered(rig, EMBEDDINGS, EMBED, ScriptedAnswer([embeddings()]))
    (row,) = await rig.rows()
    assert (row.charged_tokens, row.event.quality) == (10, "estimated")


async def test_an_embedding_that_does_not_fit_is_refused_before_it_goes_out(rig: FlowRig) -> None:
    key = await rig.user(tier="lite")
    await rig.accounts.set_used("ada", 9_991, "test", "tester")
    with pytest.raises(Refused) as caught:
        await rig.exchange.run(rig.call_to(EMBEDDINGS, key, EMBED), RecordedAnswer())
    assert caught.value.case is Case.MONTH_USED_UP
    await rig.accounts.set_used("ada", 9_990, "test", "tester")
    rig.will_answer(ScriptedAnswer([embeddings(usage={"prompt_tokens": 10})]))
    await rig.exchange.run(rig.call_to(EMBEDDINGS, key, EMBED), RecordedAnswer())


async def test_an_embedding_whose_gateway_dies_costs_nothing(rig: FlowRig) -> None:
    key = await rig.user(tier="lite")
    await rig.admission.admit(rig.call_to(EMBEDDINGS, key, EMBED))
    assert (await rig.account()).held_tokens == 10
    await rig.expire()
    (row,) = await rig.rows()
    assert (row.charged_tokens, row.held_tokens) == (0, 10)
    assert row.event.outcome == "unknown_upstream"
    assert (await rig.account()).held_tokens == 0


@pytest.mark.parametrize(
    ("route", "asked"),
    [
        (CHAT, {"model": "embed", "messages": [{"role": "user", "content": "Hi"}]}),
        (COMPLETIONS, {"model": "embed", "prompt": "Once"}),
    ],
)
async def test_a_model_that_writes_nothing_is_no_chat(
    rig: FlowRig, route: Route, asked: dict[str, Any]
) -> None:
    with pytest.raises(Refused) as caught:
        await answered(rig, route, asked, ScriptedAnswer([]))
    assert (caught.value.case, caught.value.param) == (Case.INVALID_VALUE, "model")
    assert (rig.upstream.calls, rig.store.asks) == ([], [])


# --- completions -------------------------------------------------------------------------------


async def test_a_completion_holds_sixteen_tokens_an_answer_unless_it_names_more(
    rig: FlowRig,
) -> None:
    asked = {"model": MODEL, "prompt": ["Once", "upon"], "best_of": 3}
    body = json.dumps(written(" upon a time", WROTE)).encode()
    answer = await answered(rig, COMPLETIONS, asked, ScriptedAnswer([body]))
    assert answer.body == body
    (row,) = await rig.rows()
    assert (row.held_tokens, row.charged_tokens) == (8 + 16 * 2 * 3, 13)
    assert (row.event.route, row.event.quality) == ("completions", "measured")
    (call,) = rig.upstream.calls
    assert call.path == "/completions"
    assert json.loads(call.body) == {**asked, "max_tokens": 16}


async def test_a_stream_of_a_completion_is_relayed_and_its_usage_hidden(rig: FlowRig) -> None:
    pieces = [event(written(" upon")), event(written(" a time"))]
    usage = event(written("", WROTE, choices=[]))
    asked = {"model": MODEL, "prompt": "Once", "stream": True}
    answer = await answered(rig, COMPLETIONS, asked, stream(*pieces, usage, DONE))
    assert answer.body == b"".join((*pieces, DONE))
    (row,) = await rig.rows()
    assert (row.charged_tokens, row.event.quality, row.event.stream) == (13, "measured", True)
    assert json.loads(rig.upstream.calls[0].body)["stream_options"] == {"include_usage": True}


async def test_a_stream_without_usage_pays_for_the_text_that_came(rig: FlowRig) -> None:
    pieces = [event(written(" upon")), event(written(" a time"))]
    asked = {"model": MODEL, "prompt": "Once", "stream": True}
    await answered(rig, COMPLETIONS, asked, stream(*pieces, DONE))
    (row,) = await rig.rows()
    assert (row.charged_tokens, row.event.quality) == (4 + 12, "estimated")


async def test_a_stream_that_outlives_its_hold_ends_as_a_completion_does(rig: FlowRig) -> None:
    key, go_on = await rig.user(), asyncio.Event()
    source = stream(event(written(" upon")), go_on, event(written(" a time")))
    rig.will_answer(source)
    asked = {"model": MODEL, "prompt": ["Once", "upon"], "stream": True}
    answer = RecordedAnswer()
    call = rig.call_to(COMPLETIONS, key, asked)
    running = asyncio.ensure_future(rig.exchange.run(call, answer))
    await until(lambda: source.given == 2)
    rig.clock.pass_s(rig.terms.stream_max_s + 1)
    await rig.open_holds.beat()
    go_on.set()
    await running
    last, done, _ = answer.written[-1].split(b"\n\n")
    chunk = json.loads(last.removeprefix(b"data: "))
    assert (chunk["object"], chunk["id"], done) == ("text_completion", "cmpl-1", b"data: [DONE]")
    assert [choice["finish_reason"] for choice in chunk["choices"]] == ["length"] * 2


# --- a prediction ------------------------------------------------------------------------------


async def test_a_prediction_holds_all_that_the_model_can_write(rig: FlowRig) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    plain = rig.call_to(CHAT, await rig.user("other"), asked).request.count_prompt(
        rig.terms.models[MODEL], len
    )
    asked["prediction"] = {"type": "content", "content": "abcde"}
    counts = {
        "prompt_tokens": 20,
        "completion_tokens": 30,
        "completion_tokens_details": {"rejected_prediction_tokens": 5},
    }
    await answered(rig, CHAT, asked, ScriptedAnswer([completion("Hello", counts)]))
    (row,) = await rig.rows()
    assert (row.held_tokens, row.charged_tokens) == (plain + 5 + 400, 50)
    sent = json.loads(rig.upstream.calls[0].body)
    assert not [name for name in sent if name.startswith("max_")]


async def test_a_prediction_s_hold_is_not_lowered(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.accounts.set_used("ada", 600, "test", "tester")
    messages = [{"role": "user", "content": "Hi"}]
    asked = {"model": MODEL, "messages": messages, "prediction": {"content": "abcde"}}
    with pytest.raises(Refused) as caught:
        await rig.exchange.run(rig.call_to(CHAT, key, asked), RecordedAnswer())
    assert caught.value.case is Case.MONTH_USED_UP
