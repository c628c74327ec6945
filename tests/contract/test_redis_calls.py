"""Calls over a real network: bounded, sent once, each reply to who asked for it.

The server is real; where a reply must be lost, late or another's, a link stands before it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.adapters.redis_store.calls import CONNECTIONS_MAX
from gateway.adapters.redis_store.keys import shard_keys
from gateway.core.quota.entitle import Entitlement
from gateway.core.quota.reserve import ReserveCode
from gateway.core.quota.settle import SettleCode, SettleReply
from gateway.ports.quota_store import QuotaStore, StoreRejected, StoreUnavailable
from gateway.ports.tasks import spawn
from tests.contract.quota_samples import (
    ENDS_MS,
    PAYER,
    SCRIPTS,
    SHARD,
    STARTS_MS,
    Opened,
    ask,
    bring,
    correction,
    open_store,
    rid_of,
    settlement,
)
from tests.contract.redis_link import Crossed, Held, Link, is_cut, open_link, passes


@pytest.fixture
async def opened(redis_url: str, client: str) -> AsyncIterator[Opened]:
    """A store on the server, its scripts loaded and an account in force."""
    async with open_store(redis_url, client=client) as direct:
        for script in SCRIPTS.values():
            await direct.calls.command("SCRIPT", "LOAD", script.source)
        await bring(direct.store)
        yield direct


@pytest.fixture
async def link(redis_url: str, tmp_path: Path) -> AsyncIterator[Link]:
    async with open_link(redis_url, tmp_path) as through:
        yield through


@pytest.fixture
async def linked(link: Link, opened: Opened, client: str) -> AsyncIterator[Opened]:
    """A second gateway, whose calls go through the link."""
    async with open_store(link.url, client=client) as through:
        yield through


def statistics(redis_url: str) -> Any:
    with redis.Redis.from_url(redis_url) as client:
        return client.info("commandstats")


# --- a reply belongs to its call ----------------------------------------------------------------


async def test_a_reply_of_another_call_is_no_reply(linked: Opened, link: Link) -> None:
    link.on_reply = Crossed()
    found = await asyncio.gather(
        linked.store.reserve(ask(1)), linked.store.reserve(ask(2)), return_exceptions=True
    )
    for reply in found:
        assert isinstance(reply, StoreUnavailable)
        assert "belongs to another call" in str(reply)


@pytest.mark.parametrize("name", ["extend", "settle", "correct"])
async def test_each_script_that_names_a_rid_is_checked(
    linked: Opened, link: Link, name: str
) -> None:
    async def call(number: int) -> object:
        if name == "extend":
            return await linked.store.extend(PAYER, rid_of(number), 0, 1)
        if name == "correct":
            return await linked.store.correct(correction(number))
        return await (await linked.store.settle(settlement(number)))

    link.on_reply = Crossed()
    for reply in await asyncio.gather(call(1), call(2), return_exceptions=True):
        assert isinstance(reply, StoreUnavailable)
        assert "belongs to another call" in str(reply)


async def test_cancelled_at_any_moment_a_call_takes_no_reply_and_no_place(opened: Opened) -> None:
    chance = random.Random(20_230_320)
    ended: list[str] = []

    async def call(number: int) -> None:
        try:
            reply = await opened.store.reserve(ask(number, output_wanted=10 + number))
            assert reply.hold_tokens == 110 + number
            ended.append("answered")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    for first in range(0, 1000, 20):
        calls = [spawn(call(number), "call", awaited=True) for number in range(first, first + 20)]
        for _ in range(chance.randrange(30)):
            await asyncio.sleep(0)
            for running in chance.sample(calls, 2):
                running.cancel()  # perhaps for the second time
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError)
    assert min(ended.count("answered"), ended.count("cancelled")) > 100
    places = [await opened.store.settle(settlement(number)) for number in range(CONNECTIONS_MAX)]
    for number, reply in enumerate(places):  # every place was there, and its reply is its own
        assert (await reply).code in (SettleCode.SETTLED, SettleCode.NOTHING_OPEN), number


# --- a call is bounded ---------------------------------------------------------------------------


async def test_a_server_that_pauses_costs_no_more_than_the_deadline(
    opened: Opened, redis_url: str, client: str
) -> None:
    async with open_store(redis_url, deadline_s=0.15, client=client) as hasty:
        await hasty.store.shard_state(SHARD)
        with redis.Redis.from_url(redis_url) as server:
            server.execute_command("CLIENT", "PAUSE", 1000, "ALL")
        for number in (1, 2):  # over a connection that is there, then over a new one
            started_s = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await hasty.store.reserve(ask(number))
            assert 0.15 <= time.monotonic() - started_s < 0.9
    assert (await opened.store.reserve(ask())).code in (
        ReserveCode.HELD,  # after the pause; what the first asking did, only this one tells
        ReserveCode.HELD_BEFORE,
    )


async def test_a_late_reply_reaches_nobody(opened: Opened, link: Link, client: str) -> None:
    async with open_store(link.url, deadline_s=0.2, client=client) as hasty:
        await hasty.store.shard_state(SHARD)
        link.on_reply = held = Held()
        with pytest.raises(StoreUnavailable):
            await hasty.store.reserve(ask(1, output_wanted=11))
        assert held.arrived.is_set()
        link.on_reply = passes
        held.let_go.set()
        for number in range(2, 20):
            reply = await hasty.store.reserve(ask(number, output_wanted=10 + number))
            assert reply.hold_tokens == 110 + number
        again = await hasty.store.reserve(ask(1))
        assert (again.code, again.hold_tokens) == (ReserveCode.HELD_BEFORE, 111)


async def test_connecting_and_asking_share_one_deadline(
    opened: Opened, link: Link, client: str
) -> None:
    link.delay_s = 0.2  # of each of the handshake's four replies, and of the call's own
    async with open_store(link.url, deadline_s=0.9, client=client) as hasty:
        with pytest.raises(StoreUnavailable):
            await hasty.store.reserve(ask())


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path, client: str) -> None:
    async with open_store(f"unix://{tmp_path}/nobody", client=client) as lost:
        with pytest.raises(StoreUnavailable, match=r"ConnectionError|FileNotFoundError"):
            await lost.store.reserve(ask())


async def test_once_closed_nothing_connects_again(opened: Opened, link: Link, client: str) -> None:
    async with open_store(link.url, client=client) as through:
        await through.store.shard_state(SHARD)
    connections = link.connections
    for call in (through.store.reserve(ask()), through.calls.command("PING")):
        with pytest.raises(StoreUnavailable, match="closed"):
            await call
    with pytest.raises(StoreUnavailable, match="closed"):
        await through.calls.commands([("PING",)])
    assert link.connections == connections


async def test_closing_ends_also_what_waits_on_a_connection_that_was_given_up(
    opened: Opened, link: Link, client: str
) -> None:
    link.on_reply = held = Held()
    link.delay_s = 0.2  # of each reply of the handshake
    async with open_store(link.url, deadline_s=2.0, client=client) as hasty:
        first = asyncio.ensure_future(hasty.store.reserve(ask(1)))
        await held.arrived.wait()  # it began before it was connected, so it is over sooner
        younger = asyncio.ensure_future(hasty.store.reserve(ask(2)))
        with pytest.raises(StoreUnavailable):
            await first
        link.delay_s = 0.0
        await hasty.calls.command("PING")  # over another connection
        assert not younger.done()
    with pytest.raises(StoreUnavailable, match=r"closed|Connection"):
        await asyncio.wait_for(younger, 0.5)
    held.let_go.set()


# --- nothing is sent twice -----------------------------------------------------------------------


async def test_a_connection_that_breaks_after_the_script_ran_sends_nothing_again(
    linked: Opened, link: Link, redis_url: str
) -> None:
    await linked.store.reserve(ask(1))
    scripts, ran = link.scripts, statistics(redis_url)["cmdstat_evalsha"]["calls"]
    link.on_reply = is_cut
    with pytest.raises(StoreUnavailable):
        await linked.store.reserve(ask(2))
    assert link.scripts == scripts + 1
    assert statistics(redis_url)["cmdstat_evalsha"]["calls"] == ran + 1
    link.on_reply = passes
    assert (await linked.store.reserve(ask(2))).code is ReserveCode.HELD_BEFORE


async def test_a_charge_whose_reply_was_lost_is_made_once(linked: Opened, link: Link) -> None:
    await linked.store.reserve(ask())
    link.on_reply = is_cut
    with pytest.raises(StoreUnavailable):
        await (await linked.store.settle(settlement()))
    link.on_reply = passes
    reply = await (await linked.store.settle(settlement()))
    assert (reply.code, reply.used_tokens, reply.held_tokens) == (SettleCode.NOTHING_OPEN, 120, 0)


async def test_a_server_that_forgot_its_scripts_is_given_them_once(
    opened: Opened, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
        client.config_resetstat()
    assert (await opened.store.reserve(ask())).code is ReserveCode.HELD
    assert (await opened.store.reserve(ask(2))).code is ReserveCode.HELD
    counted = statistics(redis_url)
    assert counted["cmdstat_evalsha"]["calls"] == 3  # the one that found no script, and two
    assert counted["cmdstat_script|load"]["calls"] == 1


async def test_a_settlement_heals_a_server_that_forgot_its_scripts(
    opened: Opened, redis_url: str
) -> None:
    await opened.store.reserve(ask())
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
    assert (await (await opened.store.settle(settlement()))).code is SettleCode.SETTLED


async def test_connections_that_the_server_closed_cost_one_call_at_most(
    opened: Opened, redis_url: str
) -> None:
    await asyncio.gather(*(opened.store.reserve(ask(number)) for number in range(8)))
    with redis.Redis.from_url(redis_url) as client:
        for other in client.client_list():
            if int(other["id"]) != client.client_id():
                client.client_kill_filter(_id=other["id"])
    with suppress(StoreUnavailable):  # our loop has not run since, so it may not know yet
        await opened.store.reserve(ask(8))
    replies = [await opened.store.reserve(ask(number)) for number in range(9, 20)]
    assert {reply.code for reply in replies} == {ReserveCode.HELD}


# --- an answer may end before its settlement is confirmed, not before it is sent ----------------


async def test_when_settle_returns_its_bytes_are_out_of_our_hands(
    opened: Opened, redis_url: str
) -> None:
    await opened.store.reserve(ask())
    reply = await opened.store.settle(settlement())
    # From here on our event loop does not run: only what the kernel has can reach the server.
    with redis.Redis.from_url(redis_url) as client:
        until_s = time.monotonic() + 10
        while client.zcard(shard_keys(SHARD).leases) and time.monotonic() < until_s:
            pass
        assert client.zcard(shard_keys(SHARD).leases) == 0
        assert client.xlen(shard_keys(SHARD).outbox) == 1
    assert (await reply).code is SettleCode.SETTLED


# --- several commands at once --------------------------------------------------------------------


async def test_all_epochs_are_asked_for_in_one_write(opened: Opened, redis_url: str) -> None:
    expected = {SHARD: 1, 1 - SHARD: 0}
    assert await opened.store.epochs() == expected
    with redis.Redis.from_url(redis_url) as client:
        before: Any = client.info("stats")
        assert await opened.store.epochs() == expected
        after: Any = client.info("stats")
    reads = after["total_reads_processed"] - before["total_reads_processed"]
    assert reads == 2  # theirs and that of INFO itself


async def test_one_that_is_refused_leaves_no_reply_behind(opened: Opened, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(shard_keys(1 - SHARD).meta, "text")
        for _ in range(3):
            with pytest.raises(StoreRejected, match="WRONGTYPE"):
                await opened.store.epochs()
        client.delete(shard_keys(1 - SHARD).meta)
    assert await opened.store.epochs() == {SHARD: 1, 1 - SHARD: 0}


# --- what is told ------------------------------------------------------------------------------


async def test_a_call_that_is_wrong_in_itself_is_rejected_and_costs_no_connection(
    linked: Opened, link: Link
) -> None:
    for _ in range(3):
        with pytest.raises(StoreRejected, match=r"^reserve: an argument is out of its range"):
            await linked.store.reserve(ask(choices=0))
    assert link.connections == 1


WRONG_CALLS: dict[str, Callable[[QuotaStore], Awaitable[object]]] = {
    "reserve": lambda store: store.reserve(ask(lease_ms=-1)),
    "extend": lambda store: store.extend(PAYER, rid_of(1), -1, 1),
    "settle": lambda store: settled(store, charged_tokens=-1),
    "correct": lambda store: store.correct(correction(stream_id="1")),
    "entitle": lambda store: store.entitle(Entitlement(PAYER, -1, STARTS_MS, 0), ENDS_MS),
    "hydrate": lambda store: store.hydrate_begin(PAYER, None, -1, ENDS_MS),
    "open": lambda store: store.open_shard(SHARD, 0, "0-0", 0, ()),
}


async def settled(store: QuotaStore, **changes: int) -> SettleReply:
    return await (await store.settle(settlement(**changes)))


@pytest.mark.parametrize("name", WRONG_CALLS)
async def test_each_script_s_own_words_are_a_rejection(opened: Opened, name: str) -> None:
    with pytest.raises(StoreRejected, match=rf"^{name}: an argument is not "):
        await WRONG_CALLS[name](opened.store)


async def test_a_spoilt_key_is_rejected_and_not_taken_for_trouble(
    opened: Opened, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(shard_keys(SHARD).outbox, "text")
    await opened.store.reserve(ask())
    with pytest.raises(StoreRejected, match="WRONGTYPE"):
        await (await opened.store.settle(settlement()))


async def test_a_server_without_memory_is_unavailable_and_still_takes_charges(
    opened: Opened, redis_url: str
) -> None:
    await opened.store.reserve(ask())
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreUnavailable, match="OutOfMemory"):
                await opened.store.reserve(ask(2))
            assert (await (await opened.store.settle(settlement()))).code is SettleCode.SETTLED
        finally:
            client.config_set("maxmemory", 0)


async def test_each_answered_call_is_seen_once_under_its_scripts_name(opened: Opened) -> None:
    opened.seen.clear()
    await opened.store.reserve(ask())
    await opened.store.snapshot(PAYER)
    await (await opened.store.settle(settlement()))
    with pytest.raises(StoreRejected):
        await opened.store.reserve(ask(2, choices=0))
    assert opened.seen == ["reserve", "snapshot", "settle"]
