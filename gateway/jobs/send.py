"""Sends what is due one way: by mail, to one webhook, to one hook of operators.

Each way has a `Send` of its own, so one that is away holds up no other. A delivery is put off
before it is tried and ended after it was taken over, so a process that is killed in between leaves
at worst one message that goes out again under the same key. Two that send the same way take
different deliveries. What is refused ends alone; while nothing can be left, one is tried now and
then. What is about a period that is over is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.jobs.news import is_stale
from gateway.ports.carrying import CarrierAway, NotNow, Undeliverable
from gateway.ports.clock import Clock
from gateway.ports.deliveries import Deliveries, Delivery, Ending, Way
from gateway.ports.metrics import JobsMetrics

_REST_S, _AWAY_REST_S = 1.0, 5.0
_A_ROUND_MAX = 100
_TRYING_S = 60  # longer than one attempt takes
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5, 900
_TRIED_FOR_MS = 48 * 3600 * 1000
_log = logging.getLogger("gateway.send")


class Carrier(Protocol):
    """Turns deliveries of one way into messages, and has them carried."""

    @property
    def way(self) -> Way: ...

    async def send(self, delivery: Delivery) -> None:
        """Returns once it is taken over. Undeliverable, NotNow, CarrierAway: it was not."""
        ...

    async def rest(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Sent:
    """What was taken over, and when (Unix milliseconds)."""

    kind: str
    at_ms: int


class Send:
    """Fulfils jobs.service.Step. `last` is what this process sent last; `away` says why nothing can
    be sent at present, None while it can, as far as is known."""

    def __init__(
        self,
        deliveries: Deliveries,
        carrier: Carrier,
        metrics: JobsMetrics,
        clock: Clock,
        leads: Callable[[], bool],
    ) -> None:
        """`leads`: whether this process is the one that sends."""
        self._deliveries = deliveries
        self._carrier = carrier
        self._metrics = metrics
        self._clock = clock
        self._leads = leads
        self.way = carrier.way
        self.last: Sent | None = None
        self.away: str | None = None
        self._show()

    @property
    def name(self) -> str:
        """For the log: "send mail"; hooks with their place."""
        return f"send {self.way.name} {self.way.address}".rstrip()

    async def step(self) -> float:
        """Send what is due."""
        leads = self._leads()
        if not leads:
            self.away = None  # what does not try does not know
        self._show()
        if not leads:
            return _REST_S
        try:
            for _ in range(_A_ROUND_MAX):
                delivery = await self._deliveries.take(self.way, _TRYING_S)
                if delivery is None:
                    return _REST_S
                if not await self._deliver(delivery):
                    return _AWAY_REST_S
        finally:
            await self._carrier.rest()
        return 0.0

    async def _deliver(self, delivery: Delivery) -> bool:
        """Whether the next one may be tried at once."""
        if not delivery.is_wanted or is_stale(delivery):
            await self._end(delivery, "dropped", None)
            return True
        try:
            await self._carrier.send(delivery)
        except Undeliverable as error:
            self._found(None)
            await self._end(delivery, "dead", str(error))
        except NotNow as error:
            self._found(None)
            await self._later(delivery, str(error))
        except CarrierAway as error:
            self._found(str(error))
            await self._later(delivery, str(error))
            return False
        else:
            self._found(None)
            self.last = Sent(delivery.kind, self._clock.now_ms())
            await self._end(delivery, "sent", None)
        return True

    def _found(self, away: str | None) -> None:
        if away and not self.away:
            _log.warning("%s: nothing can be sent: %s", self.name, away)
        elif self.away and not away:
            _log.warning("%s: it can be sent again", self.name)
        self.away = away
        self._show()

    def _show(self) -> None:
        self._metrics.way_away(self.way.name, self.way.address, self.away is not None)

    async def _later(self, delivery: Delivery, error: str) -> None:
        if delivery.now_ms - delivery.at_ms >= _TRIED_FOR_MS:
            await self._end(delivery, "dead", error)
            return
        pause_s = min(_FIRST_PAUSE_S << min(delivery.attempts - 1, 10), _LONGEST_PAUSE_S)
        await self._deliveries.put_off(delivery, pause_s, error)

    async def _end(self, delivery: Delivery, state: Ending, error: str | None) -> None:
        await self._deliveries.end(delivery, state, error)
        self._metrics.notified(delivery.kind, state)
        if state == "dead":
            _log.warning(
                "%s: notification %d is dead: %s", self.name, delivery.notification_id, error
            )
