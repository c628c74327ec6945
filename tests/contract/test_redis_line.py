"""Calls that share a connection, against a peer that does what no server would."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.redis_store.calls import Calls, open_connections
from gateway.adapters.redis_store.fast_calls import FastCalls
from gateway.adapters.redis_store.line import BYTES_MAX, CALLS_MAX, Line
from gateway.adapters.redis_store.server_watch import ServerWatch
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn
from tests.contract.quota_samples import rid_of
from tests.contract.redis_peer import ECHO, Peer, open_peer, reply_to

RIDS = [rid_of(number) for number in range(3)]


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    async with open_peer(tmp_path) as opened:
        yield opened


@asynccontextmanager
async def calls_to(url: str, deadline_s: float = 10.0) -> AsyncIterator[FastCalls]:
    calls = FastCalls(open_connections(url, deadline_s), deadline_s, lambda script, seconds: None)
    yield calls
    await calls.aclose()


@pytest.fixture
async def calls(peer: Peer) -> AsyncIterator[FastCalls]:
    async with calls_to(peer.url) as opened:
        yield opened


def ask(calls: Calls, rid: str) -> asyncio.Task[list[Any]]:
    return spawn(calls.run(ECHO, (), (rid,), rid), rid, awaited=True)


async def turns(count: int = 3) -> None:
    """The loop polls its sockets at each."""
    for _ in range(count):
        await asyncio.sleep(0)


async def answered(peer: Peer, calls: FastCalls) -> None:
    """One whole call, so that there is a connection."""
    asked = ask(calls, "first")
    await peer.asked_for(1)
    peer.client.write(reply_to("first"))
    assert await asked == [1, b"first"]


# --- replies as they come ------------------------------------------------------------------------


async def test_replies_cut_at_any_byte_reach_each_its_own_call(
    peer: Peer, calls: FastCalls
) -> None:
    replies = b"".join(reply_to(rid) for rid in RIDS)
    for cut in range(len(replies) + 1):
        asked = [ask(calls, rid) for rid in RIDS]
        await peer.asked_for(3)
        peer.client.write(replies[:cut])
        await turns()
        peer.client.write(replies[cut:])
        assert await asyncio.gather(*asked) == [[1, rid.encode()] for rid in RIDS]
    assert peer.connections == 1


async def test_replies_that_come_byte_by_byte_too(peer: Peer, calls: FastCalls) -> None:
    asked = [ask(calls, rid) for rid in RIDS]
    await peer.asked_for(3)
    for byte in b"".join(reply_to(rid) for rid in RIDS):
        peer.client.write(bytes([byte]))
        await turns(2)
    assert await asyncio.gather(*asked) == [[1, rid.encode()] for rid in RIDS]


@pytest.mark.parametrize("cancelled", range(3))
async def test_a_cancelled_call_leaves_its_place_in_the_queue(
    peer: Peer, calls: FastCalls, cancelled: int
) -> None:
    asked = [ask(calls, rid) for rid in RIDS]
    await peer.asked_for(3)
    asked[cancelled].cancel()
    peer.client.write(b"".join(reply_to(rid) for rid in RIDS))
    for number, call in enumerate(asked):
        if number == cancelled:
            with pytest.raises(asyncio.CancelledError):
                await call
        else:
            assert await call == [1, RIDS[number].encode()]
    await answered(peer, calls)
    assert peer.connections == 1


@pytest.mark.parametrize(
    ("sent", "good"),
    [
        (b"what is this\r\n", 0),  # not the protocol
        (b"*1\r\n*-7\r\n", 0),
        (reply_to(RIDS[1]), 0),  # the next call's
        (reply_to(RIDS[0]) + reply_to(RIDS[2]), 1),
        (b"+OK\r\n", 0),  # no script's
        (b"*0\r\n", 0),
        (b"".join(map(reply_to, RIDS)) + b"+OK\r\n", 3),  # one too many: whose is the next?
    ],
    ids=range(7),
)
async def test_after_a_reply_that_is_wrong_no_later_one_is_trusted(
    peer: Peer, calls: FastCalls, sent: bytes, good: int
) -> None:
    asked = [ask(calls, rid) for rid in RIDS]
    await peer.asked_for(3)
    peer.client.write(sent)
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert found[:good] == [[1, rid.encode()] for rid in RIDS[:good]]
    for told in found[good:]:
        assert isinstance(told, StoreUnavailable)
        assert "in time" not in str(told)  # but at once
    await peer.ended.wait()
    await answered(peer, calls)
    assert peer.connections == 2


@pytest.mark.parametrize("cut", range(len(reply_to(RIDS[0]))))
async def test_a_server_that_goes_in_the_middle_of_a_reply_leaves_all_of_them_unknown(
    peer: Peer, calls: FastCalls, cut: int
) -> None:
    asked = [ask(calls, rid) for rid in RIDS]
    await peer.asked_for(3)
    peer.client.write(reply_to(RIDS[0])[:cut])
    peer.client.close()
    for told in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(told, StoreUnavailable)
    await answered(peer, calls)


async def test_a_script_that_is_not_there_even_when_it_was_loaded_is_asked_for_twice(
    peer: Peer, calls: FastCalls
) -> None:
    asked = ask(calls, RIDS[0])
    for _ in range(2):
        await peer.asked_for(1)
        peer.client.write(b"-NOSCRIPT No matching script\r\n")
    with pytest.raises(StoreUnavailable, match="NoScriptError"):
        await asked
    assert peer.asked.empty()


async def test_a_cancelled_call_s_reply_is_checked_too(peer: Peer, calls: FastCalls) -> None:
    asked = [ask(calls, rid) for rid in RIDS]
    await peer.asked_for(3)
    asked[0].cancel()
    peer.client.write(reply_to(RIDS[1]) + reply_to(RIDS[1]) + reply_to(RIDS[2]))
    for call in asked[1:]:
        with pytest.raises(StoreUnavailable, match="belongs to another call"):
            await call


# --- what goes out -------------------------------------------------------------------------------


async def test_calls_of_one_turn_go_out_in_one_write(
    peer: Peer, calls: FastCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    await answered(peer, calls)
    sent: list[bytes] = []
    send = socket.socket.send

    def noted(self: socket.socket, data: bytes, *rest: int) -> int:
        if b"EVALSHA" in bytes(data):
            sent.append(bytes(data))
        return send(self, data, *rest)

    monkeypatch.setattr(socket.socket, "send", noted)
    asked = [ask(calls, rid) for rid in RIDS]
    requests = await peer.asked_for(3)
    assert sent == [b"".join(requests)]
    peer.client.write(b"".join(map(reply_to, RIDS)))
    await asyncio.gather(*asked)


async def test_when_send_returns_its_bytes_are_with_the_kernel(tmp_path: Path) -> None:
    """Read at the other end of the socket without our event loop, for many calls at once."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "raw"))
    listener.listen()
    ends: list[socket.socket] = []

    def shake_hands() -> None:
        """Agree to all, up to the first script."""
        end, _ = listener.accept()
        while b"EVALSHA" not in (seen := end.recv(65536)):
            end.sendall(b"+OK\r\n" * seen.count(b"SETINFO"))
        end.sendall(reply_to("first"))
        ends.append(end)

    server = threading.Thread(target=shake_hands)
    server.start()
    arrived = b""

    async def settle(calls: FastCalls, rid: str) -> asyncio.Future[list[Any]]:
        nonlocal arrived
        reply = await calls.send(ECHO, (), (rid,), rid, list)
        if rid.encode() not in arrived:
            arrived += ends[0].recv(2**20, socket.MSG_DONTWAIT)
        assert rid.encode() in arrived
        return reply

    async with calls_to(f"unix://{tmp_path}/raw") as calls:
        await calls.run(ECHO, (), ("first",), "first")
        server.join()
        for first, together in ((1, 1), (10, 2), (100, 32)):
            rids = [rid_of(first + number) for number in range(together)]
            replies = await asyncio.gather(*(settle(calls, rid) for rid in rids))
            ends[0].sendall(b"".join(map(reply_to, rids)))
            assert [await each for each in replies] == [[1, rid.encode()] for rid in rids]
    ends[0].close()
    listener.close()


