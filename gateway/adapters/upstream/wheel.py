"""One timer for all connections, in place of one for each call.

Once a turn every connection is asked to look at how long it has been quiet, in turns. What is
limited to N seconds is thus noticed after N to N + 1 of them. A process that was held up counts the
turns that it made, so its own lateness is never taken for a server's silence.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

from gateway.ports.upstream import UpstreamBroke, UpstreamCutOff

TURN_S = 1.0
# The event loop closes a connection in its next round, one with TLS a round later.
_CLOSING_ROUNDS = 5


class Watched(Protocol):
    """A connection that may have been quiet for too long."""

    def look(self) -> None:
        """See to it; called once a turn."""
        ...

    def break_off(self, trouble: UpstreamBroke) -> None:
        """Close at once."""
        ...


class Wheel:
    """`turn` is the present one. It runs by itself once `start` was called, or turned by hand."""

    def __init__(self) -> None:
        self.turn = 0
        self.watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Turn once a second from now on."""
        self._timer = asyncio.get_running_loop().call_later(TURN_S, self._run)

    async def stop(self) -> None:
        """Turn no more, and break off what is still watched."""
        if self._timer is not None:
            self._timer.cancel()
        for each in tuple(self.watched):
            each.break_off(UpstreamCutOff("the gateway is stopping"))
        for _ in range(_CLOSING_ROUNDS):
            if self.watched:
                await asyncio.sleep(0)

    def advance(self) -> None:
        """One turn."""
        self.turn += 1
        for each in tuple(self.watched):
            each.look()

    def _run(self) -> None:
        self.start()
        self.advance()


def turns(seconds: float) -> int:
    """How many turns later so many seconds have passed for certain."""
    return math.ceil(seconds / TURN_S) + 1
