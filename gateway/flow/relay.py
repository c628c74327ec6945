"""A stream on its way: read from upstream, observed event by event, written to the client.

Whoever leaves first, the hold ends once: on the usage that upstream reports, else on what was
counted here. A client that leaves does not stop the reading (within bounds), because the usage
comes last; its settlement leaves before the last bytes of the answer do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from gateway.core.answer import Chunk, Usage, believe, hide_chunk, read_chunk
from gateway.core.event import Outcome, Quality
from gateway.core.hold import Ending
from gateway.core.sse import SseEvent, SseReader, SseTooLarge
from gateway.flow.admit import Admitted
from gateway.flow.estimate import Estimator
from gateway.flow.open_holds import OpenHold
from gateway.flow.settlements import Settlements
from gateway.flow.stream_words import broken_event, closing_events
from gateway.flow.terms import Terms
from gateway.ports.answer import Answer, AnswerHead, ClientGone
from gateway.ports.upstream import UpstreamAnswer, UpstreamBroke, UpstreamSilent


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

    def __init__(self, admitted: Admitted, entry: OpenHold, asked_usage: bool) -> None:
        self._admitted = admitted
        self._entry = entry
        self._asked_usage = asked_usage
        self._reader = SseReader()
        self._texts: list[str] = []
        self._usage: Usage | None = None
        self._service_tier: str | None = None
        self._completion_id = ""
        self._errored = False
        self._settled = False

    async def run(
        self, source: UpstreamAnswer, answer: Answer, head: AnswerHead, services: RelayServices
    ) -> None:
        """Relay to the end. Raises nothing that belongs to the client or the upstream."""
        estimator = services.estimator
        self._entry.progress = lambda: estimator.count_now(
            self._admitted.hold.model, list(self._texts)
        )
        chunks = source.chunks()
        outcome: Outcome = "done"
        texts = self._texts
        try:
            await answer.begin(head)
            await self._relay(chunks, source, answer, services)
        except ClientGone:
            outcome, texts = "client_gone", list(self._texts)
            await self._drain(chunks, services)
        finally:
            await self._settle(source, services, outcome, texts)

    async def _relay(
        self,
        chunks: AsyncIterator[bytes],
        source: UpstreamAnswer,
        answer: Answer,
        services: RelayServices,
    ) -> None:
        try:
            async for data in chunks:
                visible, is_done = self._observe(self._reader.feed(data))
                if is_done:
                    await self._settle(source, services, "done", self._texts)
                if visible:
                    await answer.write(visible)
                if self._entry.over:
                    await self._settle(source, services, "done", self._texts)
                    await answer.write(closing_events(self._completion_id, self._admitted.hold))
                    break
            tail = self._reader.flush()
            visible, _ = self._observe([tail] if tail else [])
            await self._settle(source, services, "done", self._texts)
            if visible:
                await answer.write(visible)
        except (UpstreamBroke, UpstreamSilent, SseTooLarge) as error:
            self._errored = True
            await self._settle(source, services, "upstream_error", self._texts)
            await answer.write(broken_event(error))
        await answer.end()

    async def _drain(self, chunks: AsyncIterator[bytes], services: RelayServices) -> None:
        """Read on for the usage, for nobody, within the bounds of the configuration."""
        if self._settled or self._usage is not None or not services.drains.take():
            return
        try:
            async with asyncio.timeout(services.terms.drain_s):
                async for data in chunks:
                    self._observe(self._reader.feed(data))
                    if self._usage is not None or self._entry.over:
                        return
        except (TimeoutError, UpstreamBroke, UpstreamSilent, SseTooLarge):
            return  # what was relayed is charged
        finally:
            services.drains.give_back()

    def _observe(self, events: list[SseEvent]) -> tuple[bytes, bool]:
        """(the bytes the client may see, whether the stream's last event is among them)."""
        visible: list[bytes] = []
        is_done = False
        for event in events:
            if event.data is None:  # a comment, which some upstreams send to keep a stream open
                visible.append(event.raw)
                continue
            chunk = read_chunk(event.data)
            self._note(chunk)
            is_done = is_done or chunk.is_done
            if not hide_chunk(chunk, self._asked_usage):
                visible.append(event.raw)
        return b"".join(visible), is_done

    def _note(self, chunk: Chunk) -> None:
        self._texts.extend(chunk.texts())
        self._usage = chunk.usage or self._usage
        self._service_tier = chunk.service_tier or self._service_tier
        self._completion_id = chunk.id or self._completion_id
        self._errored = self._errored or chunk.is_error

    async def _settle(
        self,
        source: UpstreamAnswer,
        services: RelayServices,
        outcome: Outcome,
        texts: list[str],
    ) -> None:
        if self._settled:
            return
        self._settled = True
        quality: Quality = "measured"
        if self._errored:
            outcome = "upstream_error"
        usage = believe(self._usage, wrote_text=bool(texts))
        if usage is None:
            quality = "estimated" if outcome == "done" else "partial"
            usage = await services.estimator.usage(self._admitted.hold, texts)
        await services.settlements.settle(
            self._admitted.hold,
            Ending(
                usage=usage,
                quality=quality,
                outcome=outcome,
                status=source.head.status,
                service_tier=self._service_tier,
                upstream_id=source.head.upstream_id,
            ),
        )
