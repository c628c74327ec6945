"""A stream on its way: read from upstream, observed event by event, written to the client.

Whoever leaves first, the hold ends once: on the usage that upstream reports, else on what was
counted here. A client that leaves does not stop the reading (within bounds), because the usage
comes last; its settlement leaves before the last bytes of the answer do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from gateway.core.answer import Usage
from gateway.core.event import Outcome, Quality
from gateway.core.hold import Ending
from gateway.core.observed_stream import ObservedStream
from gateway.core.sse import SseTooLarge
from gateway.flow.admit import Admitted
from gateway.flow.estimate import Estimator
from gateway.flow.open_holds import OpenHold
from gateway.flow.settlements import Settlements
from gateway.flow.stream_words import broken_event, closing_events
from gateway.flow.terms import Terms
from gateway.ports.answer import Answer, AnswerHead, ClientGone
from gateway.ports.upstream import UpstreamAnswer, UpstreamBroke, UpstreamSilent

_BROKEN = (UpstreamBroke, UpstreamSilent, SseTooLarge)


class Drains:
    """How many streams are being read on for clients that left; at most `drains_max`."""

    def __init__(self, drains_max: int) -> None:
        self._left = drains_max

    def take(self) -> bool:
        """A place to drain in, to be given back; False when all are taken."""
        if self._left == 0:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """The place is free again."""
        self._left += 1


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
        admitted: Admitted,
        entry: OpenHold,
        source: UpstreamAnswer,
        services: RelayServices,
        client_asked_usage: bool,
    ) -> None:
        self._hold = admitted.hold
        self._entry = entry
        self._source = source
        self._services = services
        self._stream = ObservedStream(
            client_asked_usage, services.estimator.counter(admitted.hold.model)
        )
        self._settled = False

    async def run(self, answer: Answer, head: AnswerHead) -> None:
        """Relay to the end. Raises nothing that belongs to the client or the upstream."""
        self._entry.progress = self._stream.written_tokens
        chunks = self._source.chunks()
        outcome: Outcome = "done"
        relayed_tokens: int | None = None
        try:
            await answer.begin(head)
            await self._relay(chunks, answer)
        except ClientGone:
            outcome, relayed_tokens = "client_gone", self._stream.written_tokens()
            await self._drain(chunks)
        finally:
            await self._settle(outcome, relayed_tokens)

    async def _relay(self, chunks: AsyncIterator[bytes], answer: Answer) -> None:
        try:
            async for data in chunks:
                visible = self._stream.feed(data)
                if self._stream.is_done:
                    await self._settle("done")
                if visible:
                    await answer.write(visible)
                if self._entry.over and not self._stream.is_done:
                    await self._settle("done")
                    await answer.write(closing_events(self._stream.completion_id, self._hold))
                    break
            else:
                rest = self._stream.finish()
                await self._settle("done")
                if rest:
                    await answer.write(rest)
        except _BROKEN as error:
            await self._settle("upstream_error")
            await answer.write(broken_event(error))
        await answer.end()

    async def _drain(self, chunks: AsyncIterator[bytes]) -> None:
        """Read on for the usage, for nobody, within the bounds of the configuration."""
        if self._settled or self._stream.usage or not self._services.drains.take():
            return
        try:
            async with asyncio.timeout(self._services.terms.drain_s):
                async for data in chunks:
                    self._stream.feed(data)
                    if self._stream.usage or self._entry.over:
                        return
        except (TimeoutError, *_BROKEN):
            return  # what was relayed is charged
        finally:
            self._services.drains.give_back()

    async def _settle(self, outcome: Outcome, relayed_tokens: int | None = None) -> None:
        """End the hold, once. Without usage, the prompt and what was relayed are charged."""
        if self._settled:
            return
        self._settled = True
        if self._stream.has_error:
            outcome = "upstream_error"
        usage = self._stream.usage
        quality: Quality = "measured"
        if usage is None:
            if relayed_tokens is None:
                relayed_tokens = self._stream.written_tokens()
            usage = Usage(self._hold.prompt_tokens, 0, relayed_tokens, 0)
            quality = "estimated" if outcome == "done" else "partial"
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
