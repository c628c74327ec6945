"""The outbox as the drain reads it, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.embedded import start_redis
from gateway.adapters.redis_store.clients import open_client
from gateway.adapters.redis_store.keys import shard_keys
from gateway.adapters.redis_store.streams import RedisStreams
from gateway.adapters.redis_store.urls import is_cluster
from gateway.ports.outbox import Outbox, OutboxEntry
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn
from tests.contract.ledger_samples import until
from tests.contract.quota_samples import Jobs, open_jobs

SHARDS = 3
BEGINNING = dict.fromkeys(range(SHARDS), "0-0")
# An approximate trim drops whole nodes of a stream, 100 entries each by default.
NODE = 100


@pytest.fixture
async def jobs(each_url: str) -> AsyncIterator[Jobs]:
    async with open_jobs(each_url, SHARDS) as opened:
        yield opened


@pytest.fixture
def client(jobs: Jobs) -> Any:
    return jobs.client


@pytest.fixture
def outbox(jobs: Jobs) -> Outbox:
    return jobs.streams


async def put(client: Any, shard: int, *stream_ids: str) -> None:
    for stream_id in stream_ids:
        fields = {"e": f"event {stream_id}", "b": "1 2 3"}
        await client.xadd(shard_keys(shard).outbox, fields, stream_id)


async def ids(client: Any, shard: int = 0) -> list[str]:
    return [entry[0].decode() for entry in await client.xrange(shard_keys(shard).outbox)]


async def test_both_parts_of_an_entry_come_raw(outbox: Outbox, client: Any) -> None:
    parts = {"e": bytes(range(256)), "b": b"1 2"}
    await client.xadd(shard_keys(1).outbox, parts, "5-1")
    (entry,) = await outbox.read(BEGINNING, 10, 1)
    assert entry == OutboxEntry(1, "5-1", parts["e"], parts["b"])


async def test_what_has_no_parts_is_read_all_the_same(outbox: Outbox, client: Any) -> None:
    await client.xadd(shard_keys(0).outbox, {"strange": "1"}, "5-1")
    (entry,) = await outbox.read(BEGINNING, 10, 1)
    assert (entry.event_json, entry.script_part) == (b"", b"")


async def test_each_shard_is_read_on_from_its_own_cursor(outbox: Outbox, client: Any) -> None:
    await put(client, 0, "1-0", "1-1", "2-0")
    await put(client, 1, "1-0", "9-0")
    await put(client, 2, "4-0")
    entries = await outbox.read({0: "1-0", 1: "0-0", 2: "4-0"}, 10, 1)
    assert [(entry.shard, entry.stream_id) for entry in entries] == [
        *((0, "1-1"), (0, "2-0"), (1, "1-0"), (1, "9-0"))
    ]


async def test_a_batch_is_limited_for_each_shard_and_the_next_goes_on(
    outbox: Outbox, client: Any
) -> None:
    await put(client, 0, *(f"{n}-0" for n in range(1, 6)))
    await put(client, 1, "7-0")
    cursors, batches = dict(BEGINNING), []
    while entries := await outbox.read(cursors, 2, 1):
        batches.append([entry.stream_id for entry in entries])
        cursors |= {entry.shard: entry.stream_id for entry in entries}
    assert batches == [["1-0", "2-0", "7-0"], ["3-0", "4-0"], ["5-0"]]


@pytest.mark.parametrize("wait_ms", [0, 1])
async def test_a_read_ends_when_there_is_nothing(outbox: Outbox, wait_ms: int) -> None:
    async with asyncio.timeout(5):
        assert await outbox.read(BEGINNING, 10, wait_ms) == []


async def test_of_no_shards_nothing_is_read(outbox: Outbox) -> None:
    assert await outbox.read({}, 10, 1) == []


async def test_a_waiting_read_comes_back_with_the_first_event(
    outbox: Outbox, client: Any, each_url: str
) -> None:
    async def waits() -> bool:  # of a cluster, new events are looked for now and then
        return is_cluster(each_url) or bool((await client.info("clients"))["blocked_clients"])

    reading = spawn(outbox.read(BEGINNING, 10, 5_000), "read", awaited=True)
    await until(waits)
    await put(client, 2, "5-0")
    async with asyncio.timeout(4):
        assert [entry.stream_id for entry in await reading] == ["5-0"]


async def test_a_server_started_anew_is_another_one(
    outbox: Outbox, client: Any, tmp_path: Path
) -> None:
    first = await outbox.server_id()
    await client.flushall()
    assert await outbox.server_id() == first
    found = [first]
    for _ in range(2):
        server = await start_redis(tmp_path)
        other = open_client(server.url)
        found.append(await RedisStreams(other, SHARDS).server_id())
        await other.aclose()
        await server.stop()
    assert len(set(found)) == 3
    with pytest.raises(StoreUnavailable, match=r"^INFO: "):
        await RedisStreams(other, SHARDS).server_id()


async def test_what_lies_at_a_cursor_is_told_where_it_still_is(outbox: Outbox, client: Any) -> None:
    await put(client, 0, "1-0", "1-1", "2-0")
    await put(client, 1, "1-0")
    assert await outbox.at({0: "1-1", 1: "9-0", 2: "1-0"}) == [
        OutboxEntry(0, "1-1", b"event 1-1", b"1 2 3")
    ]
    assert await outbox.at({}) == []


async def test_the_backlog_is_what_lies_past_the_cursor(outbox: Outbox, client: Any) -> None:
    await put(client, 0, "1-0", "1-1", "2-0")
    assert await outbox.backlog(0, "0-0") == (3, "1-0")
    assert await outbox.backlog(0, "1-0") == (2, "1-1")
    assert await outbox.backlog(0, "2-0") == (0, None)
    assert await outbox.backlog(1, "0-0") == (0, None)


async def test_a_long_backlog_is_counted_to_a_thousand(outbox: Outbox, client: Any) -> None:
    await put(client, 0, *(f"{n}-0" for n in range(1, 1011)))
    assert await outbox.backlog(0, "5-0") == (1000, "6-0")
    assert await outbox.backlog(0, "20-0") == (990, "21-0")


# --- trimming ---------------------------------------------------------------------------------

ROOMY, TINY = 2**30, 1
FILLED = [f"{n}-0" for n in range(1, 5 * NODE + 1)]


@pytest.fixture
async def filled(client: Any, outbox: Outbox) -> Outbox:
    await put(client, 0, *FILLED)
    return outbox


def kept_from(found: list[str]) -> int:
    """How many of the oldest are gone; the rest must be there without a gap."""
    gone = len(FILLED) - len(found)
    assert found == FILLED[gone:]
    return gone


async def test_what_is_old_and_drained_goes(filled: Outbox, client: Any) -> None:
    await filled.trim(0, "301-0", ROOMY, cursor="450-0")
    assert kept_from(await ids(client)) == 3 * NODE


@pytest.mark.parametrize("bytes_max", [ROOMY, TINY])
@pytest.mark.parametrize("before", ["0-0", "301-0", "999999-0", "9-0"])
@pytest.mark.parametrize("cursor", ["0-0", "1-0", "99-0", "250-0", "500-0"])
async def test_nothing_past_the_cursor_is_ever_dropped(
    filled: Outbox, client: Any, cursor: str, before: str, bytes_max: int
) -> None:
    await filled.trim(0, before, bytes_max, cursor)
    assert kept_from(await ids(client)) <= int(cursor.split("-")[0])


async def test_over_its_size_all_that_is_drained_goes_whatever_its_age(
    filled: Outbox, client: Any
) -> None:
    await filled.trim(0, "1-0", ROOMY, cursor="450-0")
    assert kept_from(await ids(client)) == 0
    await filled.trim(0, "1-0", TINY, cursor="450-0")
    assert kept_from(await ids(client)) == 4 * NODE


async def test_ids_are_compared_as_numbers(filled: Outbox, client: Any) -> None:
    await filled.trim(0, "1000-0", ROOMY, cursor="201-0")  # as text, 1000-0 is the smaller one
    assert kept_from(await ids(client)) == 2 * NODE


async def test_a_shard_without_events_needs_no_trimming(outbox: Outbox, client: Any) -> None:
    await outbox.trim(0, "5-0", TINY, "0-0")
    assert await client.dbsize() == 0


async def test_trouble_is_told_as_the_store_being_unavailable(outbox: Outbox, client: Any) -> None:
    await client.set(shard_keys(0).outbox, "not a stream")
    with pytest.raises(StoreUnavailable, match=r"^XREAD: "):
        await outbox.read({0: "0-0"}, 10, 1)
    with pytest.raises(StoreUnavailable, match=r"^XRANGE: "):
        await outbox.at({0: "1-0"})
    with pytest.raises(StoreUnavailable, match=r"^XRANGE: "):
        await outbox.backlog(0, "0-0")
    with pytest.raises(StoreUnavailable, match=r"^XTRIM: "):
        await outbox.trim(0, "5-0", TINY, "0-0")
