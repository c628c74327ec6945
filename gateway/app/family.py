"""The processes of one `serve`: proxy, jobs, perhaps the stand-in; kept going, ended in order.

Imports little, so that the children can load what they need while the supervisor loads the rest.
What they serve, and on which stores, is not known here.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from gateway.app.children import Child, ChildFailed
from gateway.ports.tasks import spawn

_PROXY_STOP_S, _OTHERS_STOP_S = 30.0, 10.0
_START_AGAIN_S = 1.0
_log = logging.getLogger("gateway.serve")


@dataclass(frozen=True, slots=True)
class FamilyOptions:
    """`stand_in`: answer calls with the built-in stand-in instead of the configured upstreams.
    `jobs`: run the jobs process here."""

    config: Path
    stand_in: bool
    jobs: bool


class Family:
    """The children of one supervisor. `stop` may come at any time, and twice."""

    def __init__(self, options: FamilyOptions) -> None:
        kinds = ("proxy", "jobs") if options.jobs else ("proxy",)
        self.members = [
            Child(kind, (f"{kind}-process", "--config", str(options.config))) for kind in kinds
        ]
        self._stand_in: Child | None = None
        if options.stand_in:
            listen = ("mock-openai", "--listen", "127.0.0.1:0")
            self._stand_in = Child("stand-in", listen, waits_for_word=False)
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all; they load what they need, and wait for the stores."""
        for child in (*((self._stand_in,) if self._stand_in else ()), *self.members):
            await child.start()

    async def places(self) -> dict[str, str]:
        """The stores are up: let all go on, and keep them going. The places they listen on.

        ChildFailed when one ends instead.
        """
        places = {}
        word = ""
        if self._stand_in:
            word = (await self._stand_in.ready())["openai"]
            places["stand_in"] = word
        readies = await asyncio.gather(*(child.ready(word) for child in self.members))
        for child, ready in zip(self.members, readies, strict=True):
            places |= ready
            for place in ready.values():  # a child that starts again listens where it did
                child.arguments = (*child.arguments, "--port", place.rsplit(":", 1)[1])
            self._keepers.append(spawn(_keep(child, word), f"keep {child.name}"))
        return places

    async def stop(self) -> None:
        """The proxy first, so that the jobs can drain what its last calls settled."""
        for keeper in self._keepers:
            keeper.cancel()
        for child in self.members:
            await child.stop(_PROXY_STOP_S if child.name == "proxy" else _OTHERS_STOP_S)
        if self._stand_in:
            await self._stand_in.stop(_OTHERS_STOP_S)


async def _keep(child: Child, word: str) -> None:
    """Start a child again whenever it ends by itself, until cancelled."""
    while True:
        code = await child.ended()
        _log.error("the %s process ended with code %d and is started again", child.name, code)
        await asyncio.sleep(_START_AGAIN_S)
        try:
            await child.start()
            await child.ready(word)
        except ChildFailed as error:
            _log.error("%s", error)
