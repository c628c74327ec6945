"""Telling people: what happened is dealt out to addresses, and each is tried until it is over.

One gateway of all sends, under a lock. A delivery is put off before it is tried and ended after it
was taken over, so a process that is killed in between leaves at worst one letter that goes out
again under the same key. An address that is refused ends its own delivery only; while nothing can
be sent at all, one is tried now and then. What is about a period that is over is dropped.
"""

from __future__ import annotations

import logging

from gateway.jobs.letters import Letters
from gateway.ports.clock import Clock
from gateway.ports.deliveries import Deliveries, Delivery, Ending
from gateway.ports.mail import Mail, MailUnavailable, NotNow, Undeliverable
from gateway.ports.metrics import JobsMetrics

_REST_S, _NOT_LEADER_REST_S, _MAIL_AWAY_REST_S = 1.0, 5.0, 5.0
_FIND_EVERY_S = 60.0
_NOTICES_MAX, _LETTERS_MAX = 500, 100  # a round
_TRYING_S = 60  # longer than one attempt takes
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5, 900
_TRIED_FOR_MS = 48 * 3600 * 1000
_log = logging.getLogger("gateway.tell")


class Tell:
    """Fulfils jobs.service.Step."""

    name = "tell"

    def __init__(
        self,
        deliveries: Deliveries,
        mail: Mail,
        letters: Letters,
        metrics: JobsMetrics,
        clock: Clock,
    ) -> None:
        self._deliveries = deliveries
        self._mail = mail
        self._letters = letters
        self._metrics = metrics
        self._clock = clock
        self._found_s: float | None = None
        self._is_away = False

    async def step(self) -> float:
        """Find news, deal it out, and send what is due."""
        if not await self._deliveries.lock():
            return _NOT_LEADER_REST_S
        now_s = self._clock.monotonic_s()
        if self._found_s is None or now_s - self._found_s >= _FIND_EVERY_S:
            await self._deliveries.find()
            self._found_s = now_s
        await self._deliveries.deal(_NOTICES_MAX)
        for _ in range(_LETTERS_MAX):
            delivery = await self._deliveries.take(_TRYING_S)
            if delivery is None:
                await self._mail.rest()
                return _REST_S
            if not await self._deliver(delivery):
                await self._mail.rest()
                return _MAIL_AWAY_REST_S
        return 0.0

    async def _deliver(self, delivery: Delivery) -> bool:
        """Whether the next one may be tried at once."""
        if not delivery.is_wanted or self._letters.is_stale(delivery):
            await self._end(delivery, "dropped", None)
            return True
        try:
            await self._mail.send(self._letters.of(delivery))
        except Undeliverable as error:
            await self._end(delivery, "dead", str(error))
        except NotNow as error:
            await self._later(delivery, str(error))
        except MailUnavailable as error:
            if not self._is_away:
                _log.warning("no mail can be sent: %s", error)
            self._is_away = True
            await self._later(delivery, str(error))
            return False
        else:
            if self._is_away:
                _log.warning("mail can be sent again")
            self._is_away = False
            await self._end(delivery, "sent", None)
        return True

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
            _log.warning("notification %d is dead: %s", delivery.notification_id, error)
