"""When the breaker opens and closes, before calls that end as the test says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.adapters.redis_store.breaker import CALLS_LEAST, IN_A_ROW, WITHIN_S, Breaker, Chances
from gateway.adapters.redis_store.calls import NoReply
from gateway.adapters.redis_store.scripts import Script
from gateway.ports.quota_store import StoreNotAsked, StoreRejected, StoreUnavailable

SCRIPT = Script("echo", "", "")
OK = "ok"


class Scripted:
    """Fulfils calls.Calls: each call ends as `outcome` says then."""

    def __init__(self) -> None:
        self.outcome: Any = OK
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()

    def _end(self, kind: str) -> Any:
        self.asked.append(kind)
        self.was_asked.set()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def run(self, *_: Any) -> Any:
        return self._end("run")

    async def send(self, *_: Any) -> asyncio.Future[Any]:
        self.asked.append("send")
        reply = asyncio.get_running_loop().create_future()
        if isinstance(self.outcome, Exception):
            reply.set_exception(self.outcome)
        else:
            reply.set_result(self.outcome)
        return reply

    async def command(self, *_: Any) -> Any:
        return self._end("command")

    async def commands(self, _: Any) -> Any:
        return self._end("commands")

    async def aclose(self) -> None:
        self.asked.append("aclose")


class Rig:
    """A breaker whose clock stands still and whose probes wait for `may_probe`."""

    def __init__(self) -> None:
        self.calls, self.told = Scripted(), list[bool]()
        self.now_s = 100.0
        self.may_probe, self.pauses = asyncio.Semaphore(0), list[float]()
        chances = Chances(lambda: self.now_s, lambda: 0.5, self._sleep)
        self.breaker = Breaker(self.calls, self.told.append, chances)

    async def _sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        await self.may_probe.acquire()

    async def ask(self, kind: str, outcome: Any = OK) -> Any:
        self.calls.outcome = outcome
        if kind == "send":
            reply = await self.breaker.send(SCRIPT, (), (), "rid", lambda reply: reply)
            await asyncio.wait([reply])
            await asyncio.sleep(0)  # its callbacks
            return reply.result()
        if kind == "run":
            return await self.breaker.run(SCRIPT, (), (), "rid")
        return await (self.breaker.command("X") if kind == "command" else self.breaker.commands([]))

    async def fail(self, kind: str = "run", error: Exception | None = None) -> None:
        with pytest.raises((StoreUnavailable, StoreRejected)):
            await self.ask(kind, error or NoReply("TimeoutError: "))

    async def probed(self, outcome: Any) -> None:
        """One probe, which ends so."""
        self.calls.outcome = outcome
        self.calls.was_asked.clear()
        self.may_probe.release()
        await self.calls.was_asked.wait()
        await asyncio.sleep(0)


KINDS = ["run", "send", "command", "commands"]


@pytest.mark.parametrize("kind", KINDS)
async def test_three_without_a_reply_in_a_row_open_it_and_an_answer_between_them_does_not(
    kind: str,
) -> None:
    rig = Rig()
    for _ in range(IN_A_ROW - 1):
        await rig.fail(kind)
    assert await rig.ask(kind) == OK
    for _ in range(IN_A_ROW - 1):
        await rig.fail(kind)
    assert rig.told == []
    await rig.fail(kind)
    assert rig.told == [True]
    asked = len(rig.calls.asked)
    for other in KINDS:
        with pytest.raises(StoreNotAsked, match="trying again"):
            await rig.ask(other)
    assert len(rig.calls.asked) == asked  # nothing was sent
    await rig.breaker.aclose()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [StoreRejected("wrong"), StoreUnavailable("OOM")])
async def test_a_refusal_is_an_answer(kind: str, error: Exception) -> None:
    rig = Rig()
    for _ in range(3):
        await rig.fail(kind)
        await rig.fail(kind)
        await rig.fail(kind, error)
    assert rig.told == []


async def test_half_of_so_many_within_a_second_open_it() -> None:
    rig = Rig()
    for _ in range(CALLS_LEAST // 2 - 1):
        await rig.fail()
        await rig.ask("run")
    assert rig.told == []
    await rig.fail()
    await rig.ask("run")
    await rig.fail()
    assert rig.told == [True]
    await rig.breaker.aclose()


async def test_half_of_so_many_in_a_longer_time_do_not() -> None:
    rig = Rig()
    for _ in range(2 * CALLS_LEAST):
        await rig.fail()
        await rig.ask("run")
        rig.now_s += WITHIN_S / 4
    assert rig.told == []


async def test_one_task_asks_until_there_is_an_answer() -> None:
    rig = Rig()
    for _ in range(IN_A_ROW):
        await rig.fail()
    rig.calls.asked.clear()
    await rig.probed(NoReply("still"))
    await rig.probed(NoReply("still"))
    assert (rig.told, rig.calls.asked) == ([True], ["command"] * 2)
    await rig.probed(OK)
    assert rig.told == [True, False]
    assert rig.pauses == [0.5] * 3
    assert await rig.ask("run") == OK
    for _ in range(IN_A_ROW - 1):  # it begins to count anew
        await rig.fail()
    assert rig.told == [True, False]


@pytest.mark.parametrize(
    "error", [StoreRejected("wrong"), StoreUnavailable("OOM"), KeyError("bug")]
)
async def test_whatever_else_ends_the_probing_lets_calls_through(error: Exception) -> None:
    rig = Rig()
    for _ in range(IN_A_ROW):
        await rig.fail()
    await rig.probed(error)
    assert rig.told == [True, False]
    assert await rig.ask("run") == OK
