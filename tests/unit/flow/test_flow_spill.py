"""What Redis has not confirmed is on disk: a gateway that is killed then charges all the same."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from gateway.adapters.spill import SpillFiles
from gateway.core.hold import UNSEEN_TOKENS_MAX, Ending, Hold
from gateway.core.quota.settle import Settlement
from gateway.core.usage import Usage
from gateway.flow import settlements
from gateway.flow.recent import RecentSettlements
from gateway.flow.settlements import Settlements
from gateway.flow.terms import OutageTerms
from gateway.ports.quota_store import StoreRejected
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import DONE, completion, text, usage
from tests.fakes.flow_rig import COUNTS, FlowRig, flow_rig, until
from tests.fakes.upstream import ScriptedAnswer, stream

ENDING = Ending(Usage(20, 0, 30, 0), "measured", "done", 200)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlements, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(settlements, "_LONGEST_PAUSE_S", 0.004)


def files(rig: FlowRig) -> list[str]:
    return os.listdir(rig.state_dir / "spill")


async def held(rig: FlowRig, **body: Any) -> Hold:
    return (await rig.admission.admit(rig.call(await rig.user(), **body))).hold


async def killed(rig: FlowRig) -> None:
    """The gateway is no more; the next one has what is on disk, and has not begun to send it."""
    for task in list(rig.settlements._unconfirmed):
        task.cancel()
    await rig.settled()
    rig.spill.close()
    rig.spill = SpillFiles(rig.state_dir / "spill", "next", rig.metrics)
    rig.settlements = Settlements(
        rig.store,
        rig.shards,
        (RecentSettlements(), rig.spill),
        rig.terms.plan.thresholds_percent,
        rig.metrics,
    )
    rig.store.sent.clear()


async def taken_over(rig: FlowRig) -> None:
    """The next gateway starts, with Redis in order, and has sent all there is to send."""
    rig.store.away, rig.store.troubles = False, {}
    rig.settlements.take_over()
    await rig.settled()
    assert files(rig) == []
    assert rig.metrics.of("spilled")[-1] == 0


# --- settlements -------------------------------------------------------------------------------


async def test_while_redis_answers_nothing_is_on_disk(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", None)
        patched.setattr(os, "open", None)
        hold = await held(rig)
        await rig.settlements.settle(hold, ENDING)
        await rig.settled()
    assert rig.metrics.of("hold_ended") == ["settled"]
    assert rig.metrics.of("spilled") == []


async def test_what_could_not_be_sent_is_on_disk_before_its_answer_goes_out(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.will_answer(ScriptedAnswer([completion("Hi", COUNTS)]))
    call, answer = rig.call(await rig.user()), RecordedAnswer()
    rig.store.trouble("settle", "never arrives")
    seen: list[list[str]] = []
    whole = answer.whole

    async def watched(head: Any, body: bytes) -> None:
        seen.append(files(rig))
        await whole(head, body)

    monkeypatch.setattr(answer, "whole", watched)
    await rig.exchange.run(call, answer)
    assert answer.ended
    assert [len(names) for names in seen] == [1]
    await rig.settled()
    assert files(rig) == []


@pytest.mark.parametrize("trouble", ["never arrives", "reply lost"])
async def test_of_a_killed_gateway_each_call_is_charged_once(rig: FlowRig, trouble: Any) -> None:
    hold = await held(rig)
    for _ in range(100):
        rig.store.trouble("settle", trouble)
    assert await rig.settlements.settle(hold, ENDING) == 50
    await until(lambda: files(rig))
    await killed(rig)
    await taken_over(rig)
    (row,) = await rig.rows()
    assert (row.event_id, row.charged_tokens, row.event.quality) == (hold.rid, 50, "measured")
    account = await rig.account()
    assert (account.settled_tokens, account.held_tokens, account.open_holds) == (50, 0, 0)


async def test_a_release_outlives_its_gateway_too(rig: FlowRig) -> None:
    hold = await held(rig)
    rig.store.away = True
    await rig.settlements.release(hold)
    await killed(rig)
    await taken_over(rig)
    assert await rig.rows() == []
    assert (await rig.account()).held_tokens == 0


async def test_what_is_confirmed_in_the_end_leaves_nothing_to_send(rig: FlowRig) -> None:
    hold = await held(rig)
    rig.store.trouble("settle", "reply lost")
    await rig.settlements.settle(hold, ENDING)
    await rig.settled()
    assert max(rig.metrics.of("spilled")) > 0
    await killed(rig)
    await taken_over(rig)
    assert rig.store.sent == []


async def test_what_is_rejected_is_not_sent_for_ever(rig: FlowRig) -> None:
    hold = await held(rig)
    rig.store.trouble("settle", StoreRejected("settle: an argument is not of its kind"))
    await rig.settlements.settle(hold, ENDING)
    await rig.settled()
    assert files(rig) == []
    assert rig.metrics.of("hold_ended") == ["rejected"]


async def test_what_was_left_waits_until_redis_is_back(rig: FlowRig) -> None:
    hold = await held(rig)
    rig.store.away = True
    await rig.settlements.settle(hold, ENDING)
    await killed(rig)
    asked = rig.store.asked.count("settle")
    rig.settlements.take_over()
    await until(lambda: rig.store.asked.count("settle") > asked + 3)
    assert len(files(rig)) == 1
    await taken_over(rig)
    assert [row.event_id for row in await rig.rows()] == [hold.rid]


async def test_killed_again_the_rest_is_still_there(rig: FlowRig) -> None:
    hold = await held(rig)
    rig.store.away = True
    await rig.settlements.settle(hold, ENDING)
    for _ in range(3):
        await killed(rig)
        rig.settlements.take_over()
        await asyncio.sleep(0)
    await killed(rig)
    await taken_over(rig)
    assert [row.event_id for row in await rig.rows()] == [hold.rid]


async def test_a_redis_that_comes_back_empty_gets_it_in_its_new_epoch(rig: FlowRig) -> None:
    hold = await held(rig)
    rig.store.away = True
    await rig.settlements.settle(hold, ENDING)
    await killed(rig)
    await rig.lose_everything()  # and nobody has opened its shards
    await taken_over(rig)
    (row,) = await rig.rows()
    assert (row.event_id, row.epoch, row.charged_tokens) == (hold.rid, 2, 50)


async def test_many_are_sent_a_few_at_a_time(rig: FlowRig, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await rig.user("ada", "full")
    holds = [(await rig.admission.admit(rig.call(key, max_tokens=1))).hold for _ in range(100)]
    rig.store.away = True
    for hold in holds:
        await rig.settlements.settle(hold, ENDING)
    await killed(rig)
    under_way, most = 0, 0
    sends = rig.store.settle

    async def counted(settlement: Settlement) -> asyncio.Future[Any]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        reply = await sends(settlement)
        await asyncio.wait([reply])
        under_way -= 1
        return reply

    monkeypatch.setattr(rig.store, "settle", counted)
    await taken_over(rig)
    assert 1 < most <= 32
    rows = await rig.rows()
    assert sorted(row.event_id for row in rows) == sorted(hold.rid for hold in holds)


async def test_however_many_wait_they_do_not_all_ask_all_the_time(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlements, "_REPEATS_A_SECOND", 1000)
    key, pauses_s = await rig.user("ada", "full"), []
    holds = [(await rig.admission.admit(rig.call(key, max_tokens=1))).hold for _ in range(30)]
    rest = rig.settlements.pauses.rest

    async def noted(pause_s: float) -> bool:
        pauses_s.append(pause_s)
        return await rest(min(pause_s, 0.001))

    with monkeypatch.context() as patched:
        patched.setattr(rig.settlements.pauses, "rest", noted)
        rig.store.away = True
        await rig.settlements.settle(holds[0], ENDING)
        await until(lambda: max(pauses_s, default=0) == settlements._LONGEST_PAUSE_S)
        for hold in holds[1:]:
            await rig.settlements.settle(hold, ENDING)
        await until(lambda: max(pauses_s) >= 30 / 1000)
        assert max(pauses_s) == 30 / 1000
        rig.store.away = False
        await rig.settled()


async def test_what_is_under_way_when_the_process_is_told_to_end_is_on_disk(rig: FlowRig) -> None:
    hold = await held(rig)
    await rig.settlements.settle(hold, ENDING)
    (reply,) = rig.settlements._unconfirmed
    reply.cancel()
    await until(lambda: files(rig))
    await killed(rig)
    await taken_over(rig)
    assert [row.event_id for row in await rig.rows()] == [hold.rid]


async def test_where_the_disk_refuses_the_answer_goes_out_and_memory_keeps_sending(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.will_answer(ScriptedAnswer([completion("Hi", COUNTS)]))
    call, answer = rig.call(await rig.user()), RecordedAnswer()

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    rig.store.trouble("settle", "never arrives")
    await rig.exchange.run(call, answer)
    assert answer.ended
    assert rig.metrics.of("spill_failed") == ["disk"]
    assert [row.charged_tokens for row in await rig.rows()] == [50]


# --- the progress of streams -------------------------------------------------------------------


@dataclass
class Running:
    """A stream under way; `go_on` lets the rest of it come."""

    hold: Hold
    answer: RecordedAnswer
    go_on: asyncio.Event


@asynccontextmanager
async def streaming(rig: FlowRig, *rest: bytes) -> AsyncIterator[Running]:
    """One of which the client has read five tokens, and that has been open for a heartbeat."""
    go_on = asyncio.Event()
    rig.will_answer(stream(text("Hello"), go_on, *rest))
    call, answer = rig.call(await rig.user(), stream=True), RecordedAnswer()
    running = asyncio.ensure_future(rig.exchange.run(call, answer))
    await until(lambda: answer.written)
    (entry,) = rig.open_holds._open.values()
    rig.clock.pass_s(10)
    yield Running(entry.hold, answer, go_on)
    go_on.set()
    await running


@pytest.mark.parametrize("unseen_tokens", [0, 7, UNSEEN_TOKENS_MAX])
async def test_of_a_killed_gateway_a_stream_is_booked_as_far_as_it_was_noted(
    rig: FlowRig, unseen_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.core.hold.UNSEEN_TOKENS_MAX", unseen_tokens)
    async with streaming(rig, text(" you"), usage(20, 30), DONE) as running:
        rig.store.away = True
        await rig.open_holds.beat()
        await killed(rig)
        await taken_over(rig)
        (row,) = await rig.rows()
        likely = running.hold.prompt_tokens + 5 + unseen_tokens
        assert row.charged_tokens == min(running.hold.hold_tokens, likely)
        assert (row.event.quality, row.event.outcome) == ("estimated", "expired")
        account = await rig.account()
        assert (account.settled_tokens, account.held_tokens) == (row.charged_tokens, 0)


async def test_the_last_progress_counts_and_what_the_sweeper_booked_before_is_corrected(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.core.hold.UNSEEN_TOKENS_MAX", 0)
    async with streaming(rig) as running:
        await rig.open_holds.beat()  # Redis knows of 5 tokens
        (entry,) = rig.open_holds._open.values()
        rig.store.away = True
        for progress in (6, 9):
            monkeypatch.setattr(entry, "progress", partial(int, progress))
            await rig.open_holds.beat()
        await killed(rig)
        rig.store.away = False
        await rig.expire()
        await taken_over(rig)
        first, correction = await rig.rows()
        assert (first.charged_tokens, correction.charged_tokens) == (
            running.hold.prompt_tokens + 5,
            4,
        )
        assert (correction.kind, correction.corrects) == ("correction", running.hold.rid)
        assert (await rig.account()).settled_tokens == running.hold.prompt_tokens + 9


async def test_a_stream_that_goes_on_is_charged_what_it_cost(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with streaming(rig, text(" you"), usage(20, 30), DONE) as running:
        rig.store.away = True
        await rig.open_holds.beat()
        assert len(files(rig)) == 1
        is_read = asyncio.Event()

        async def slow() -> None:
            if rig.settlements.unconfirmed:
                await is_read.wait()

        push = running.answer.push
        monkeypatch.setattr(running.answer, "push", lambda data: not push(data))
        monkeypatch.setattr(running.answer, "caught_up", slow)
        running.go_on.set()
        await until(lambda: rig.settlements.unconfirmed)
        await rig.open_holds.beat()  # this progress does not take the settlement's place
        await killed(rig)
        await taken_over(rig)
        is_read.set()
        (row,) = await rig.rows()
        assert (row.event_id, row.charged_tokens) == (running.hold.rid, 50)
        assert row.event.quality == "measured"


async def test_a_beat_that_redis_hears_again_needs_no_file(rig: FlowRig) -> None:
    async with streaming(rig, usage(20, 30), DONE):
        rig.store.trouble("extend", "never arrives")
        await rig.open_holds.beat()
        assert len(files(rig)) == 1
        await rig.open_holds.beat()
        assert files(rig) == []


async def test_a_beat_that_is_heard_as_its_stream_ends_leaves_the_settlement_on_disk(
    rig: FlowRig,
) -> None:
    async with streaming(rig, usage(20, 30), DONE) as running:
        rig.store.trouble("extend", "never arrives")
        await rig.open_holds.beat()
        for _ in range(10_000):
            rig.store.trouble("settle", "never arrives")

        async def ending(where: str) -> None:
            if where == "after extend":
                running.go_on.set()
                await until(lambda: rig.settlements.unconfirmed)

        rig.store.pause = ending
        await rig.open_holds.beat()
        rig.store.pause = None
        await killed(rig)
        await taken_over(rig)
        (row,) = await rig.rows()
        assert (row.event_id, row.event.quality) == (running.hold.rid, "measured")


async def test_of_a_whole_answer_no_progress_is_kept(rig: FlowRig) -> None:
    rig.open_holds.add(await held(rig))
    rig.clock.pass_s(10)
    rig.store.away = True
    await rig.open_holds.beat()
    assert files(rig) == []


# --- calls that went out while Redis was away ----------------------------------------------------


async def test_of_a_killed_gateway_an_outage_s_stream_is_charged_once_by_what_was_noted() -> None:
    async with flow_rig(outage=OutageTerms("bounded", 5_000)) as rig:
        key = await rig.user()
        await rig.spend(key)
        rig.store.away = True
        call = rig.call(key, stream=True, max_tokens=2_000)
        entry = rig.open_holds.add((await rig.admission.admit(call)).hold)
        hold = entry.hold
        assert hold.in_outage
        assert files(rig)  # no lease would tell of it
        entry.progress = lambda: 700
        rig.clock.pass_s(10)
        await rig.open_holds.beat()
        await killed(rig)
        await taken_over(rig)
        (row,) = [row for row in await rig.rows() if row.event.outcome == "outage"]
        seen_tokens = hold.prompt_tokens + 700 + UNSEEN_TOKENS_MAX
        assert row.charged_tokens == min(hold.hold_tokens, seen_tokens) > hold.prompt_tokens
        assert (row.event.event_id, row.event.quality) == (hold.rid, "estimated")


async def test_a_call_of_an_outage_that_was_never_sent_leaves_nothing_to_charge() -> None:
    async with flow_rig(outage=OutageTerms("bounded", 5_000)) as rig:
        key = await rig.user()
        await rig.spend(key)
        rig.store.away = True
        admitted = await rig.admission.admit(rig.call(key, stream=True))
        rig.open_holds.add(admitted.hold)
        await rig.settlements.release(admitted.hold)
        rig.store.away = False
        assert [row for row in await rig.rows() if row.event.outcome == "outage"] == []
        assert files(rig) == []
