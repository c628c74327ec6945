"""The ops port of a `serve`: what its processes say of themselves, taken together.

Each is asked on its inside socket, every time; nothing is asked in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.app.arrangement import Arrangement
from gateway.app.inside import Question, ask_inside
from gateway.web.configuration import PATH as CONFIGURATION
from gateway.web.configuration import show_configuration
from gateway.web.ops import Readiness, ops_app
from gateway.web.servers import listen_app

if TYPE_CHECKING:
    from gateway.adapters.metrics_merge import MergedMetrics

_ASK_S = 2.0
_READY_S = 1.0  # a process that needs longer to say so is not ready


class Ops:
    """`is_stopping`: not ready any more, whatever the processes say."""

    def __init__(self, arrangement: Arrangement, own: Callable[[], str]) -> None:
        """`own`: the metrics of the supervisor itself."""
        self._own = own
        self._life = "# life of the supervisor\n"
        self._settings = arrangement.settings
        self._names = arrangement.names
        self.is_stopping = False

    async def listen(self, stack: AsyncExitStack) -> str:
        """Answer operators until the stack is closed; where. AddressTaken."""
        address = self._settings.listen.ops
        app = ops_app(self.metrics, self.alive, self.ready)
        show_configuration(app, self.configuration)
        listener = await listen_app(app, address.host, address.port)
        stack.push_async_callback(listener.close)
        return listener.url(address.host)

    @cached_property
    def _merged(self) -> MergedMetrics:
        # Imported at the first scrape: at the start there is nothing to merge yet.
        from gateway.adapters.metrics_merge import MergedMetrics

        return MergedMetrics()

    async def metrics(self) -> str:
        """All processes' metrics as one text."""
        answers = await self._ask_all(Question("/metrics", _ASK_S))
        texts: dict[str, str | None] = {
            name: said if status == HTTPStatus.OK else None
            for name, (status, said) in answers.items()
        }
        return self._merged.of({"supervisor": self._life + self._own()} | texts)

    async def alive(self) -> Mapping[str, str]:
        """The supervisor itself answers, so it lives."""
        return {"supervisor": "ok"}

    async def ready(self) -> Readiness:
        """Each process: ok, or why not; one that does not answer in time is not."""
        answers = await self._ask_all(Question("/readyz", _READY_S))
        checks, about = {}, dict[str, Any]()
        for name, (status, text) in answers.items():
            said = _said(text)
            checks[name] = "ok" if status == HTTPStatus.OK else said.trouble or text
            about.update(said.about)
        if self.is_stopping:
            checks["supervisor"] = "shutting down"
        return Readiness(checks, about)

    async def configuration(self) -> Mapping[str, Any]:
        """Which configuration each process has; null where it does not answer."""
        answers = await self._ask_all(Question(CONFIGURATION, _READY_S))
        return {
            name: msgspec.json.decode(said) if status == HTTPStatus.OK else None
            for name, (status, said) in answers.items()
        }

    async def _ask_all(self, question: Question) -> dict[str, tuple[int, str]]:
        answers = await asyncio.gather(
            *(ask_inside(self._settings, name, question) for name in self._names)
        )
        return dict(zip(self._names, answers, strict=True))


def _said(text: str) -> _Said:
    """What a process says of its checks; nothing where it gave no answer."""
    try:
        return msgspec.json.decode(text, type=_Said)
    except msgspec.MsgspecError:
        return _Said()


class _Said(msgspec.Struct):
    checks: dict[str, str] = {}
    about: dict[str, Any] = {}

    @property
    def trouble(self) -> str:
        """All that is not in order, in one line."""
        named = self.checks.items()
        return "; ".join(f"{name}: {state}" for name, state in named if state != "ok")
