"""A response is held, relayed and charged as a chat is, however it ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from openai.types.responses import ResponseErrorEvent, ResponseIncompleteEvent

from gateway.core.event import LedgerRow
from gateway.core.routes import RESPONSES
from gateway.ports.upstream import UpstreamBroke
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import DONE
from tests.fakes.flow_rig import FlowRig, until
from tests.fakes.responses_stream import counts, delta, event, last, message, said, whole
from tests.fakes.upstream import Piece, ScriptedAnswer, stream

HELLO = said("Hello", " world")
SPOKEN = "Hello world"


async def answered(
    rig: FlowRig, source: ScriptedAnswer, gone_at: int | None = None, **body: Any
) -> tuple[RecordedAnswer, LedgerRow]:
    """Run one call to its end; what the client got, and the one row it left."""
    answer = RecordedAnswer(rig.store.journal, gone_at)
    rig.will_answer(source)
    await rig.exchange.run(rig.call(await rig.user(), RESPONSES, **body), answer)
    (row,) = await rig.rows()
    account = await rig.account()
    assert (account.held_tokens, account.open_holds) == (0, 0)
    assert account.settled_tokens == row.charged_tokens > 0
    return answer, row


async def streamed(
    rig: FlowRig, *pieces: Piece, gone_at: int | None = None
) -> tuple[RecordedAnswer, LedgerRow]:
    return await answered(rig, stream(*pieces), gone_at, stream=True)


def prompt_of(row: LedgerRow) -> int:
    """The prompt as it was counted for the hold: a call here wants 100 tokens of output."""
    return row.held_tokens - 100


def facts(row: LedgerRow) -> tuple[int, str, str]:
    return row.charged_tokens, row.event.quality, row.event.outcome


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
async def test_a_whole_response_is_charged_as_it_says(rig: FlowRig, status: str) -> None:
    body = whole(status, service_tier="flex")
    answer, row = await answered(rig, ScriptedAnswer([body[:9], body[9:]]))
    assert answer.body == body
    assert facts(row) == (50, "measured", "done")
    assert (row.event.prompt_tokens, row.event.cached_tokens) == (20, 4)
    assert (row.event.output_tokens, row.event.reasoning_tokens) == (30, 6)
    assert (row.event.service_tier, row.event.route) == ("flex", "responses")
    assert answer.head is not None
    assert answer.head.charged_tokens == 50


async def test_a_whole_response_without_usage_is_counted(rig: FlowRig) -> None:
    _, row = await answered(rig, ScriptedAnswer([whole(usage=None)]))
    assert facts(row) == (prompt_of(row) + len("Hello"), "estimated", "done")


async def test_what_is_sent_holds_the_cap_and_stores_nothing(rig: FlowRig) -> None:
    await answered(rig, ScriptedAnswer([whole()]), max_output_tokens=40, store=True)
    (call,) = rig.upstream.calls
    assert call.path == "/responses"
    sent = json.loads(call.body)
    assert (sent["max_output_tokens"], sent["store"], sent["input"]) == (40, False, "Hi")


async def test_a_cap_that_does_not_fit_is_lowered(rig: FlowRig) -> None:
    answer, row = await answered(
        rig, ScriptedAnswer([whole()]), input="x" * 700, max_output_tokens=400
    )
    sent = json.loads(rig.upstream.calls[0].body)
    assert answer.head is not None
    assert answer.head.output_cap_tokens == sent["max_output_tokens"] < 400
    assert row.held_tokens == 1000


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("completed", "done"), ("incomplete", "done"), ("failed", "upstream_error")],
)
async def test_a_streamed_response_is_charged_by_its_last_event(
    rig: FlowRig, status: str, outcome: str
) -> None:
    end = last(status, output=[message(SPOKEN)])
    answer, row = await streamed(rig, *HELLO, end)
    assert answer.body == b"".join((*HELLO, end))
    assert answer.ended
    assert facts(row) == (50, "measured", outcome)
    assert row.event.service_tier == "default"
    assert rig.store.journal[-3:] == ["settle", "write", "end"]


async def test_what_comes_after_the_end_is_relayed_and_costs_nothing(rig: FlowRig) -> None:
    more = event("response.rate_limits.updated", rate_limits=[])
    answer, row = await streamed(rig, *HELLO, last(), more, DONE)
    assert answer.body.endswith(more + DONE)
    assert row.charged_tokens == 50


@pytest.mark.parametrize("usage", [None, {}, counts(20, 0), counts(0, 30), counts("20", 30)])
async def test_a_stream_without_believable_usage_is_counted_once(rig: FlowRig, usage: Any) -> None:
    _, row = await streamed(rig, *HELLO, last(usage=usage, output=[message(SPOKEN)]))
    assert facts(row) == (prompt_of(row) + len(SPOKEN), "estimated", "done")


async def test_a_stream_that_tells_its_text_at_the_end_only_is_counted(rig: FlowRig) -> None:
    _, row = await streamed(rig, last(usage=None, output=[message(SPOKEN)]))
    assert facts(row) == (prompt_of(row) + len(SPOKEN), "estimated", "done")


async def test_an_error_and_the_failure_after_it_are_relayed_and_the_text_is_charged(
    rig: FlowRig,
) -> None:
    error = event("error", 9, error={"type": "server_error", "message": "No."})
    failed = last("failed", 10, usage=None)
    answer, row = await streamed(rig, *HELLO, error, failed)
    assert answer.body == b"".join((*HELLO, error, failed))
    assert facts(row) == (prompt_of(row) + len(SPOKEN), "partial", "upstream_error")


@pytest.mark.parametrize("gone_at", range(len(HELLO) + 1))
async def test_a_client_that_leaves_is_charged_what_upstream_reports(
    rig: FlowRig, gone_at: int
) -> None:
    answer, row = await streamed(rig, *HELLO, last(), gone_at=gone_at)
    assert facts(row) == (50, "measured", "client_gone")
    assert not answer.ended


async def test_a_client_that_leaves_a_stream_without_usage_is_charged_what_it_got(
    rig: FlowRig,
) -> None:
    _, row = await streamed(rig, *HELLO, gone_at=5)  # the head, four events, then the first text
    assert facts(row) == (prompt_of(row) + len("Hello"), "partial", "client_gone")


async def test_an_upstream_that_breaks_off_is_told_as_an_error_of_openai_s(rig: FlowRig) -> None:
    answer, row = await streamed(rig, *HELLO[:5], UpstreamBroke("cut"))
    told = data_of(answer.written[-1])
    ResponseErrorEvent.model_validate(told)
    assert told["error"]["code"] == "upstream_unavailable"
    assert told["sequence_number"] == 5
    assert facts(row) == (prompt_of(row) + len("Hello"), "partial", "upstream_error")


async def test_a_hold_that_is_over_ends_its_stream_as_a_response_at_its_cap(rig: FlowRig) -> None:
    key, go_on = await rig.user(), asyncio.Event()
    source = stream(*HELLO[:5], go_on, delta(" big", 5) + HELLO[6][:20], delta("never"))
    rig.will_answer(source)
    answer = RecordedAnswer(rig.store.journal)
    running = asyncio.ensure_future(rig.exchange.run(rig.call(key, RESPONSES, stream=True), answer))
    await until(lambda: source.given == 6)
    rig.clock.pass_s(rig.terms.stream_max_s + 1)
    await rig.open_holds.beat()
    go_on.set()
    await running
    relayed = b"".join(HELLO[:5]) + delta(" big", 5)
    assert answer.body.startswith(relayed)
    closing = ResponseIncompleteEvent.model_validate(data_of(answer.body.removeprefix(relayed)))
    assert (closing.sequence_number, closing.response.id) == (6, "resp_1")
    assert closing.response.model == "gpt-4o-mini"
    (row,) = await rig.rows()
    assert facts(row) == (prompt_of(row) + len("Hello big"), "estimated", "done")
    assert rig.store.journal[-3:] == ["settle", "write", "end"]


def data_of(raw: bytes) -> dict[str, Any]:
    """The data of one event with a name."""
    name, data = raw.removesuffix(b"\n\n").split(b"\n")
    document: dict[str, Any] = json.loads(data.removeprefix(b"data: "))
    assert name == b"event: " + document["type"].encode()
    return document
