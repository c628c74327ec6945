"""Calls with an idempotency key: answered once, charged once, and told so when they come again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.idempotency import answer_name
from gateway.core.refusal import Case, Refused
from gateway.flow import repeat
from gateway.flow.admit import Call
from gateway.ports.upstream import UpstreamBroke, UpstreamSilent, UpstreamUnreachable
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import DONE, completion, event, finish, text, usage
from tests.fakes.flow_rig import COUNTS, REPEAT_TERMS, FlowRig, flow_rig, until
from tests.fakes.upstream import ScriptedAnswer, stream

HELLO = completion("Hello", COUNTS)
STREAM = (text("Hello"), text(" world"), finish(), usage(20, 30), DONE)
SEEN = b"".join((*STREAM[:3], DONE))  # the usage chunk is hidden


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeat, "_FIRST_PAUSE_S", 0.001)


async def answered(rig: FlowRig, call: Call, gone_at: int | None = None) -> RecordedAnswer:
    answer = RecordedAnswer(gone_at=gone_at)
    await rig.repeats.run(call, answer)
    return answer


async def refused(rig: FlowRig, call: Call) -> Refused:
    with pytest.raises(Refused) as caught:
        await rig.repeats.run(call, RecordedAnswer())
    return caught.value


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what a pause comes before; TimeoutError after ten seconds."""
    async with asyncio.timeout(10):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.001)


async def entries(rig: FlowRig) -> int:
    """How many keys stand for something."""
    return len(await rig.redis.client.keys("qg:*:i:*"))


async def test_a_repetition_gets_the_first_answer_and_is_not_charged(rig: FlowRig) -> None:
    key = await rig.user()
    rig.will_answer(ScriptedAnswer([HELLO[:9], HELLO[9:]], content_type="application/json"))
    first = rig.keyed(key)
    assert (await answered(rig, first)).body == HELLO
    rig.metrics.seen.clear()
    again = await answered(rig, rig.keyed(key))
    assert again.replayed is not None
    assert again.body == HELLO
    told = again.replayed
    assert (told.rid, told.status, told.content_type) == (first.rid, 200, "application/json")
    assert len(rig.upstream.calls) == 1
    assert [row.event_id for row in await rig.rows()] == [first.rid]
    assert rig.metrics.seen == [("decided", "free", "chat", "admitted", "replayed")]