async def test_send_waits_for_a_kernel_that_is_full_and_for_no_longer(
    peer: Peer, calls: FastCalls
) -> None:
    await answered(peer, calls)
    peer.stop_reading()
    big = "x" * 2**20
    send = spawn(calls.send(ECHO, (), (RIDS[0], big), RIDS[0], list), "send", awaited=True)
    await turns(20)
    assert not send.done()
    peer.read_on()
    reply = await asyncio.wait_for(send, 10)
    await peer.asked_for(1)
    peer.client.write(reply_to(RIDS[0]))
    assert await reply == [1, RIDS[0].encode()]


async def test_a_send_that_is_cancelled_while_it_waits_disturbs_nobody(
    peer: Peer, calls: FastCalls
) -> None:
    await answered(peer, calls)
    peer.stop_reading()
    big = "x" * 2**20
    sends = [
        spawn(calls.send(ECHO, (), (rid, big), rid, list), "send", awaited=True) for rid in RIDS[:2]
    ]
    await turns(20)
    sends[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await sends[0]
    other = ask(calls, RIDS[2])
    peer.read_on()
    await peer.asked_for(3)
    peer.client.write(b"".join(map(reply_to, RIDS)))
    assert await (await sends[1]) == [1, RIDS[1].encode()]
    assert await other == [1, RIDS[2].encode()]


async def test_a_send_that_was_cancelled_leaves_no_failure_that_nobody_looks_at(
    peer: Peer, calls: FastCalls, caplog: pytest.LogCaptureFixture
) -> None:
    await answered(peer, calls)
    peer.stop_reading()
    send = spawn(calls.send(ECHO, (), ("x" * 2**20,), "", list), "send", awaited=True)
    await turns(20)
    send.cancel()
    with pytest.raises(asyncio.CancelledError):
        await send
    await calls.aclose()
    gc.collect()
    await turns()
    assert not caplog.records


# --- bounds --------------------------------------------------------------------------------------


async def test_a_server_that_answers_nothing_makes_no_more_than_so_many_calls_wait(
    peer: Peer, calls: FastCalls
) -> None:
    await answered(peer, calls)
    asked = [ask(calls, rid_of(number)) for number in range(CALLS_MAX)]
    await turns()
    with pytest.raises(StoreUnavailable, match="too many calls"):
        await calls.run(ECHO, (), ("one more",), "one more")
    requests = await peer.asked_for(CALLS_MAX)
    assert len(requests) == CALLS_MAX
    peer.client.write(b"".join(reply_to(rid_of(number)) for number in range(CALLS_MAX)))
    await asyncio.gather(*asked)
    await answered(peer, calls)


async def test_a_server_that_reads_nothing_makes_no_more_than_so_many_bytes_wait(
    peer: Peer, calls: FastCalls
) -> None:
    await answered(peer, calls)
    peer.stop_reading()
    big = "x" * 2**20
    asked = [
        spawn(calls.run(ECHO, (), (rid_of(number), big), rid_of(number)), "big", awaited=True)
        for number in range(BYTES_MAX // 2**20 - 1)
    ]
    await turns()
    with pytest.raises(StoreUnavailable, match="too many calls"):
        await calls.run(ECHO, (), ("one more", big), "one more")
    peer.read_on()
    await peer.asked_for(len(asked))
    peer.client.write(b"".join(reply_to(rid_of(number)) for number in range(len(asked))))
    await asyncio.gather(*asked)
    await answered(peer, calls)


async def test_what_was_answered_makes_room(peer: Peer, calls: FastCalls) -> None:
    big = "x" * (BYTES_MAX // 4)
    for number in range(5):
        rid = rid_of(number)
        asked = spawn(calls.run(ECHO, (), (rid, big), rid), "big", awaited=True)
        await peer.asked_for(1)
        peer.client.write(reply_to(rid))
        assert await asked == [1, rid.encode()]


async def test_while_nothing_is_connected_no_more_than_so_many_calls_wait(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)  # whose handshake never ends
    listener.bind(str(tmp_path / "mute"))
    listener.listen()
    async with calls_to(f"unix://{tmp_path}/mute", deadline_s=0.5) as calls:
        asked = [ask(calls, rid_of(number)) for number in range(CALLS_MAX)]
        await turns()
        with pytest.raises(StoreUnavailable, match="too many calls"):
            await calls.run(ECHO, (), ("one more",), "one more")
        for told in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(told, StoreUnavailable)
    listener.close()


async def test_after_a_call_that_took_too_long_others_go_elsewhere_and_younger_ones_may_end(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Line] = []
    look = Line._look

    def counted(line: Line) -> None:
        looks.append(line)
        look(line)

    monkeypatch.setattr(Line, "_look", counted)
    async with calls_to(peer.url, deadline_s=1.0) as calls:
        await answered(peer, calls)
        before = peer.client
        old = ask(calls, RIDS[0])
        await peer.asked_for(1)
        await asyncio.sleep(0.5)
        young = ask(calls, RIDS[1])
        await peer.asked_for(1)
        with pytest.raises(StoreUnavailable, match="in time"):
            await old
        await turns(50)
        before.write(reply_to(RIDS[0]) + reply_to(RIDS[1]))
        assert await young == [1, RIDS[1].encode()]
        await answered(peer, calls)
        assert peer.connections == 2
        assert before is not peer.client
    assert len(looks) < 20  # what was given up is not looked at for ever


async def test_a_server_that_answers_no_call_at_all_is_left(peer: Peer) -> None:
    """Two calls that are given up one after the other are not each other's younger ones."""
    async with calls_to(peer.url, deadline_s=0.4) as calls:
        await answered(peer, calls)
        old = ask(calls, RIDS[0])
        await peer.asked_for(1)
        await asyncio.sleep(0.2)
        young = ask(calls, RIDS[1])
        for call in (old, young):
            with pytest.raises(StoreUnavailable, match="in time"):
                await call
        await asyncio.wait_for(peer.ended.wait(), 10.0)


# --- which server --------------------------------------------------------------------------------


async def test_calls_wait_until_a_new_server_is_accepted(redis_url: str) -> None:
    found: list[str] = []
    watch = ServerWatch(found.append)
    calls = FastCalls(
        open_connections(redis_url, 0.3, watch.greet), 0.3, lambda script, seconds: None
    )
    for told in await asyncio.gather(
        *(calls.command("PING") for _ in range(8)), return_exceptions=True
    ):
        assert isinstance(told, StoreUnavailable)
    (server_id,) = found
    watch.accept(server_id)
    assert await calls.command("PING") == b"PONG"
    await calls.aclose()


async def test_a_call_outlives_an_attempt_to_connect_that_began_before_it(redis_url: str) -> None:
    found: list[str] = []
    watch = ServerWatch(found.append)
    calls = FastCalls(
        open_connections(redis_url, 1.0, watch.greet), 1.0, lambda script, seconds: None
    )
    first = spawn(calls.command("PING"), "first", awaited=True)
    await asyncio.sleep(0.5)
    second = spawn(calls.command("PING"), "second", awaited=True)
    with pytest.raises(StoreUnavailable):
        await first
    watch.accept(found[0])
    assert await second == b"PONG"
    await calls.aclose()
