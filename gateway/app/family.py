"""The processes of one `serve`: proxy and jobs, started, kept going, and ended in order.

Imports little, so that the children can load what they need while the supervisor loads the rest.
What they serve, and on which stores, is not known here.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from gateway.app.children import Child, ChildFailed
from gateway.ports.tasks import spawn

_PROXY_STOP_S, _OTHERS_STOP_S = 30.0, 10.0
_START_AGAIN_S = 1.0
_log = logging.getLogger("gateway.serve")


class Family:
    """The children of one supervisor. `stop` may come at any time, and twice."""

    def __init__(self, config: Path, jobs: bool) -> None:
        kinds = ("proxy", "jobs") if jobs else ("proxy",)
        self.members = [Child(kind, (f"{kind}-process", "--config", str(config))) for kind in kinds]
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all; they load what they need, and wait for the stores."""
        for child in self.members:
            await child.start()

    async def places(self, word: str) -> dict[str, str]:
        """The stores are up: let all go on, and keep them going. The places they listen on.

        `word` is the stand-in's address, or empty. ChildFailed when one ends instead.
        """
        places: dict[str, str] = {}
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