async def test_a_stream_is_answered_again_as_one_body_and_as_its_client_saw_it(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    rig.will_answer(stream(*STREAM))
    first = await answered(rig, rig.keyed(key, stream=True))
    assert (first.body, first.ended) == (SEEN, True)
    again = await answered(rig, rig.keyed(key, stream=True))
    assert again.replayed is not None
    assert again.body == SEEN
    assert again.replayed.content_type == "text/event-stream; charset=utf-8"
    assert len(await rig.rows()) == 1


async def test_the_end_of_a_stream_goes_out_once_its_answer_is_kept(rig: FlowRig) -> None:
    key = await rig.user()
    rig.will_answer(stream(*STREAM))

    class Impatient(RecordedAnswer):
        async def end(self) -> None:
            await super().end()
            assert (await answered(rig, rig.keyed(key, stream=True))).body == SEEN

    await rig.repeats.run(rig.keyed(key, stream=True), answer := Impatient())
    assert answer.ended


async def test_calls_without_a_key_and_of_other_keys_have_nothing_to_do_with_it(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    for call in (rig.keyed(key), rig.keyed(key, "twice"), rig.call(key), rig.call(key)):
        rig.will_answer(ScriptedAnswer([HELLO]))
        assert (await answered(rig, call)).replayed is None
    assert len(await rig.rows()) == 4
    assert await entries(rig) == 2


async def test_two_users_with_the_same_key_and_body_get_each_their_own(rig: FlowRig) -> None:
    await rig.user("team")
    keys = [await rig.user("ada"), *[await rig.member(name, "team") for name in ("bob", "cy")]]
    # Later it would wait for the drain, which does not run here.
    for payer, member in (("ada", None), ("team", None), ("team", "bob"), ("team", "cy")):
        await rig.hydrator.hydrate(payer, rig.period, member)
    answers = [completion(name, COUNTS) for name in ("for ada", "for bob", "for cy")]
    rig.will_answer(*(ScriptedAnswer([each]) for each in answers))
    for _ in range(2):
        for key, own in zip(keys, answers, strict=True):
            assert (await answered(rig, rig.keyed(key))).body == own
    assert len(rig.upstream.calls) == 3


async def test_another_body_under_the_key_is_refused(rig: FlowRig) -> None:
    key = await rig.user()
    rig.will_answer(ScriptedAnswer([HELLO]))
    await answered(rig, first := rig.keyed(key))
    refusal = await refused(rig, rig.keyed(key, max_tokens=9))
    assert refusal.case is Case.IDEMPOTENCY_KEY_REUSED
    assert first.rid in refusal.message
    assert refusal.tier == "free"
    assert len(rig.upstream.calls) == 1


async def test_of_fifty_at_once_one_is_sent_and_charged(rig: FlowRig) -> None:
    key, go_on = await rig.user(), asyncio.Event()
    source = ScriptedAnswer([HELLO[:9], go_on, HELLO[9:]])
    rig.will_answer(source)
    calls = [asyncio.ensure_future(answered(rig, rig.keyed(key))) for _ in range(50)]
    await until(lambda: sum(call.done() for call in calls) == 49)
    told = [call.exception() for call in calls if call.done()]
    assert {type(each) for each in told} == {Refused}
    assert {each.case for each in told if isinstance(each, Refused)} == {
        Case.IDEMPOTENCY_IN_PROGRESS
    }
    go_on.set()
    (first,) = [call for call in calls if not call.done()]
    assert (await first).body == HELLO
    assert (await answered(rig, rig.keyed(key))).body == HELLO
    assert len(rig.upstream.calls) == 1
    assert len(await rig.rows()) == 1


# --- what cost nothing is not remembered ----------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        UpstreamUnreachable("closed"),
        UpstreamBroke("cut"),
        UpstreamSilent("silent"),
        ScriptedAnswer([b"{", UpstreamBroke("cut")]),
        ScriptedAnswer([b'{"error":{}}'], 400),
        ScriptedAnswer([b'{"error":{}}'], 429, retry_after="7"),
        ScriptedAnswer([b'{"error":{}}'], 500),
        ScriptedAnswer([b""], 401),
    ],
    ids=lambda source: getattr(source, "head", type(source).__name__),
)
async def test_what_failed_and_cost_nothing_may_be_asked_again(
    rig: FlowRig, source: ScriptedAnswer | Exception
) -> None:
    key = await rig.user()
    rig.will_answer(source, ScriptedAnswer([HELLO]))
    try:
        await answered(rig, rig.keyed(key))
    except Refused:
        assert await entries(rig) == 0
    assert await entries(rig) == 0
    again = await answered(rig, rig.keyed(key))
    assert (again.body, again.replayed) == (HELLO, None)
    assert len(rig.upstream.calls) == 2


