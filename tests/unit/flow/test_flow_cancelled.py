"""A call that is cancelled at any of its awaits leaves no hold behind, no second row, and nothing
of its own to the next call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.core.idempotency import decode_remembered
from gateway.core.refusal import Refused
from gateway.flow import repeat, settlements, shards
from gateway.flow.admit import Call
from gateway.ports.answer import AnswerHead
from gateway.ports.upstream import UpstreamBroke, UpstreamCall, UpstreamUnreachable
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import DONE, completion, finish, text, usage
from tests.fakes.flow_rig import COUNTS, FlowRig, flow_rig
from tests.fakes.stepped import Moment, Stepped, turn
from tests.fakes.store import SHARDS
from tests.fakes.upstream import Piece, ScriptedAnswer, ScriptedUpstream

SECOND = completion("The second's own", {"prompt_tokens": 7, "completion_tokens": 8})
STREAM = (text("Hello"), text(" world"), finish(), usage(20, 30), DONE)


class FarAnswer(ScriptedAnswer):
    """Every piece takes its turn."""

    async def arrives(self) -> None:
        await turn()

    async def close(self) -> None:
        await super().close()
        await turn()


class FarUpstream(ScriptedUpstream):
    async def send(self, call: UpstreamCall) -> ScriptedAnswer:
        try:
            return await super().send(call)
        finally:
            await turn()


class FarClient(RecordedAnswer):
    """Every write takes its turn."""

    async def whole(self, head: AnswerHead, body: bytes) -> None:
        await turn()
        await super().whole(head, body)

    async def begin(self, head: AnswerHead) -> None:
        await turn()
        await super().begin(head)

    def push(self, data: bytes) -> bool:
        super().push(data)
        return False

    async def caught_up(self) -> None:
        await turn()

    async def end(self) -> None:
        await turn()
        await super().end()


Prepare = Callable[[FlowRig], Awaitable[None]]


@dataclass(frozen=True)
class Variant:
    """One way a call goes. `prepare` is done to the rig once the user's account is in force."""

    pieces: tuple[Piece, ...] | Exception
    awaits_least: int
    prepare: Prepare | None = None
    status: int = 200
    is_stream: bool = False
    gone_at: int | None = None

    def source(self) -> ScriptedAnswer | Exception:
        if isinstance(self.pieces, Exception):
            return self.pieces
        kind = "text/event-stream" if self.is_stream else "application/json"
        return FarAnswer(self.pieces, self.status, kind)


async def _use_up(rig: FlowRig) -> None:
    await rig.accounts.set_used("ada", 999, "test", "tester")
    await rig.identities.again(rig.identities.credential(next(iter(KEYS))))


async def _change(rig: FlowRig) -> None:
    await rig.accounts.set_tier("ada", "lite")


async def _change_unprojected(rig: FlowRig) -> None:
    await rig.directory.set_tier("ada", "lite")
    await rig.identities.again(rig.identities.credential(next(iter(KEYS))))


async def _lose_account(rig: FlowRig) -> None:
    await rig.lose_account()


async def _lose_everything(rig: FlowRig) -> None:
    await rig.lose_everything()


async def _lose_reply(rig: FlowRig) -> None:
    rig.store.trouble("reserve", "reply lost")


KEYS: list[str] = []
WHOLE = (completion("Hello", COUNTS),)
VARIANTS = {
    "whole answer": Variant(WHOLE, 8),
    "stream": Variant(STREAM, 16, is_stream=True),
    "refused": Variant(WHOLE, 3, _use_up),
    "stale identity": Variant(WHOLE, 10, _change),
    "stale in the store": Variant(WHOLE, 12, _change_unprojected),
    "hydration needed": Variant(WHOLE, 10, _lose_account),
    "shard closed": Variant(WHOLE, 16, _lose_everything),
    "reserve's reply lost": Variant(WHOLE, 4, _lose_reply),
    "upstream refuses": Variant((b'{"error":{}}',), 8, status=400),
    "upstream fails": Variant((b'{"error":{}}',), 8, status=500),
    "upstream breaks off": Variant((b"{", UpstreamBroke("cut")), 7),
    "upstream unreachable": Variant(UpstreamUnreachable("closed"), 6),
    "stream breaks off": Variant((*STREAM[:2], UpstreamBroke("cut")), 10, is_stream=True),
    "client gone": Variant(STREAM, 12, is_stream=True, gone_at=2),
}
WITH_A_KEY = ("whole answer", "stream", "refused", "upstream refuses", "client gone")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (repeat, settlements, shards):
        monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.001)


@dataclass
class Run:
    """One call on a rig of its own, cancelled at its step `at`."""

    rig: FlowRig
    variant: Variant
    call: Call
    client: FarClient
    source: ScriptedAnswer | Exception

    async def once(self) -> None:
        try:
            await self.rig.repeats.run(self.call, self.client)
        except Refused:
            self.client.ended = True


