"""The link: everything passes in order, and each fault does what its name says and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from gateway.adapters.embedded.waiting import comes_true
from tests.chaos.link import Link

_WAIT_S = 10.0


@dataclass
class Served:
    """What a server has read on each connection, and its writers."""

    read: list[bytearray] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = bytearray()
        self.read.append(seen)
        self.writers.append(writer)
        while data := await reader.read(1000):
            seen += data
            writer.write(data.upper())
        self.ended.set()

    async def has_read(self, expected: bytes) -> None:
        assert await comes_true(lambda: expected in map(bytes, self.read), _WAIT_S)


@asynccontextmanager
async def between(folder: Path) -> AsyncIterator[tuple[Link, Served, str]]:
    """A link, the server behind it, and where the link listens."""
    loop, served = asyncio.get_running_loop(), Served()
    server = await asyncio.start_unix_server(served.serve, folder / "server")
    link = Link("test", partial(loop.create_unix_connection, path=str(folder / "server")))
    front = await loop.create_unix_server(link.accept, str(folder / "link"))
    try:
        yield link, served, str(folder / "link")
    finally:
        front.close()
        await link.close()
        for writer in served.writers:
            writer.close()
        server.close()


async def test_what_is_said_passes_both_ways(tmp_path: Path) -> None:
    async with between(tmp_path) as (_, _, path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"hello")
        writer.write_eof()
        assert await asyncio.wait_for(reader.readexactly(5), _WAIT_S) == b"HELLO"
        writer.close()


async def test_what_is_held_back_arrives_after_the_sender_is_gone(tmp_path: Path) -> None:
    async with between(tmp_path) as (link, served, path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"before ")
        await asyncio.wait_for(reader.readexactly(7), _WAIT_S)
        link.up.is_open.clear()
        writer.write(b"late")
        writer.transport.abort()
        await asyncio.sleep(0.05)
        assert served.read == [b"before "]
        link.heal()
        await served.has_read(b"before late")
        await asyncio.wait_for(served.ended.wait(), _WAIT_S)


async def test_replies_can_be_held_back_alone(tmp_path: Path) -> None:
    async with between(tmp_path) as (link, served, path):
        link.down.is_open.clear()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"asked")
        await served.has_read(b"asked")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.05)
        link.heal()
        assert await asyncio.wait_for(reader.readexactly(5), _WAIT_S) == b"ASKED"
        writer.close()


async def test_a_cut_ends_connections_and_loses_what_was_under_way(tmp_path: Path) -> None:
    async with between(tmp_path) as (link, served, path):
        link.up.is_open.clear()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"lost")
        assert await comes_true(lambda: link.connections == 1, _WAIT_S)
        link.refuses = True
        link.cut()
        link.up.is_open.set()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), _WAIT_S)
        await asyncio.wait_for(served.ended.wait(), _WAIT_S)
        assert served.read == [b""]
        refused, other = await asyncio.open_unix_connection(path)
        assert await asyncio.wait_for(refused.read(), _WAIT_S) == b""
        writer.close()
        other.close()


async def test_a_half_closed_server_may_still_answer(tmp_path: Path) -> None:
    async with between(tmp_path) as (link, served, path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"one")
        assert await asyncio.wait_for(reader.readexactly(3), _WAIT_S) == b"ONE"
        link.half_close()
        await asyncio.wait_for(served.ended.wait(), _WAIT_S)
        served.writers[0].write(b"two")
        assert await asyncio.wait_for(reader.readexactly(3), _WAIT_S) == b"two"
        writer.close()
