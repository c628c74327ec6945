"""Calls that carry an `Idempotency-Key`: the first one runs, its repetitions get its answer.

What was charged is remembered, what cost nothing is not: a key is free again when its call was
refused or failed, and stands for the answer when there was one. The same key never reaches
upstream twice at a time, and without the store that says so no call with a key is made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.core.idempotency import IdempotencyKey, Remembered, refusal_of
from gateway.flow.admit import Call
from gateway.flow.decisions import tell_free
from gateway.flow.exchange import Exchange
from gateway.flow.identify import Identities, backend_unavailable
from gateway.flow.recording import RecordingAnswer
from gateway.ports.answer import ClientGone, RepeatableAnswer
from gateway.ports.answers import KeptAnswers
from gateway.ports.metrics import Metrics
from gateway.ports.quota_store import StoreNotAsked, StoreRejected, StoreUnavailable
from gateway.ports.tasks import spawn

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_log = logging.getLogger("gateway.repeat")


@dataclass(frozen=True, slots=True)
class RepeatTerms:
    """How long an answer is kept (0: keys are not heeded), and how large it may be.

    `running_ms`: how long a key stays taken without a sign of life of its call, which comes every
    `renew_ms`.
    """

    keep_ms: int
    answer_bytes_max: int
    running_ms: int
    renew_ms: int


class Repeats:
    """Runs calls; those with a key once, as far as that is remembered."""

    def __init__(
        self,
        exchange: Exchange,
        identities: Identities,
        answers: KeptAnswers,
        terms: RepeatTerms,
        metrics: Metrics,
    ) -> None:
        self._exchange = exchange
        self._identities = identities
        self._answers = answers
        self._terms = terms
        self._metrics = metrics

    def run(self, call: Call, answer: RepeatableAnswer) -> Coroutine[Any, Any, None]:
        """Answer the call, or raise Refused. A client that left is not an error."""
        key = call.idempotency_key
        if key is None or not self._terms.keep_ms:
            return self._exchange.run(call, answer)
        return self._run_once(call, key, answer)

    async def _run_once(self, call: Call, key: IdempotencyKey, answer: RepeatableAnswer) -> None:
        identity = await self._identities.of(call.credential)
        running = Remembered(identity.user_id, key.text, call.rid, key.asked)
        first = await self._begin(running)
        if first is None:
            await self._run_first(call, running, answer)
        else:
            await self._answer_again(call, first, key.asked, answer)

    async def _begin(self, running: Remembered) -> Remembered | None:
        is_known = False
        try:
            first = await self._answers.begin(running, self._terms.running_ms)
            is_known = True
            return first
        except StoreUnavailable as error:
            is_known = isinstance(error, StoreNotAsked)
            raise backend_unavailable("what it remembers of earlier calls") from error
        finally:
            if not is_known:  # perhaps the key is taken now, by a call that will never run
                spawn(self._insist(running, None), f"forget {running.rid}")

    async def _run_first(self, call: Call, running: Remembered, answer: RepeatableAnswer) -> None:
        recording = RecordingAnswer(answer, self._terms.answer_bytes_max)
        renewing = spawn(self._renew_forever(running), f"renew {running.rid}")
        try:
            await self._exchange.run(call, recording)
        finally:
            renewing.cancel()
            await self._end(running, recording.remembered(running))
        await recording.finish()

    async def _answer_again(
        self, call: Call, first: Remembered, asked: bytes, answer: RepeatableAnswer
    ) -> None:
        # No reserve follows that would find out whether this key was revoked: the ledger is asked.
        identity = await self._identities.again(call.credential)
        refused = refusal_of(first, asked)
        if refused is not None:
            raise refused.of(identity)
        self._metrics.decided(identity.tier, call.route.name, "admitted", "replayed")
        tell_free(call.rid, call.route.name, identity, "replayed")
        with suppress(ClientGone):
            await answer.replay(first)

    async def _renew_forever(self, running: Remembered) -> None:
        while True:
            await asyncio.sleep(self._terms.renew_ms / 1000)
            with suppress(StoreUnavailable, StoreRejected):
                await self._answers.keep(running, running, self._terms.running_ms)

    async def _end(self, running: Remembered, now: Remembered | None) -> None:
        """Write what the key stands for from now on; again later, if the store does not answer."""
        is_written = False
        try:
            is_written = await self._write(running, now)
        finally:
            if not is_written:
                spawn(self._insist(running, now), f"remember {running.rid}")

    async def _write(self, running: Remembered, now: Remembered | None) -> bool:
        """False when the store did not answer."""
        try:
            if now is None:
                is_ours = await self._answers.forget(running)
            else:
                is_ours = await self._answers.keep(running, now, self._terms.keep_ms)
        except StoreUnavailable as error:
            _log.warning("what call %s came to is not remembered yet: %s", running.rid, error)
            return False
        except StoreRejected as error:
            _log.error("what call %s came to was rejected: %s", running.rid, error)
            return True
        if not is_ours:
            _log.warning("call %s lost its idempotency key to another call", running.rid)
        return True

    async def _insist(self, running: Remembered, now: Remembered | None) -> None:
        """Write until it is done, for as long as it is of use."""
        useful_ms = self._terms.running_ms if now is None else self._terms.keep_ms
        pause_s = _FIRST_PAUSE_S
        with suppress(TimeoutError):
            async with asyncio.timeout(useful_ms / 1000):
                while True:
                    await asyncio.sleep(pause_s)
                    if await self._write(running, now):
                        return
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
