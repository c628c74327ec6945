"""The network between a process and a store: calls that are late, lost, doubled or never answered.

A call that was sent runs at the store even if its sender is killed or has given up waiting; one
that did not come back within its deadline is StoreUnavailable (or LedgerUnavailable) to its sender,
whatever became of it. It refuses to know what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.adapters.redis_store.server_watch import ServerWatch
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.quota_store import StoreUnavailable
from tests.simulation.loop import PROCESS, VirtualLoop

_T = TypeVar("_T")
Future = asyncio.Future[Any]
_USUAL_S = 0.002
_SLOW_S = 0.5
DOUBLE_WITHIN_S = 0.7


@dataclass
class Weather:
    """How calls to one store fare now, in shares of 1; `away`: nothing listens there."""

    lost: float = 0.0
    reply_lost: float = 0.0
    doubled: float = 0.0
    slow: float = 0.0
    away: bool = False


@dataclass
class Place:
    """One store as the network sees it. A new `server_id` breaks every connection to the old."""

    error: type[StoreUnavailable] | type[LedgerUnavailable]
    server_id: str
    weather: Weather = field(default_factory=Weather)
    frozen: bool = False
    waiting: list[Command] = field(default_factory=list)


@dataclass
class Air:
    """What all calls of one world share. Chance and time are the world's."""

    loop: VirtualLoop
    chance: Random
    trace: list[tuple[Any, ...]] = field(default_factory=list)
    over: bool = False

    def note(self, *what: Any) -> None:
        """A line of the trace; put into words only if somebody wants to read it."""
        self.trace.append((self.loop.time(), *what))


class Command:
    """One call on its way."""

    __slots__ = (
        "_about",
        "_fate",
        "_future",
        "_late_s",
        "_link",
        "_name",
        "_run",
        "_sent_s",
        "_server_id",
    )

    def __init__(
        self, link: Link, about: tuple[str, str], run: Callable[[], Any], future: Future
    ) -> None:
        self._link, self._run, self._future = link, run, future
        self._name, self._about = about
        self._server_id = link.place.server_id
        air, weather = link.air, link.place.weather
        self._sent_s = air.loop.time()
        chance = air.chance.random
        self._fate = _fate(weather, chance())
        delay_s = chance() * _USUAL_S
        if weather.slow and chance() < weather.slow:
            delay_s = chance() * _SLOW_S
        self._late_s = 0.0 if chance() < 0.5 else chance() * _USUAL_S
        if self._fate == "lost":
            air.loop.befall(min(chance(), link.deadline_s), self._fail, "lost")
            return
        if delay_s > link.deadline_s:
            air.loop.befall(link.deadline_s, self._fail, "late")
        air.loop.befall(delay_s, self._arrive)

    def _arrive(self) -> None:
        link = self._link
        if link.place.server_id != self._server_id:
            self._fail("connection reset")
        elif link.place.frozen:
            link.place.waiting.append(self)
            passed_s = link.air.loop.time() - self._sent_s
            link.air.loop.befall(max(0.0, link.deadline_s - passed_s), self._fail, "frozen")
        else:
            self.happen()

    def happen(self) -> None:
        """The store runs the call."""
        link, air = self._link, self._link.air
        if link.place.server_id != self._server_id:
            self._fail("connection reset")
            return
        result = self._run()
        air.note(link.who, self._name, self._about, result, self._fate)
        if self._fate == "doubled":
            self._fate = ""
            if self._name == "reserve":  # its caller asks again only before it has an answer
                self._run()
            else:
                air.loop.befall(air.chance.random() * DOUBLE_WITHIN_S, self._happen_again)
        if self._fate == "reply lost":
            air.loop.befall(min(air.chance.random(), link.deadline_s), self._fail, "reply lost")
        elif self._late_s:
            air.loop.befall(self._late_s, self._answer, result)
        else:
            self._answer(result)

    def _happen_again(self) -> None:
        place = self._link.place
        if place.server_id == self._server_id and not place.frozen:
            self._link.air.note(self._link.who, self._name, self._about, "again", self._run())

    def _answer(self, result: Any) -> None:
        if self._future.done():
            return
        if isinstance(result, Exception):
            self._future.set_exception(result)
        else:
            self._future.set_result(result)

    def _fail(self, why: str) -> None:
        if not self._future.done():
            self._link.air.note(self._link.who, self._name, self._about, "failed", why)
            self._future.set_exception(self._link.place.error(f"{self._name}: {why}"))


class Link:
    """The connection of one process to one store. With a `watch`, as the product's traffic has it,
    nothing is sent to a server that nobody has accepted."""

    def __init__(
        self, air: Air, place: Place, deadline_s: float, watch: ServerWatch | None = None
    ) -> None:
        self.air, self.place, self.deadline_s = air, place, deadline_s
        self._watch = watch
        self._connected = "" if watch else None
        process = PROCESS.get()
        self.who = process.name if process else "world"

    async def call(self, name: str, run: Callable[[], _T], about: str = "") -> _T:
        """The store's answer to `run`, which happens there at once or not at all."""
        return await (await self.send(name, run, about))

    async def send(self, name: str, run: Callable[[], _T], about: str = "") -> asyncio.Future[_T]:
        """Returns once the call is on its way."""
        if self.air.over:
            raise asyncio.CancelledError
        if self._connected is not None and self._connected != self.place.server_id:
            await self._connect()
        if self.place.weather.away:
            raise self.place.error(f"{name}: nobody listens")
        future: asyncio.Future[_T] = self.air.loop.create_future()
        Command(self, (name, about), run, future)
        return future

    async def _connect(self) -> None:
        if self._watch is None:
            return
        greeting = _Greeting(self)
        try:
            async with asyncio.timeout(self.deadline_s):
                await self._watch.greet(greeting)
        except TimeoutError:
            raise self.place.error("no connection in time") from None
        except RedisConnectionError as error:
            raise self.place.error(str(error)) from error
        self._connected = greeting.server_id


class _Greeting:
    """A new connection, as `ServerWatch` asks it who the server is."""

    def __init__(self, link: Link) -> None:
        self._direct = Link(link.air, link.place, link.deadline_s)
        self.server_id = ""

    async def on_connect(self) -> None: ...

    async def send_command(self, *parts: str) -> None: ...

    async def read_response(self) -> str:
        place = self._direct.place
        self.server_id = await self._direct.call("greet", lambda: place.server_id)
        return f"run_id:{self.server_id}\r\nrole:master"


def _fate(weather: Weather, drawn: float) -> str:
    for share, fate in (
        (weather.lost, "lost"),
        (weather.reply_lost, "reply lost"),
        (weather.doubled, "doubled"),
    ):
        if drawn < share:
            return fate
        drawn -= share
    return ""
