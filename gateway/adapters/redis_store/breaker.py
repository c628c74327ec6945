"""A breaker before the script calls: a Redis that does not answer is not waited for each time.

Three calls in a row without a reply open it, or half of twenty within a second. While it is open
every call fails at once, unsent, and one task asks from time to time; the first answer closes it.
What the server refuses, for want of memory or because the call is wrong, is an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.adapters.redis_store.calls import Args, Calls, Keys, NoReply, Read, T
from gateway.adapters.redis_store.scripts import Script
from gateway.ports.quota_store import StoreNotAsked, StoreRejected, StoreUnavailable
from gateway.ports.tasks import spawn

IN_A_ROW = 3
CALLS_LEAST, WITHIN_S = 20, 1.0
# Half to one and a half times this, so that many gateways do not ask at the same moment.
PROBE_EVERY_S = 1.0
_log = logging.getLogger("gateway.redis")


@dataclass(frozen=True, slots=True)
class Chances:
    """Time and chance: `now_s` never goes back, `random` is from 0 to 1."""

    now_s: Callable[[], float]
    random: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Breaker:
    """Fulfils calls.Calls around another; `told` hears True when it opens, False when it closes.

    Time is asked for at failures only, so a second begins with one.
    """

    def __init__(self, calls: Calls, told: Callable[[bool], None], chances: Chances) -> None:
        self._calls = calls
        self._told = told
        self._chances = chances
        self._probing: asyncio.Task[None] | None = None
        self._in_a_row = self._answered = self._failed = 0
        self._began_s = float("-inf")

    # `run` and `command` bring the coroutine itself: one layer less for every request.
    def run(
        self,
        script: Script,
        keys: Keys,
        args: Args,
        rid: str = "",
        read: Read[Any] | None = None,
    ) -> Coroutine[Any, Any, Any]:
        return self._counted(self._calls.run, script, keys, args, rid, read)

    async def send(
        self, script: Script, keys: Keys, args: Args, rid: str, read: Read[T]
    ) -> asyncio.Future[T]:
        if self._probing is not None:
            raise _refusal()
        try:
            reply = await self._calls.send(script, keys, args, rid, read)
        except NoReply:
            self._no_reply()
            raise
        reply.add_done_callback(self._ended)
        return reply

    def command(self, *parts: str | bytes | int) -> Coroutine[Any, Any, Any]:
        return self._counted(self._calls.command, *parts)

    async def commands(self, requests: Sequence[Args]) -> list[Any]:
        replies: list[Any] = await self._counted(self._calls.commands, requests)
        return replies

    async def aclose(self) -> None:
        probing = self._probing
        if probing is not None:
            probing.cancel()
            await asyncio.wait([probing])
        await self._calls.aclose()

    async def _counted(self, call: Callable[..., Awaitable[Any]], *given: Any) -> Any:
        if self._probing is not None:
            raise _refusal()
        try:
            reply = await call(*given)
        except NoReply:
            self._no_reply()
            raise
        except (StoreRejected, StoreUnavailable):
            self._in_a_row = 0
            raise
        self._in_a_row = 0
        self._answered += 1
        return reply

    def _ended(self, reply: asyncio.Future[Any]) -> None:
        if reply.cancelled():
            return
        if isinstance(reply.exception(), NoReply):
            self._no_reply()
        else:
            self._in_a_row = 0
            self._answered += 1

    def _no_reply(self) -> None:
        if self._probing is not None:
            return  # of a call that was under way when it opened
        now_s = self._chances.now_s()
        if now_s - self._began_s > WITHIN_S:
            self._began_s, self._answered, self._failed = now_s, 0, 0
        self._in_a_row += 1
        self._failed += 1
        calls = self._answered + self._failed
        if self._in_a_row >= IN_A_ROW or (calls >= CALLS_LEAST and 2 * self._failed >= calls):
            _log.warning("Redis does not answer: calls fail at once until it does")
            self._probing = spawn(self._probe(), "probe Redis")
            self._told(True)

    async def _probe(self) -> None:
        try:
            while True:
                await self._chances.sleep(PROBE_EVERY_S * (0.5 + self._chances.random()))
                if await self._answers():
                    return
        finally:  # whatever ends the probing lets calls through again: they will tell
            self._in_a_row, self._began_s = 0, float("-inf")
            self._probing = None
            _log.warning("calls to Redis go on")
            self._told(False)

    async def _answers(self) -> bool:
        try:
            await self._calls.command("PING")
        except NoReply:
            return False
        except (StoreRejected, StoreUnavailable):
            return True  # a refusal is an answer
        return True


def _refusal() -> StoreNotAsked:
    return StoreNotAsked("Redis does not answer; trying again")
