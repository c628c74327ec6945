"""A stream on its way: read from upstream, observed event by event, written to the client.

Whoever leaves first, the hold ends once: on the usage that upstream reports, else on what was
counted here. A client that leaves does not stop the reading (within bounds), because the usage
comes last; its settlement leaves before the last bytes of the answer do.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.core.event import Outcome, Quality
from gateway.core.hold import Ending, Hold
from gateway.core.inference.observed_stream import ObservedStream
from gateway.core.inference.request import Closing, InferenceRequest
from gateway.core.refusal import Case
from gateway.core.sse import SseTooLarge
from gateway.flow.estimate import Estimator
from gateway.flow.open_holds import OpenHold
from gateway.flow.settlements import Settlements
from gateway.flow.terms import Terms
from gateway.ports.answer import Answer, AnswerHead, ClientGone
from gateway.ports.upstream import (
    UpstreamAnswer,
    UpstreamBroke,
    UpstreamCutOff,
    UpstreamSilent,
)

_BROKEN = (UpstreamBroke, UpstreamSilent, SseTooLarge)


class Drains:
    """How many streams are being read on for clients that left; at most `drains_max`."""

    def __init__(self, drains_max: int) -> None:
        self.drains_max = drains_max
        self._taken = 0

    def take(self) -> bool:
        """A place to drain in, to be given back; False when all are taken."""
        if self._taken >= self.drains_max:
            return False
        self._taken += 1
        return True

    def give_back(self) -> None:
        """The place is free again."""
        self._taken -= 1


@dataclass(frozen=True, slots=True)
class RelayServices:
    """What ends a call: who counts, who settles, how long to read on."""

    settlements: Settlements
    estimator: Estimator
    drains: Drains
    terms: Terms


class Relay:
    """One stream. Call `run` once; afterwards the hold is settled, whatever happened."""

    def __init__(
        self,
        request: InferenceRequest,
        held: tuple[Hold, OpenHold],
        source: UpstreamAnswer,
        services: RelayServices,
    ) -> None:
        self._request = request
        self._hold, self._entry = held
        self._source = source
        self._services = services
        self._stream = ObservedStream(request, services.estimator.counter(self._hold.model))
        self._settled = False
        self._is_whole = False

    async def run(self, answer: Answer, head: AnswerHead) -> None:
        """Relay to the end. Raises nothing that belongs to the client or the upstream."""
        self._entry.progress = self._stream.written_tokens
        outcome: Outcome = "done"
        relayed_tokens: int | None = None
        try:
            await answer.begin(head)
            await self._relay(answer)
        except ClientGone:
            outcome, relayed_tokens = "client_gone", self._stream.written_tokens()
            await self._drain(answer)
        finally:
            await self._settle(outcome, relayed_tokens)
            if self._is_whole:
                answer.came_whole()

    async def _relay(self, answer: Answer) -> None:
        stream, entry = self._stream, self._entry
        held_back = b""  # what ends the stream follows its settlement

        def take(data: bytes) -> bool:
            nonlocal held_back
            visible = stream.feed(data)
            if stream.is_done or entry.over:
                held_back = visible
                return False
            return not visible or answer.push(visible)

        try:
            while not await self._source.pour(take):
                if stream.is_done:
                    await self._settle_whole()
                await _write(answer, held_back)
                if entry.over and not stream.is_done:
                    await self._settle_whole()
                    await _write(answer, self._closing_events())
                    break
            else:
                rest = stream.finish()
                await self._settle_whole()
                await _write(answer, rest)
        except _BROKEN as error:
            await self._settle("expired" if isinstance(error, UpstreamCutOff) else "upstream_error")
            await _write(answer, self._broken_event(error))
        await answer.end()

    async def _drain(self, answer: Answer) -> None:
        """Read on to the end, where the usage is, within the bounds of the configuration. Where it
        gives no time for that, not even what has arrived is read."""
        drain_s = self._services.terms.drain_s
        if self._settled or not drain_s or not self._services.drains.take():
            return
        stream, entry = self._stream, self._entry

        def take(data: bytes) -> bool:
            answer.missed(stream.feed(data))
            return not (stream.is_done or entry.over)

        try:
            async with asyncio.timeout(drain_s):
                if await self._source.pour(take):
                    answer.missed(stream.finish())
            # Without usage only what was relayed is charged, so the rest is not to be had later.
            self._is_whole = stream.usage is not None and not (entry.over or stream.has_error)
        except (TimeoutError, *_BROKEN):
            return  # what was relayed is charged
        finally:
            self._services.drains.give_back()

    def _closing_events(self) -> bytes:
        stream, hold = self._stream, self._hold
        return self._request.closing_events(
            Closing(hold.rid, stream.answer_id, self._request.model, hold.choices, stream.events)
        )

    def _broken_event(self, error: Exception) -> bytes:
        if isinstance(error, UpstreamCutOff):
            case, who = Case.SHUTTING_DOWN, "This gateway shuts down"
        elif isinstance(error, UpstreamSilent):
            case, who = Case.UPSTREAM_TIMEOUT, "The model's service went silent"
        else:
            case, who = Case.UPSTREAM_UNAVAILABLE, "The model's service broke off"
        message = f"{who} in the middle of the answer."
        return self._request.broken_event(case, message, self._stream.events)

    async def _settle_whole(self) -> None:
        """The stream has come to its end."""
        await self._settle("done")
        self._is_whole = not self._stream.has_error

    async def _settle(self, outcome: Outcome, relayed_tokens: int | None = None) -> None:
        """End the hold, once. Without usage, the prompt and what was relayed are charged."""
        if self._settled:
            return
        if self._stream.has_error:
            outcome = "upstream_error"
        usage = self._stream.usage
        quality: Quality = "measured"
        if usage is None:
            if relayed_tokens is None:
                relayed_tokens = self._stream.written_tokens()
            estimator = self._services.estimator
            usage = await estimator.usage_of(self._hold, self._request, relayed_tokens)
            quality = "estimated" if outcome == "done" else "partial"
        self._settled = True  # not before: cancelled while it counts, it is asked to settle again
        await self._services.settlements.settle(
            self._hold,
            Ending(
                usage=usage,
                quality=quality,
                outcome=outcome,
                status=self._source.head.status,
                service_tier=self._stream.service_tier,
                upstream_id=self._source.head.upstream_id,
            ),
        )


async def _write(answer: Answer, data: bytes) -> None:
    """Send a piece, and wait for a client that lags behind."""
    if not (data and answer.push(data)):
        await answer.caught_up()