async def begun(rig: FlowRig, variant: Variant, is_keyed: bool) -> Run:
    rig.upstream = FarUpstream()
    rig.exchange._upstream = rig.upstream
    KEYS[:] = [await rig.user()]
    await rig.hydrator.hydrate("ada", rig.period)
    await rig.identities.of(rig.identities.credential(KEYS[0]))
    if variant.prepare is not None:
        await variant.prepare(rig)
    source = variant.source()
    rig.will_answer(source)
    ask = rig.keyed if is_keyed else rig.call
    call = ask(KEYS[0], stream=variant.is_stream)
    return Run(rig, variant, call, FarClient(gone_at=variant.gone_at), source)


async def all_done() -> None:
    """Until nothing works in the background any more."""
    async with asyncio.timeout(10):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)


async def check(run: Run) -> None:
    """What holds after a call, however it ended."""
    rig = run.rig
    await all_done()
    assert len(rig.open_holds) == 0
    has_tried = "settle" in rig.store.asked
    endings = {(each.kind, each.event_json) for each in rig.store.sent if each.rid == run.call.rid}
    assert len(endings) <= 1
    await rig.expire()
    if has_tried:  # then it was seen through, and nothing was left to the sweeper
        assert "expire" not in rig.store.asked
    await rig.hydrator.hydrate("ada", rig.period)
    account = await rig.account()
    assert (account.held_tokens, account.open_holds) == (0, 0)
    assert [await rig.redis.leases.count(shard) for shard in range(SHARDS)] == [0] * SHARDS
    rows = [row for row in await rig.rows() if run.call.rid in (row.event_id, row.corrects)]
    assert len(rows) <= 1
    charged = sum(row.charged_tokens for row in rows)
    assert account.settled_tokens == charged
    asked = rig.upstream.calls
    assert len(asked) <= 1
    if not asked:
        assert rows == []
    elif run.variant.status == 200 and not isinstance(run.source, Exception):
        assert len(rows) == 1
        assert charged <= max(50, rows[0].held_tokens)
        if run.client.ended and run.variant.pieces in (WHOLE, STREAM):
            assert charged == 50  # all of it was delivered: that, and once
    else:
        assert charged == 0
    if isinstance(run.source, ScriptedAnswer):
        assert run.source.closed <= 1
    await check_key(run, has_tried, charged)
    assert rig.redis.connections_lost == 0


async def check_key(run: Run, has_tried: bool, charged: int) -> None:
    """A key is never left taken; what was charged at the call's end stands under it. But for one
    moment of an answer that is no stream: charged, and not given out yet."""
    client = run.rig.redis.client
    stands = [decode_remembered(await client.get(name)) for name in await client.keys("qg:*:i:*")]
    assert all(each.state != "running" for each in stands)
    if charged == 0 or not has_tried or run.call.idempotency_key is None:
        assert stands == []
    elif run.variant.is_stream or run.client.head is not None:
        assert len(stands) == 1


async def check_second(run: Run) -> None:
    """The next call gets its own answer, under its own id, and pays for that."""
    rig = run.rig
    before = await rig.account()
    rig.store.troubles.clear()
    rig.upstream.answers[:] = [ScriptedAnswer([SECOND])]
    client, call = RecordedAnswer(), rig.call(KEYS[0])
    try:
        await rig.exchange.run(call, client)
    except Refused:
        assert run.variant.prepare is _use_up
        return
    assert client.body == SECOND
    assert client.head is not None
    assert (client.head.rid, client.head.charged_tokens) == (call.rid, 15)
    after = await rig.account()
    assert after.settled_tokens - before.settled_tokens == 15
    assert after.held_tokens == 0
    assert rig.redis.connections_lost == 0


@pytest.mark.parametrize("moment", ["while it waits", "as it comes"])
@pytest.mark.parametrize(
    ("name", "is_keyed"),
    [*((name, False) for name in VARIANTS), *((name, True) for name in WITH_A_KEY)],
)
async def test_a_call_cancelled_at_any_await_ends_its_hold_once(
    name: str, is_keyed: bool, moment: Moment, record_property: Any
) -> None:
    variant, at = VARIANTS[name], 0
    while True:
        at += 1
        async with flow_rig() as rig:
            run = await begun(rig, variant, is_keyed)
            stepped = Stepped(run.once(), at, moment)
            was_cancelled = await stepped.run()
            await check(run)
            await check_second(run)
        if not was_cancelled:
            break
    record_property("awaits", at - 1)
    print(f"{name}, {moment}: {at - 1} awaits")
    assert at - 1 >= variant.awaits_least
