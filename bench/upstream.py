"""An upstream that costs little: canned answers, and streams of which each chunk is one write.

A stream's chunks come some milliseconds apart, as a model's do, so that a proxy gets each by itself
and a slow one cannot save work by reading several at once. Streams that run at the same time are
spread over the milliseconds between. SIGUSR1 ends all open streams at once, with their last chunk.
Requests are read only as far as it takes to answer them.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
from collections.abc import Sequence
from typing import cast

from bench.answers import HEADERS, OUTPUT_TOKENS, PROMPT_TOKENS, completion, events
from bench.loops import fastest, new_loop

CHUNK_MS = 5
CLOSE_AT_ONCE = signal.SIGUSR1
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAMED = b'"stream":true'


def _head(kind: bytes, framing: bytes) -> bytes:
    given = b"".join(b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in HEADERS)
    date = b"date: Mon, 23 Nov 2026 12:00:00 GMT\r\n"
    return b"HTTP/1.1 200 OK\r\n%bcontent-type: %b\r\n%b%b\r\n" % (date, kind, given, framing)


def whole_answer(prompt_tokens: int, output_tokens: int) -> bytes:
    """Head and body of an answer that is not streamed."""
    body = completion(prompt_tokens, output_tokens)
    return _head(b"application/json", b"content-length: %d\r\n" % len(body)) + body


def stream_writes() -> list[bytes]:
    """What is written for a stream, write by write; the head goes with the first."""
    framed = [b"%x\r\n%b\r\n" % (len(e), e) for e in events(PROMPT_TOKENS, OUTPUT_TOKENS)]
    head = _head(b"text/event-stream; charset=utf-8", b"transfer-encoding: chunked\r\n")
    return [head + framed[0], *framed[1:-1], framed[-1] + b"0\r\n\r\n"]


class Streams:
    """All streams that run, in `chunk_ms` groups; each millisecond one group writes its next."""

    def __init__(self, writes: Sequence[bytes], chunk_ms: int) -> None:
        self._writes = writes
        self._groups: list[dict[asyncio.Transport, int]] = [{} for _ in range(chunk_ms)]
        self._opened = 0

    def open(self, to: asyncio.Transport) -> None:
        """Begin a stream with its first chunk; the others come with the turns of a group."""
        to.write(self._writes[0])
        self._groups[self._opened % len(self._groups)][to] = 1
        self._opened += 1

    def end_all(self) -> None:
        """Write the last chunk of every open stream."""
        for group in self._groups:
            for to in group:
                to.write(self._writes[-1])
            group.clear()

    async def run(self) -> None:
        """Write for ever. A late turn is made up for at once, so the pace holds on average."""
        loop = asyncio.get_running_loop()
        due, turn = loop.time(), 0
        while True:
            self._write(self._groups[turn % len(self._groups)])
            turn, due = turn + 1, due + 0.001
            await asyncio.sleep(max(0.0, due - loop.time()))

    def _write(self, group: dict[asyncio.Transport, int]) -> None:
        ended = []
        for to, at in group.items():
            if to.is_closing():
                ended.append(to)
                continue
            to.write(self._writes[at])
            group[to] = at + 1
            if at + 1 == len(self._writes):
                ended.append(to)
        for to in ended:
            del group[to]


class _Connection(asyncio.Protocol):
    """One connection; one request after the other."""

    def __init__(self, answer: bytes, streams: Streams) -> None:
        self._answer, self._streams = answer, streams
        self._got = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self._got += data
        end = self._got.find(b"\r\n\r\n")
        if end < 0 or self._transport is None:
            return
        told = _LENGTH.search(self._got, 0, end + 2)
        if len(self._got) < end + 4 + (int(told[1]) if told else 0):
            return
        if _STREAMED in self._got:
            self._streams.open(self._transport)
        else:
            self._transport.write(self._answer)
        self._got = b""


async def serve(port: int, chunk_ms: int) -> None:
    """Answer on 127.0.0.1 until the process ends."""
    streams = Streams(stream_writes(), chunk_ms)
    answer = whole_answer(PROMPT_TOKENS, OUTPUT_TOKENS)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(CLOSE_AT_ONCE, streams.end_all)
    await loop.create_server(lambda: _Connection(answer, streams), "127.0.0.1", port, backlog=8192)
    print("ready", flush=True)
    await streams.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--chunk-ms", type=int, default=CHUNK_MS)
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=lambda: new_loop(fastest())) as runner:
        runner.run(serve(chosen.port, chosen.chunk_ms))
