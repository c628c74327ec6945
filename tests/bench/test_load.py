"""The load tells the truth: what was answered, what broke off, and who waited for whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bench.answers import CHUNKS
from bench.load import Load, Outcome, Pace
from bench.requests import Shape, body, requests
from bench.upstream import Streams, stream_writes, whole_answer
from gateway.ports.tasks import spawn

WHOLE = whole_answer(230, 120)
REQUESTS = requests(Shape(), ["qg_a", "qg_b"])
Serve = Callable[[Callable[[asyncio.StreamWriter, int], Awaitable[None]]], Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server that answers its n-th request, over all connections, as it is told."""
    servers: list[asyncio.Server] = []

    async def start(answer: Callable[[asyncio.StreamWriter, int], Awaitable[None]]) -> int:
        count = 0

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            try:
                while not writer.is_closing():
                    await reader.readexactly(len(REQUESTS[0]))
                    count += 1
                    await answer(writer, count)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        servers.append(await asyncio.start_server(talk, "127.0.0.1", 0))
        return int(servers[-1].sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()


async def answered(writer: asyncio.StreamWriter, _: int) -> None:
    writer.write(WHOLE)


async def load(port: int, pace: Pace) -> Outcome:
    return await Load("127.0.0.1", port, REQUESTS, pace).run()


async def test_at_a_rate_as_many_are_sent_as_are_due(serve: Serve) -> None:
    outcome = await load(await serve(answered), Pace(4, seconds=0.5, rate=200))
    assert (outcome.answered, outcome.failed, outcome.begun) == (100, 0, 100)
    assert outcome.seconds >= 0.49
    assert len(outcome.latencies_s) == 100


async def test_without_a_rate_each_connection_sends_when_it_is_answered(serve: Serve) -> None:
    outcome = await load(await serve(answered), Pace(3, seconds=30, requests=70))
    assert (outcome.answered, outcome.failed) == (70, 0)


async def test_those_kept_waiting_by_a_slow_answer_count_from_when_they_were_due(
    serve: Serve,
) -> None:
    """One connection, whose first answer takes 0.4 s: everybody behind it has waited as well."""

    async def slow_at_first(writer: asyncio.StreamWriter, number: int) -> None:
        if number == 1:
            await asyncio.sleep(0.4)
        writer.write(WHOLE)

    outcome = await load(await serve(slow_at_first), Pace(1, seconds=0.2, rate=50))
    assert outcome.answered == 10
    assert outcome.waited == 9
    assert min(outcome.latencies_s) > 0.2  # the last was due 0.18 s after the first


async def test_what_breaks_off_is_no_answer(serve: Serve) -> None:
    async def third_breaks(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(WHOLE if number != 3 else WHOLE[:-1])
        if number == 3:
            writer.close()

    outcome = await load(await serve(third_breaks), Pace(2, seconds=30, requests=20))
    assert (outcome.answered, outcome.broken) == (19, 1)


async def test_another_status_is_no_answer(serve: Serve) -> None:
    async def every_other_refused(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(WHOLE if number % 2 else WHOLE.replace(b" 200 OK", b" 429 No", 1))

    outcome = await load(await serve(every_other_refused), Pace(1, seconds=30, requests=10))
    assert outcome.statuses == {200: 5, 429: 5}
    assert outcome.failed == 5


async def test_a_stream_ends_with_the_end_mark_or_is_broken(serve: Serve) -> None:
    whole = b"".join(stream_writes())

    async def second_without_mark(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(whole if number == 1 else whole.replace(b"[DONE]", b"[GONE]"))

    outcome = await load(await serve(second_without_mark), Pace(1, seconds=30, requests=2))
    assert (outcome.answered, outcome.broken) == (1, 1)


async def test_the_upstream_writes_two_hundred_chunks_one_by_one() -> None:
    class Wire(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.written: list[bytes] = []
            self.whole = asyncio.Event()

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.written.append(bytes(data))
            if len(self.written) == CHUNKS:
                self.whole.set()

        def is_closing(self) -> bool:
            return False

    wire, streams = Wire(), Streams(stream_writes(), chunk_ms=1)
    streams.open(wire)
    running = spawn(streams.run(), "streams")
    async with asyncio.timeout(20):
        await wire.whole.wait()
    running.cancel()
    assert wire.written[-1].endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert all(b"chat.completion.chunk" in written for written in wire.written)
    assert CHUNKS == 200


@pytest.mark.parametrize("bytes_wanted", [1024, 5120])
def test_a_body_has_the_size_it_should_have(bytes_wanted: int) -> None:
    texts = {body(Shape(bytes_wanted, stream), seed) for seed in (1, 2) for stream in (True, False)}
    assert {len(text) for text in texts} == {bytes_wanted}
    assert len(texts) == 4