async def test_what_was_refused_may_be_asked_again(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.accounts.set_used("ada", 1000, "test", "tester")
    assert (await refused(rig, rig.keyed(key))).case is Case.MONTH_USED_UP
    await rig.accounts.set_used("ada", 0, "test", "tester")
    rig.will_answer(ScriptedAnswer([HELLO]))
    assert (await answered(rig, rig.keyed(key))).replayed is None


# --- what was charged is remembered, kept or not -------------------------------------------------


async def gone(rig: FlowRig, call: Callable[[], Call], first: str) -> None:
    """The repetition says that the first was charged; nothing is sent or charged again."""
    sent = len(rig.upstream.calls)
    refusal = await refused(rig, call())
    assert refusal.case is Case.IDEMPOTENCY_ANSWER_GONE
    assert first in refusal.message
    assert len(rig.upstream.calls) == sent
    assert len(await rig.rows()) == 1


@pytest.mark.parametrize(("over", "is_kept"), [(0, True), (1, False)])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_answer_is_kept_up_to_its_bound(
    rig: FlowRig, over: int, is_kept: bool, is_stream: bool
) -> None:
    key = await rig.user()
    body = SEEN if is_stream else HELLO
    rig.repeats = rig.repeats_of(replace(REPEAT_TERMS, answer_bytes_max=len(body) - over))
    rig.will_answer(stream(*STREAM) if is_stream else ScriptedAnswer([HELLO]))
    first = rig.keyed(key, stream=is_stream)
    assert (await answered(rig, first)).body == body
    if is_kept:
        assert (await answered(rig, rig.keyed(key, stream=is_stream))).body == body
    else:
        await gone(rig, lambda: rig.keyed(key, stream=is_stream), first.rid)


@pytest.mark.parametrize(
    "pieces",
    [
        (text("Hello"), UpstreamBroke("cut")),
        (text("Hello"), UpstreamSilent("silent")),
        (text("Hello"), event(error={"message": "The server had an error"})),
    ],
    ids=["broken", "silent", "error"],
)
async def test_a_stream_that_was_cut_was_charged_and_is_not_answered_again(
    rig: FlowRig, pieces: tuple[Any, ...]
) -> None:
    key = await rig.user()
    rig.will_answer(stream(*pieces))
    await answered(rig, first := rig.keyed(key, stream=True))
    await gone(rig, lambda: rig.keyed(key, stream=True), first.rid)


async def test_who_left_before_a_whole_answer_finds_it(rig: FlowRig) -> None:
    key = await rig.user()
    rig.will_answer(ScriptedAnswer([HELLO]))
    await answered(rig, rig.keyed(key), gone_at=0)
    assert (await answered(rig, rig.keyed(key))).body == HELLO
    assert len(await rig.rows()) == 1


@pytest.mark.parametrize("gone_at", range(6))
async def test_who_left_a_stream_that_was_read_to_its_end_finds_all_of_it(
    rig: FlowRig, gone_at: int
) -> None:
    key = await rig.user()
    rig.will_answer(stream(*STREAM))
    await answered(rig, rig.keyed(key, stream=True), gone_at)
    assert (await answered(rig, rig.keyed(key, stream=True))).body == SEEN
    (row,) = await rig.rows()
    assert (row.charged_tokens, row.event.quality) == (50, "measured")


async def test_what_was_not_charged_in_full_is_not_to_be_had_later(rig: FlowRig) -> None:
    key = await rig.user()
    rig.will_answer(stream(text("Hello"), text(" world"), finish(), DONE))  # tells no usage
    await answered(rig, first := rig.keyed(key, stream=True), gone_at=1)
    await gone(rig, lambda: rig.keyed(key, stream=True), first.rid)


async def test_who_left_a_stream_that_nobody_could_read_on_is_told(rig: FlowRig) -> None:
    async with flow_rig(drains_max=0) as rig:
        key = await rig.user()
        rig.will_answer(stream(*STREAM))
        await answered(rig, first := rig.keyed(key, stream=True), gone_at=2)
        await gone(rig, lambda: rig.keyed(key, stream=True), first.rid)


async def test_a_stream_whose_hold_was_over_is_kept_as_it_was_closed(rig: FlowRig) -> None:
    key, go_on = await rig.user(), asyncio.Event()
    source = stream(text("Hello"), go_on, text(" big"), text("never"))
    rig.will_answer(source)
    running = asyncio.ensure_future(answered(rig, rig.keyed(key, stream=True)))
    await until(lambda: source.given == 2)
    rig.clock.pass_s(rig.terms.stream_max_s + 1)
    await rig.open_holds.beat()
    go_on.set()
    first = await running
    assert first.body.endswith(DONE)
    assert (await answered(rig, rig.keyed(key, stream=True))).body == first.body


# --- whose it is ----------------------------------------------------------------------------------


async def test_a_revoked_key_gets_no_kept_answer(rig: FlowRig) -> None:
    key = await rig.user()
    rig.will_answer(ScriptedAnswer([HELLO]))
    await answered(rig, rig.keyed(key))
    rig.directory.keys.clear()
    assert (await refused(rig, rig.keyed(key))).case is Case.INVALID_API_KEY


async def test_a_second_key_of_the_same_user_finds_the_answer(rig: FlowRig) -> None:
    key = await rig.user()
    other = (await rig.accounts.create_key("ada", b"pepper")).key
    rig.will_answer(ScriptedAnswer([HELLO]))
    await answered(rig, rig.keyed(key))
    assert (await answered(rig, rig.keyed(other))).body == HELLO


async def test_without_the_ledger_nothing_is_answered_again(rig: FlowRig) -> None:
    key = await rig.user()
    rig.will_answer(ScriptedAnswer([HELLO]))
    await answered(rig, rig.keyed(key))
    rig.ledger.away = rig.directory.away = True
    assert (await refused(rig, rig.keyed(key))).case is Case.QUOTA_BACKEND_UNAVAILABLE
    rig.ledger.away = rig.directory.away = False
    assert (await answered(rig, rig.keyed(key))).body == HELLO


# --- the store ------------------------------------------------------------------------------------


async def test_without_the_store_a_call_with_a_key_is_not_made(rig: FlowRig) -> None:
    key = await rig.user()
    rig.answers.away = True
    refusal = await refused(rig, rig.keyed(key))
    assert (refusal.case, refusal.retry_after_s) == (Case.QUOTA_BACKEND_UNAVAILABLE, 1)
    assert rig.upstream.calls == []
    rig.answers.away = False
    await until(lambda: rig.answers.asked.count("forget") >= 1)


async def test_a_key_that_nobody_was_asked_for_is_not_given_back(rig: FlowRig) -> None:
    key = await rig.user()
    rig.answers.unasked = True
    assert (await refused(rig, rig.keyed(key))).case is Case.QUOTA_BACKEND_UNAVAILABLE
    rig.answers.unasked = False
    rig.will_answer(ScriptedAnswer([HELLO]))
    assert (await answered(rig, rig.keyed(key))).body == HELLO
    assert "forget" not in rig.answers.asked


async def test_a_key_that_was_taken_for_a_call_that_never_ran_is_given_back(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    rig.answers.troubles += ["reply lost", "never arrives", "reply lost"]
    assert (await refused(rig, rig.keyed(key))).case is Case.QUOTA_BACKEND_UNAVAILABLE
    await until(lambda: rig.answers.asked.count("forget") == 3)

    async def is_free() -> bool:
        return await entries(rig) == 0

    await eventually(is_free)
    rig.will_answer(ScriptedAnswer([HELLO]))
    assert (await answered(rig, rig.keyed(key))).body == HELLO


@pytest.mark.parametrize("trouble", ["never arrives", "reply lost"])
async def test_an_answer_that_could_not_be_kept_at_once_is_kept_later(
    rig: FlowRig, trouble: Any
) -> None:
    key = await rig.user()
    rig.will_answer(ScriptedAnswer([HELLO]))
    rig.answers.troubles += ["", trouble]
    assert (await answered(rig, rig.keyed(key))).body == HELLO
    (name,) = await rig.redis.client.keys("qg:*:i:*")

    async def is_kept() -> bool:
        return bool(await rig.redis.client.pttl(name) > REPEAT_TERMS.running_ms)

    await eventually(is_kept)
    assert (await answered(rig, rig.keyed(key))).body == HELLO
    assert len(rig.upstream.calls) == 1


async def test_a_call_that_runs_renews_its_key(rig: FlowRig) -> None:
    key, go_on = await rig.user(), asyncio.Event()
    rig.repeats = rig.repeats_of(replace(REPEAT_TERMS, renew_ms=1))
    rig.will_answer(ScriptedAnswer([go_on, HELLO]))
    running = asyncio.ensure_future(answered(rig, rig.keyed(key)))
    await until(lambda: rig.answers.asked == ["begin"])
    await until(lambda: rig.answers.asked.count("renew") >= 3)
    (name,) = await rig.redis.client.keys("qg:*:i:*")
    assert name.decode().endswith(answer_name("ada", "once"))
    assert 60_000 < await rig.redis.client.pttl(name) <= 70_000
    rig.answers.away = True  # a renewal that fails is not the end of the call
    await until(lambda: rig.answers.asked.count("renew") >= 6)
    rig.answers.away = False
    go_on.set()
    await running
    renewed = rig.answers.asked.count("renew")
    assert (await answered(rig, rig.keyed(key))).body == HELLO
    await asyncio.sleep(0.01)
    assert rig.answers.asked.count("renew") <= renewed
    assert 86_000_000 < await rig.redis.client.pttl(name) <= 86_400_000


async def test_a_call_that_lost_its_key_leaves_it_to_the_other(
    rig: FlowRig, caplog: pytest.LogCaptureFixture
) -> None:
    key, go_on = await rig.user(), asyncio.Event()
    other = completion("The second", COUNTS)
    rig.will_answer(ScriptedAnswer([go_on, HELLO]), ScriptedAnswer([other]))
    running = asyncio.ensure_future(answered(rig, rig.keyed(key)))
    await until(lambda: len(rig.upstream.calls) == 1)
    (name,) = await rig.redis.client.keys("qg:*:i:*")
    await rig.redis.client.delete(name)  # it was away for longer than a key lives
    assert (await answered(rig, rig.keyed(key))).body == other
    go_on.set()
    with caplog.at_level(logging.WARNING, "gateway.repeat"):
        assert (await running).body == HELLO
    assert "lost its idempotency key" in caplog.text
    assert (await answered(rig, rig.keyed(key))).body == other


async def test_an_answer_is_kept_although_the_store_was_emptied_meanwhile(rig: FlowRig) -> None:
    key, go_on = await rig.user(), asyncio.Event()
    rig.will_answer(ScriptedAnswer([go_on, HELLO]))
    running = asyncio.ensure_future(answered(rig, rig.keyed(key)))
    await until(lambda: len(rig.upstream.calls) == 1)
    await rig.lose_everything()
    go_on.set()
    await running
    assert (await answered(rig, rig.keyed(key))).body == HELLO


async def test_where_nothing_is_kept_keys_are_not_heeded(rig: FlowRig) -> None:
    key = await rig.user()
    rig.repeats = rig.repeats_of(replace(REPEAT_TERMS, keep_ms=0))
    for _ in range(2):
        rig.will_answer(ScriptedAnswer([HELLO]))
        assert (await answered(rig, rig.keyed(key))).replayed is None
    assert (await entries(rig), rig.answers.asked) == (0, [])
