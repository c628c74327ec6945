"""The life of one chat completion: judged, delayed, answered or broken, and booked.

Whatever the ending, also when the client leaves and the task is cancelled, the call is booked
once: with what its usage reported, else with what went onto the wire.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from aiohttp import web

from gateway.standin.ask import ChatAsk, read_ask
from gateway.standin.errors import ErrorAnswer, Refused, check_key, demanded, invalid
from gateway.standin.gates import Gates
from gateway.standin.headers import Ids, answer_headers
from gateway.standin.settings import StandInSettings
from gateway.standin.streaming import Cut, StreamedAnswer
from gateway.standin.tally import Served, Tally
from gateway.standin.wire import Answer
from gateway.standin.writing import text

# Booked for a client that left before the first byte; nginx's number for it.
STATUS_LEFT = 499

_CONTENT = b'"content":"'


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One call that passed the checks, with what goes out and what is counted."""

    request: web.Request
    headers: Mapping[str, str]
    ask: ChatAsk
    answer: Answer
    served: Served


class Chat:
    """Serves `POST /v1/chat/completions`."""

    def __init__(self, settings: StandInSettings, ids: Ids, tally: Tally, gates: Gates) -> None:
        self._settings = settings
        self._ids = ids
        self._tally = tally
        self._gates = gates

    async def serve(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        """Answer one request whose body has been read."""
        own_id = self._ids.next()
        headers = answer_headers(f"req_{own_id}")
        body = decoded(raw)
        request_id = request.headers.get("x-client-request-id", headers["x-request-id"])
        call = self._tally.begin(request_id, _user(request.headers, body))
        served = Served(status=STATUS_LEFT)
        try:
            ask = self._judged(request.headers, body)
            await self._before_first_byte(ask)
            served.status = 200
            answer = Answer(ask, f"chatcmpl-{own_id}", int(time.time()))
            exchange = _Exchange(request, headers, ask, answer, served)
            return await (self._stream(exchange) if ask.stream else self._whole(exchange))
        except Refused as refused:
            served.status = refused.answer.status
            served.finished = True
            return error_response(refused.answer, headers)
        finally:
            call.end(served)

    def _judged(self, headers: Mapping[str, str], body: object) -> ChatAsk:
        check_key(headers.get("Authorization", ""), self._settings.require_key)
        if body is None:
            raise invalid("We could not parse the JSON body of your request.")
        return read_ask(body, self._settings.count_tokens)

    async def _before_first_byte(self, ask: ChatAsk) -> None:
        orders = ask.directives
        if orders.delay_ms:
            await asyncio.sleep(orders.delay_ms / 1000)
        if orders.hold is not None and orders.hold_after is None:
            await self._gates.wait(orders.hold)
        if orders.status is not None:
            raise Refused(demanded(orders.status, orders.code, orders.retry_after))
        if ask.endless and not ask.stream:
            await asyncio.Event().wait()

    async def _whole(self, exchange: _Exchange) -> web.StreamResponse:
        ask, served = exchange.ask, exchange.served
        body = exchange.answer.completion(text(0, ask.write_tokens))
        if ask.directives.cut_after is not None:
            return await self._half(exchange, body)
        served.prompt_tokens = ask.prompt_tokens
        served.completion_tokens = ask.write_tokens * ask.choices
        served.finished = True
        if ask.usage_readable:
            served.report(ask.usage)
        return web.Response(body=body, headers=exchange.headers, content_type="application/json")

    async def _half(self, exchange: _Exchange, body: bytes) -> web.StreamResponse:
        """Promise the whole body, send half of the first choice's tokens, drop the connection."""
        half_tokens = exchange.ask.write_tokens // 2
        end = body.index(_CONTENT) + len(_CONTENT) + len(text(0, half_tokens))
        response = web.StreamResponse(headers=exchange.headers)
        response.content_type = "application/json"
        response.content_length = len(body)
        await response.prepare(exchange.request)
        await response.write(body[:end])
        exchange.served.prompt_tokens = exchange.ask.prompt_tokens
        exchange.served.completion_tokens = half_tokens
        _drop(exchange.request)
        return response

    async def _stream(self, exchange: _Exchange) -> web.StreamResponse:
        response = web.StreamResponse(headers=exchange.headers)
        response.headers["Content-Type"] = "text/event-stream; charset=utf-8"
        stream = StreamedAnswer(exchange.ask, exchange.answer, self._gates, exchange.served)
        try:
            await response.prepare(exchange.request)
            await stream.send(response, self._settings.chunk_tokens)
        except Cut:
            _drop(exchange.request)
        except ConnectionError:
            pass  # The client has left; the call is booked as unfinished.
        return response


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


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _user(headers: Mapping[str, str], body: object) -> str:
    named = body if isinstance(body, dict) else {}
    found = headers.get("x-quota-user") or named.get("safety_identifier") or named.get("user")
    return found if isinstance(found, str) else "anonymous"
