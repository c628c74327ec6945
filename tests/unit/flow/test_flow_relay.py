"""A stream is relayed as it is, and ends its hold once, whoever breaks off and when."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.core import sse
from gateway.core.event import LedgerRow
from gateway.ports.upstream import UpstreamBroke, UpstreamCutOff, UpstreamSilent
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import DONE, event, finish, text, usage
from tests.fakes.flow_rig import FlowRig, flow_rig, until
from tests.fakes.upstream import Piece, ScriptedAnswer, stream

HELLO = (text("Hello"), text(" world"), finish())
WHOLE = (*HELLO, usage(20, 30), DONE)
ASKED: dict[str, Any] = {"stream_options": {"include_usage": True}}


async def relayed(
    rig: FlowRig, *pieces: Piece, gone_at: int | None = None, **body: Any
) -> tuple[RecordedAnswer, LedgerRow]:
    """Run one streaming call to its end; what the client got, and the one row it left."""
    key = await rig.user()
    answer = RecordedAnswer(rig.store.journal, gone_at)
    rig.will_answer(stream(*pieces))
    await rig.exchange.run(rig.call(key, stream=True, **body), answer)
    (row,) = await rig.rows()
    account = await rig.account()
    assert [each.kind for each in rig.store.sent] == ["settle"]
    assert (account.held_tokens, account.open_holds) == (0, 0)
    assert account.settled_tokens == row.charged_tokens > 0
    assert len(rig.open_holds) == 0
    return answer, row


def prompt_of(row: LedgerRow) -> int:
    """The prompt as it was counted for the hold: a call here wants 100 tokens of output."""
    return row.held_tokens - 100


def facts(row: LedgerRow) -> tuple[int, str, str]:
    return row.charged_tokens, row.event.quality, row.event.outcome


async def test_the_client_gets_every_byte_but_the_usage_it_did_not_ask_for(rig: FlowRig) -> None:
    answer, row = await relayed(rig, *WHOLE)
    assert answer.body == b"".join((*HELLO, DONE))
    assert answer.ended
    assert facts(row) == (50, "measured", "done")
    assert (row.event.prompt_tokens, row.event.output_tokens) == (20, 30)
    assert (row.event.status, row.event.upstream_id, row.event.stream) == (200, "req_up", True)


async def test_a_client_that_asked_for_usage_sees_it(rig: FlowRig) -> None:
    answer, _ = await relayed(rig, *WHOLE, **ASKED)
    assert answer.body == b"".join(WHOLE)


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10_000])
async def test_where_the_network_cuts_makes_no_difference(rig: FlowRig, size: int) -> None:
    events = (b": hello\r\n\r\n", *HELLO, b"event: x\rdata: {\r\r", usage(20, 30), DONE)
    raw = b"".join(events)
    cut = [raw[place : place + size] for place in range(0, len(raw), size)]
    answer, row = await relayed(rig, *cut)
    assert answer.body == raw.replace(usage(20, 30), b"")
    assert row.charged_tokens == 50


async def test_the_settlement_leaves_before_the_last_bytes_do(rig: FlowRig) -> None:
    await relayed(rig, *WHOLE)
    assert rig.store.journal == ["begin", "write", "write", "write", "settle", "write", "end"]


async def test_without_a_done_the_settlement_leaves_before_the_end_does(rig: FlowRig) -> None:
    answer, _ = await relayed(rig, *HELLO, usage(20, 30), text("!").rstrip(b"\n"))
    assert rig.store.journal == ["begin", "write", "write", "write", "settle", "write", "end"]
    assert answer.body.endswith(text("!").rstrip(b"\n"))


async def test_a_settlement_that_cannot_be_sent_does_not_hold_up_the_answer(rig: FlowRig) -> None:
    rig.store.trouble("settle", "never arrives")
    answer, row = await relayed(rig, *WHOLE)
    assert answer.ended
    assert row.charged_tokens == 50


# --- usage that is missing or cannot be believed -----------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        (),
        (usage(0, 0),),
        (usage(20, 0),),
        (usage(0, 30),),
        (usage(-5, 30),),
        (usage(20.5, 30),),
        (usage("20", "30"),),
        (usage(None, None),),
        (event(choices=[], usage={}),),
        (event(choices=[], usage=[20, 30]),),
        (b"data: {not json\n\n",),
    ],
    ids=str,
)
async def test_text_without_believable_usage_is_counted_and_never_free(
    rig: FlowRig, lie: tuple[bytes, ...]
) -> None:
    _, row = await relayed(rig, *HELLO, *lie, DONE)
    unreadable = len("{not json") if b"{not" in b"".join(lie) else 0
    output_tokens = len("Hello world") + unreadable
    assert facts(row) == (prompt_of(row) + output_tokens, "estimated", "done")


async def test_an_upstream_that_reports_more_than_was_held_is_believed(rig: FlowRig) -> None:
    _, row = await relayed(rig, *HELLO, usage(20, 600), DONE)
    assert facts(row) == (620, "measured", "done")
    assert row.overdraft_tokens == 620 - row.held_tokens


async def test_the_last_usage_counts_where_an_upstream_reports_as_it_goes(rig: FlowRig) -> None:
    pieces = (text("a"), usage(20, 1), text("b"), usage(20, 2), text("c"), usage(20, 3), DONE)
    _, row = await relayed(rig, *pieces)
    assert facts(row) == (23, "measured", "done")


async def test_tool_calls_and_refusals_count_as_text(rig: FlowRig) -> None:
    call = {"index": 0, "function": {"name": "find", "arguments": '{"a":1}'}}
    _, row = await relayed(
        rig,
        event(choices=[{"index": 0, "delta": {"tool_calls": [call]}}]),
        event(choices=[{"index": 0, "delta": {"refusal": "No."}}]),
        DONE,
    )
    assert facts(row)[0] == prompt_of(row) + len('find{"a":1}No.')


# --- whoever breaks off ------------------------------------------------------------------------


@pytest.mark.parametrize("gone_at", range(5))
async def test_a_client_that_leaves_is_charged_what_upstream_reports(
    rig: FlowRig, gone_at: int
) -> None:
    answer, row = await relayed(rig, *WHOLE, gone_at=gone_at)
    outcome = "done" if gone_at == 4 else "client_gone"  # the settlement had left by then
    assert facts(row) == (50, "measured", outcome)
    assert not answer.ended


@pytest.mark.parametrize("gone_at", range(4))
async def test_a_client_that_leaves_a_stream_without_usage_is_charged_what_it_got(
    rig: FlowRig, gone_at: int
) -> None:
    _, row = await relayed(rig, *HELLO, gone_at=gone_at)
    got = ("", "Hello", "Hello world", "Hello world")[gone_at]
    assert facts(row) == (prompt_of(row) + len(got), "partial", "client_gone")


async def test_a_client_gone_is_read_on_for_no_longer_than_allowed() -> None:
    async with flow_rig(drain_s=0.02) as rig:
        never = asyncio.Event()
        _, row = await relayed(rig, text("Hello"), text(" world"), never, gone_at=2)
        assert facts(row) == (prompt_of(row) + len("Hello world"), "partial", "client_gone")


@pytest.mark.parametrize("error", [UpstreamBroke("cut"), UpstreamSilent("silent")])
async def test_an_upstream_that_fails_while_nobody_reads_leaves_what_was_relayed(
    rig: FlowRig, error: Exception
) -> None:
    _, row = await relayed(rig, text("Hello"), text(" world"), error, gone_at=1)
    assert facts(row) == (prompt_of(row) + len("Hello"), "partial", "client_gone")


async def test_no_more_streams_are_read_on_than_allowed() -> None:
    async with flow_rig(drains_max=1) as rig:
        key, go_on = await rig.user(), asyncio.Event()
        first = stream(text("Hello"), go_on, usage(20, 30), DONE)
        second = stream(text("Hello"), text(" world"), usage(20, 30), DONE)
        third = stream(text("Hello"), usage(20, 30), DONE)
        rig.will_answer(first, second, third)
        waiting = asyncio.ensure_future(
            rig.exchange.run(rig.call(key, stream=True), RecordedAnswer(gone_at=1))
        )
        await until(lambda: first.given == 2)
        await rig.exchange.run(rig.call(key, stream=True), RecordedAnswer(gone_at=1))
        assert second.given == 1
        go_on.set()
        await waiting
        await rig.exchange.run(rig.call(key, stream=True), RecordedAnswer(gone_at=1))
        rows = await rig.rows()
        assert [row.event.quality for row in rows] == ["partial", "measured", "measured"]
        assert (first.closed, second.closed, third.closed) == (1, 1, 1)


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (UpstreamBroke("cut"), "upstream_unavailable", "upstream_error"),
        (UpstreamSilent(""), "upstream_timeout", "upstream_error"),
        (UpstreamCutOff("stopping"), "shutting_down", "expired"),
    ],
)
async def test_an_upstream_that_fails_midway_is_told_and_what_was_relayed_is_charged(
    rig: FlowRig, after: int, error: Exception, code: str, outcome: str
) -> None:
    answer, row = await relayed(rig, *HELLO[:after], error, text("never"))
    *before, last = answer.written
    assert b"".join(before) == b"".join(HELLO[:after])
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == code
    assert last.endswith(b"\n\n")
    assert answer.ended
    got = ("", "Hello", "Hello world", "Hello world")[after]
    assert facts(row) == (prompt_of(row) + len(got), "partial", outcome)
    journal = rig.store.journal
    assert journal.index("settle") < len(journal) - 2


async def test_an_upstream_that_fails_after_its_usage_is_charged_as_it_reported(
    rig: FlowRig,
) -> None:
    _, row = await relayed(rig, *HELLO, usage(20, 30), UpstreamBroke("cut"))
    assert facts(row)[:2] == (50, "measured")


async def test_an_upstream_that_fails_after_the_end_changes_nothing(rig: FlowRig) -> None:
    _, row = await relayed(rig, *WHOLE, UpstreamBroke("cut"))
    assert facts(row) == (50, "measured", "done")


async def test_an_error_event_is_relayed_and_what_came_before_is_charged(rig: FlowRig) -> None:
    error = event(error={"message": "The server had an error", "type": "server_error"})
    answer, row = await relayed(rig, text("Hello"), error)
    assert answer.body == text("Hello") + error
    assert facts(row) == (prompt_of(row) + len("Hello"), "partial", "upstream_error")


async def test_an_event_beyond_all_bounds_breaks_the_stream_off(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 500)
    answer, row = await relayed(rig, text("Hello"), b"data: " + b"x" * 600, text("never"))
    assert b"upstream_unavailable" in answer.written[-1]
    assert facts(row) == (prompt_of(row) + len("Hello"), "partial", "upstream_error")


# --- a hold that is over -----------------------------------------------------------------------


async def test_a_hold_that_is_over_ends_its_stream_as_a_model_does_at_its_cap(
    rig: FlowRig,
) -> None:
    key, go_on = await rig.user(), asyncio.Event()
    half = text(" world")[:20]
    source = stream(text("Hello"), go_on, text(" big") + half, text("never"))
    rig.will_answer(source)
    answer = RecordedAnswer(rig.store.journal)
    running = asyncio.ensure_future(rig.exchange.run(rig.call(key, stream=True, n=2), answer))
    await until(lambda: source.given == 2)
    rig.clock.pass_s(rig.terms.stream_max_s + 1)
    await rig.open_holds.beat()
    go_on.set()
    await running
    body = answer.body
    assert body.startswith(text("Hello") + text(" big"))
    closing, done, rest = body.removeprefix(text("Hello") + text(" big")).split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    chunk = json.loads(closing.removeprefix(b"data: "))
    assert (chunk["id"], chunk["model"]) == ("chatcmpl-1", "gpt-4o-mini")
    assert [each["finish_reason"] for each in chunk["choices"]] == ["length", "length"]
    (row,) = await rig.rows()
    assert facts(row)[1:] == ("estimated", "done")
    assert source.given == 3
    assert source.closed == 1
    assert rig.store.journal[-3:] == ["settle", "write", "end"]


async def test_a_hold_that_is_over_adds_nothing_to_a_stream_that_has_ended(rig: FlowRig) -> None:
    key, go_on = await rig.user(), asyncio.Event()
    source = stream(text("Hello"), go_on, usage(20, 30) + DONE)
    rig.will_answer(source)
    answer = RecordedAnswer()
    running = asyncio.ensure_future(rig.exchange.run(rig.call(key, stream=True), answer))
    await until(lambda: source.given == 2)
    rig.clock.pass_s(rig.terms.stream_max_s + 1)
    await rig.open_holds.beat()
    go_on.set()
    await running
    assert answer.body == text("Hello") + DONE
    assert facts((await rig.rows())[0]) == (50, "measured", "done")


async def test_a_beat_notes_what_has_been_relayed_so_far(rig: FlowRig) -> None:
    key, go_on = await rig.user(), asyncio.Event()
    source = stream(text("Hello"), text(" world"), go_on, usage(20, 30), DONE)
    rig.will_answer(source)
    running = asyncio.ensure_future(rig.exchange.run(rig.call(key, stream=True), RecordedAnswer()))
    await until(lambda: source.given == 3)
    rig.clock.pass_s(10)
    await rig.open_holds.beat()
    (hold,) = await holds_in_store(rig)
    assert hold.split(b" ")[6] == str(len("Hello world")).encode()
    go_on.set()
    await running
    assert facts((await rig.rows())[0]) == (50, "measured", "done")


async def holds_in_store(rig: FlowRig) -> list[bytes]:
    found: list[bytes] = []
    for key in await rig.redis.client.keys("qg:*:h:*"):
        found += await rig.redis.client.hvals(key)
    return found


async def test_a_relay_that_is_cancelled_settles_what_was_relayed(rig: FlowRig) -> None:
    key = await rig.user()
    source = stream(text("Hello"), asyncio.Event())
    rig.will_answer(source)
    running = asyncio.ensure_future(rig.exchange.run(rig.call(key, stream=True), RecordedAnswer()))
    await until(lambda: source.given == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (row,) = await rig.rows()
    assert row.charged_tokens == prompt_of(row) + len("Hello")


async def test_a_stream_is_known_by_its_type_whatever_was_asked_for(rig: FlowRig) -> None:
    key = await rig.user()
    rig.will_answer(ScriptedAnswer(WHOLE, content_type="text/event-stream"))
    await rig.exchange.run(rig.call(key), answer := RecordedAnswer())
    assert answer.body == b"".join((*HELLO, DONE))
    assert facts((await rig.rows())[0]) == (50, "measured", "done")


async def test_a_stream_s_head_tells_the_quota_as_it_was_at_admission(rig: FlowRig) -> None:
    answer, _ = await relayed(rig, *WHOLE)
    assert answer.head is not None
    assert (answer.head.status, answer.head.charged_tokens) == (200, None)
    assert answer.head.quota.used_tokens == 0
    assert answer.head.content_type == "text/event-stream; charset=utf-8"
