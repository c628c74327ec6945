"""The life of one call: judged, delayed, answered or broken, and booked.

Whatever the ending, also when the client leaves and the task is cancelled, the call is booked
once: with what its usage reported, else with what went onto the wire. It is the same for every
API; what is said in one is that API's own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from aiohttp import web

from gateway.standin import azure
from gateway.standin.errors import ErrorAnswer, Refused, check_key, demanded, invalid
from gateway.standin.face import Face
from gateway.standin.gates import Gates
from gateway.standin.headers import Ids, answer_headers
from gateway.standin.reply import Api, Events, Reply, Setting
from gateway.standin.settings import StandInSettings
from gateway.standin.streaming import Cut, StreamedAnswer
from gateway.standin.tally import Served, Tally

# Booked for a client that left before the first byte; nginx's number for it.
STATUS_LEFT = 499


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that has arrived, the API it is for, and the model if its path names one."""

    request: web.Request
    raw: bytes
    api: Api
    face: Face
    model: str | None = None


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One call that passed the checks, with what goes out and what is counted."""

    request: web.Request
    headers: Mapping[str, str]
    face: Face
    reply: Reply
    served: Served


class Calls:
    """Serves the calls of every API."""

    def __init__(self, settings: StandInSettings, ids: Ids, tally: Tally, gates: Gates) -> None:
        self._settings = settings
        self._ids = ids
        self._tally = tally
        self._gates = gates

    async def serve(self, asked: Asked) -> web.StreamResponse:
        """Answer one request whose body has been read."""
        request = asked.request
        own_id = self._ids.next()
        headers = answer_headers(f"req_{own_id}")
        body = decoded(asked.raw)
        request_id = request.headers.get("x-client-request-id", headers["x-request-id"])
        call = self._tally.begin(request_id, _user(request.headers, body))
        served = Served(status=STATUS_LEFT)
        try:
            reply = self._judged(asked, own_id, body)
            await self._before_first_byte(reply)
            served.status = 200
            exchange = _Exchange(request, headers, asked.face, reply, served)
            events = reply.events()
            return await (
                self._whole(exchange) if events is None else self._stream(exchange, events)
            )
        except Refused as refused:
            served.status = refused.answer.status
            served.finished = True
            return error_response(refused.answer, headers)
        finally:
            call.end(served)

    def _judged(self, asked: Asked, own_id: str, body: object) -> Reply:
        check_access(asked.request.headers, asked.face, self._settings.require_key)
        if body is None:
            raise invalid("We could not parse the JSON body of your request.")
        if not isinstance(body, dict):
            raise invalid("Invalid body: expected a JSON object.", code="invalid_type")
        count_tokens = self._settings.count_tokens
        setting = Setting(own_id, int(time.time()), asked.face, count_tokens, asked.model)
        return asked.api(body, setting)

    async def _before_first_byte(self, reply: Reply) -> None:
        orders = reply.directives
        if orders.delay_ms:
            await asyncio.sleep(orders.delay_ms / 1000)
        if orders.hold is not None and orders.hold_after is None:
            await self._gates.wait(orders.hold)
        if orders.status is not None:
            raise Refused(demanded(orders.status, orders.code, orders.retry_after))
        if orders.never_ends and reply.events() is None:
            await asyncio.Event().wait()

    async def _whole(self, exchange: _Exchange) -> web.StreamResponse:
        reply, served = exchange.reply, exchange.served
        whole = reply.whole()
        served.prompt_tokens = reply.report.true.prompt_tokens
        if reply.directives.cut_after is not None:
            served.completion_tokens = reply.hidden_tokens + whole.half_tokens
            return await _cut_short(exchange, whole.body, whole.half_bytes)
        served.completion_tokens = reply.report.true.completion_tokens
        served.finished = True
        if reply.report.readable:
            served.report(reply.report.told)
        return web.Response(
            body=whole.body, headers=exchange.headers, content_type="application/json"
        )

    async def _stream(self, exchange: _Exchange, events: Events) -> web.StreamResponse:
        reply, served = exchange.reply, exchange.served
        response = web.StreamResponse(headers=exchange.headers)
        response.headers["Content-Type"] = "text/event-stream; charset=utf-8"
        stream = StreamedAnswer(events, reply.directives, self._gates, exchange.face.comment)
        try:
            await response.prepare(exchange.request)
            served.prompt_tokens = reply.report.true.prompt_tokens
            served.completion_tokens = reply.hidden_tokens
            await stream.send(response, self._settings.chunk_tokens, reply.report, served)
        except Cut:
            _drop(exchange.request)
        except ConnectionError:
            pass  # The client has left; the call is booked as unfinished.
        return response


def check_access(headers: Mapping[str, str], face: Face, required: str | None) -> None:
    """Raise Refused when a key is required and not shown, in the way of this face."""
    if face.is_azure:
        azure.check_key(headers, required)
    else:
        check_key(headers.get("Authorization", ""), required)


def decoded(raw: bytes) -> object:
    """A body, or None when it is no JSON (or says null, which is no request either)."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def error_response(answer: ErrorAnswer, headers: Mapping[str, str]) -> web.Response:
    """An error answer as OpenAI sends it."""
    response = web.Response(
        status=answer.status,
        body=answer.body(),
        headers=headers,
        content_type="application/json",
    )
    if answer.retry_after_s is not None:
        response.headers["Retry-After"] = str(answer.retry_after_s)
    return response


async def _cut_short(exchange: _Exchange, body: bytes, sent_bytes: int) -> web.StreamResponse:
    """Promise the whole body, send its beginning, drop the connection."""
    response = web.StreamResponse(headers=exchange.headers)
    response.content_type = "application/json"
    response.content_length = len(body)
    await response.prepare(exchange.request)
    await response.write(body[:sent_bytes])
    _drop(exchange.request)
    return response


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _user(headers: Mapping[str, str], body: object) -> str:
    named = body if isinstance(body, dict) else {}
    found = headers.get("x-quota-user") or named.get("safety_identifier") or named.get("user")
    return found if isinstance(found, str) else "anonymous"
