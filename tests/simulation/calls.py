"""Both ends of a call: the client that may leave, and the upstream that may do as it likes.

What either of them saw is noted in the `CallRecord`, by which the booking is judged afterwards. A
token is a character, and the model writes tildes, so that what has passed can be counted anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from gateway.core.inference.judges import JUDGES
from gateway.core.inference.request import InferenceRequest
from gateway.core.json_body import encode
from gateway.core.refusal import Refused
from gateway.core.routes import CHAT
from gateway.ports.answer import AnswerHead, ClientGone
from gateway.ports.upstream import (
    Take,
    UpstreamBroke,
    UpstreamCall,
    UpstreamHead,
    UpstreamSilent,
    UpstreamUnreachable,
)
from tests.fakes import chat_stream
from tests.fakes.flow_rig import MODEL, TERMS
from tests.simulation.loop import Process
from tests.simulation.schedule import CallPlan

_STATUSES = {"500": 500, "400": 400, "429": 429}


@dataclass
class CallRecord:
    """What was seen of one call. `sent` and `delivered` are tokens of text; `told_usage`: upstream
    has reported what it used, and the gateway has read that."""

    rid: str
    plan: CallPlan
    gateway: Process
    arrivals: int = 0
    sent: int = 0
    delivered: int = 0
    told_usage: bool = False
    has_ended: bool = False
    refused: Refused | None = None

    @property
    def reported(self) -> int:
        """What upstream says the call used."""
        return prompt_tokens(self.plan) + sum(self.plan.pieces) + self.plan.beyond


@dataclass
class SimClient:
    """Fulfils ports.answer.Answer."""

    record: CallRecord
    writes: int = field(default=0)

    async def whole(self, head: AnswerHead, body: bytes) -> None:
        self._write(body)

    async def begin(self, head: AnswerHead) -> None:
        self._write(b"")

    def push(self, data: bytes) -> bool:
        self._write(data)
        return True

    async def caught_up(self) -> None: ...

    async def end(self) -> None: ...

    def missed(self, data: bytes) -> None: ...

    def came_whole(self) -> None: ...

    def _write(self, data: bytes) -> None:
        gone_at = self.record.plan.gone_at
        if gone_at is not None and self.writes >= gone_at:
            raise ClientGone
        self.writes += 1
        self.record.delivered += data.count(b"~")


class SimUpstream:
    """Fulfils ports.upstream.Upstream for everybody; knows each call by its rid."""

    def __init__(self, records: Mapping[str, CallRecord]) -> None:
        self._records = records

    async def send(self, call: UpstreamCall) -> SimAnswer:
        record = self._records[call.rid]
        record.arrivals += 1
        plan = record.plan
        await asyncio.sleep(plan.pause_s / 4)
        if plan.kind == "unreachable":
            raise UpstreamUnreachable("nobody there")
        if plan.kind == "broke":
            raise UpstreamBroke("gone")
        if plan.kind == "silent":
            raise UpstreamSilent("nothing came")
        return SimAnswer(record)


class SimAnswer:
    """Fulfils ports.upstream.UpstreamAnswer."""

    def __init__(self, record: CallRecord) -> None:
        self._record = record
        self._chunks = _Chunks(record)
        kind = "text/event-stream" if record.plan.stream else "application/json"
        self.head = UpstreamHead(_STATUSES.get(record.plan.kind, 200), kind, None, "up", ())

    async def read(self) -> bytes:
        record, plan = self._record, self._record.plan
        await asyncio.sleep(plan.pause_s)
        if plan.kind in _STATUSES:
            return b'{"error": {"message": "no", "type": "server_error"}}'
        record.sent = sum(plan.pieces)
        record.told_usage = plan.kind == "whole"
        return chat_stream.completion(
            "~" * record.sent, _usage(plan) if record.told_usage else None
        )

    async def pour(self, take: Take) -> bool:
        async for data in self._chunks:
            if not take(data):
                return False
        return True

    async def close(self) -> None: ...


class _Chunks(AsyncIterator[bytes]):
    """The body of a stream. Not a generator: of one that is never finished the loop makes a task
    when it is collected, and nobody knows when that is."""

    def __init__(self, record: CallRecord) -> None:
        self._record = record
        self._given = 0

    async def __anext__(self) -> bytes:
        record, plan = self._record, self._record.plan
        number, self._given = self._given, self._given + 1
        if number < len(plan.pieces):
            await asyncio.sleep(plan.pause_s)
            if number == 1 and plan.kind == "stream breaks off":
                raise UpstreamBroke("in the middle")
            if number == 1 and plan.kind == "stream with error":
                self._given = len(plan.pieces) + 3
                return b'data: {"error": {"message": "no"}}\n\n'
            record.sent += plan.pieces[number]
            return _text(plan.pieces[number])
        if number == len(plan.pieces):
            return _FINISH
        if number == len(plan.pieces) + 1:
            if plan.kind != "stream":
                return chat_stream.DONE
            record.told_usage = True
            return chat_stream.usage(*_usage(plan).values())
        if number == len(plan.pieces) + 2 and plan.kind == "stream":
            return chat_stream.DONE
        raise StopAsyncIteration


_FINISH = chat_stream.finish()


@lru_cache(maxsize=512)
def _text(tokens: int) -> bytes:
    return chat_stream.text("~" * tokens)


def _usage(plan: CallPlan) -> dict[str, Any]:
    completion = sum(plan.pieces) + plan.beyond
    return {"prompt_tokens": prompt_tokens(plan), "completion_tokens": completion}


def request_of(plan: CallPlan) -> tuple[InferenceRequest, int]:
    """The request of a call, and the bytes of its body."""
    return _request(plan.stream, plan.cap, plan.words)


def prompt_tokens(plan: CallPlan) -> int:
    """What the prompt of a call comes to, exactly."""
    return _counted(plan.stream, plan.cap, plan.words)


@lru_cache(maxsize=64)
def _request(stream: bool, cap: int, words: int) -> tuple[InferenceRequest, int]:
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "word " * words}],
        "max_completion_tokens": cap,
    }
    if stream:
        body["stream"] = True
    raw = encode(body)
    return JUDGES[CHAT.name](raw), len(raw)


@lru_cache(maxsize=64)
def _counted(stream: bool, cap: int, words: int) -> int:
    request, _ = _request(stream, cap, words)
    return request.count_prompt(TERMS.models[MODEL], len)
