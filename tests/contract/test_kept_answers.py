"""Kept answers on a real Redis: taken once, ended by whoever took them, and never another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis
from msgspec import structs

from gateway.adapters.redis_store.answers import RedisAnswers
from gateway.adapters.redis_store.keys import answer_key
from gateway.core.idempotency import Remembered, encode_remembered
from gateway.ports.quota_store import StoreRejected, StoreUnavailable
from tests.contract.quota_samples import SCRIPTS, SHARDS, open_store, rid_of
from tests.contract.redis_link import Crossed, is_cut, open_link, passes

LIVES_MS = 70_000
KEEP_MS = 86_400_000
NAME = answer_key("ada", "once", SHARDS)


def running(number: int = 1, user_id: str = "ada", key: str = "once") -> Remembered:
    return Remembered(user_id, key, rid_of(number), b"what was asked")


def kept(first: Remembered, body: bytes = b'{"text": "\xff\r\n\x00"}') -> Remembered:
    return structs.replace(
        first, state="kept", status=200, content_type="application/json", body=body
    )


@pytest.fixture
async def two(redis_url: str) -> AsyncIterator[list[RedisAnswers]]:
    """Those of two gateways, on connections of their own."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_store(redis_url)) for _ in range(2)]
        yield [RedisAnswers(each.calls, SCRIPTS["keep"], SHARDS) for each in opened]


@pytest.fixture
def answers(two: list[RedisAnswers]) -> RedisAnswers:
    return two[0]


def server(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


async def test_a_key_is_taken_once_and_then_tells_who_has_it(two: list[RedisAnswers]) -> None:
    assert await two[0].begin(running(1), LIVES_MS) is None
    for each in two:
        assert await each.begin(running(2), LIVES_MS) == running(1)
    assert await two[1].begin(running(1), LIVES_MS) is None  # the same call, asking again


async def test_of_fifty_calls_of_two_gateways_exactly_one_begins(two: list[RedisAnswers]) -> None:
    for round_number in range(20):
        calls = [running(number, key=f"round {round_number}") for number in range(50)]
        found = await asyncio.gather(
            *(two[number % 2].begin(call, LIVES_MS) for number, call in enumerate(calls))
        )
        (first,) = [call for call, told in zip(calls, found, strict=True) if told is None]
        assert {each for each in found if each is not None} == {first}


async def test_an_answer_is_found_to_the_byte_by_every_gateway(two: list[RedisAnswers]) -> None:
    await two[0].begin(running(), LIVES_MS)
    large = kept(running(), bytes(range(256)) * 1024)
    assert await two[0].keep(running(), large, KEEP_MS)
    assert await two[1].begin(running(2), LIVES_MS) == large


async def test_a_key_that_is_forgotten_is_free(two: list[RedisAnswers]) -> None:
    await two[0].begin(running(1), LIVES_MS)
    assert await two[0].forget(running(1))
    assert await two[1].begin(running(2), LIVES_MS) is None


async def test_a_call_that_lost_its_key_changes_nothing_of_the_other_s(
    two: list[RedisAnswers],
) -> None:
    await two[1].begin(running(2), LIVES_MS)
    late = running(1)
    assert not await two[0].keep(late, kept(late), KEEP_MS)
    assert not await two[0].keep(late, late, LIVES_MS)
    assert not await two[0].forget(late)
    assert await two[0].begin(running(3), LIVES_MS) == running(2)


async def test_every_entry_has_its_time_to_live(answers: RedisAnswers, redis_url: str) -> None:
    with server(redis_url) as client:
        await answers.begin(running(), 5_000)
        assert 0 < client.pttl(NAME) <= 5_000
        await answers.begin(running(2), LIVES_MS)  # asking does not lengthen it
        assert 0 < client.pttl(NAME) <= 5_000
        assert await answers.keep(running(), running(), LIVES_MS)
        assert 60_000 < client.pttl(NAME) <= LIVES_MS
        await answers.keep(running(), kept(running()), KEEP_MS)
        assert 86_000_000 < client.pttl(NAME) <= KEEP_MS


async def test_a_key_whose_call_gives_no_sign_of_life_is_free_again(
    answers: RedisAnswers, redis_url: str
) -> None:
    await answers.begin(running(1), 1)
    async with asyncio.timeout(10):
        while (found := await answers.begin(running(2), LIVES_MS)) is not None:
            assert found == running(1)


async def test_users_and_keys_do_not_meet(answers: RedisAnswers) -> None:
    for number, (user_id, key) in enumerate(
        [("ada", "once"), ("ada", "twice"), ("bob", "once"), ("ada", "ONCE")]
    ):
        assert await answers.begin(running(number, user_id, key), LIVES_MS) is None


async def test_the_name_in_redis_tells_neither_user_nor_key(
    answers: RedisAnswers, redis_url: str
) -> None:
    await answers.begin(running(1, "ada.lovelace", "order-of-ada"), LIVES_MS)
    with server(redis_url) as client:
        (name,) = client.keys()
    assert b"ada" not in name


# --- what must not become an answer ---------------------------------------------------------------


async def test_a_reply_that_is_another_user_s_is_no_reply(
    answers: RedisAnswers, redis_url: str
) -> None:
    for other in (running(1, "bob"), running(1, "ada", "twice")):
        with server(redis_url) as client:
            client.set(NAME, encode_remembered(kept(other)))
        with pytest.raises(StoreUnavailable, match="belongs to another call"):
            await answers.begin(running(2), LIVES_MS)


async def test_replies_that_were_crossed_end_nothing_for_sure(
    answers: RedisAnswers, redis_url: str, tmp_path: Path
) -> None:
    async with open_link(redis_url, tmp_path) as link, open_store(link.url) as through:
        linked = RedisAnswers(through.calls, SCRIPTS["keep"], SHARDS)
        calls = [running(1, "ada"), running(2, "bob")]
        for call in calls:
            await linked.begin(call, LIVES_MS)
            await linked.keep(call, call, LIVES_MS)  # from here on the server has the script
        link.on_reply = Crossed()
        found = await asyncio.gather(
            *(linked.forget(call) for call in calls), return_exceptions=True
        )
        assert all(isinstance(each, StoreUnavailable) for each in found)
        link.on_reply = passes


async def test_an_ending_whose_reply_was_lost_may_be_sent_again(
    answers: RedisAnswers, redis_url: str, tmp_path: Path
) -> None:
    async with open_link(redis_url, tmp_path) as link, open_store(link.url) as through:
        linked = RedisAnswers(through.calls, SCRIPTS["keep"], SHARDS)
        await linked.begin(running(), LIVES_MS)
        await linked.keep(running(), running(), LIVES_MS)
        link.on_reply = is_cut
        with pytest.raises(StoreUnavailable):
            await linked.keep(running(), kept(running()), KEEP_MS)
        link.on_reply = passes
        assert await linked.keep(running(), kept(running()), KEEP_MS)
    assert await answers.begin(running(2), LIVES_MS) == kept(running())


@pytest.mark.parametrize("raw", [b"", b"{}", b"\x80", b"\xff" * 40])
async def test_what_cannot_be_read_is_neither_an_answer_nor_a_free_key(
    answers: RedisAnswers, redis_url: str, raw: bytes
) -> None:
    with server(redis_url) as client:
        client.set(NAME, raw)
        with pytest.raises(StoreRejected):
            await answers.begin(running(), LIVES_MS)
        client.delete(NAME)
        client.hset(NAME, "a", "b")
        with pytest.raises(StoreRejected, match="WRONGTYPE"):
            await answers.begin(running(), LIVES_MS)


async def test_without_a_server_every_call_says_so(tmp_path: Path) -> None:
    async with open_store(f"unix://{tmp_path}/nobody") as lost:
        answers = RedisAnswers(lost.calls, SCRIPTS["keep"], SHARDS)
        for call in (
            answers.begin(running(), LIVES_MS),
            answers.keep(running(), running(), LIVES_MS),
            answers.forget(running()),
        ):
            with pytest.raises(StoreUnavailable):
                await call


async def test_without_memory_no_key_is_taken(answers: RedisAnswers, redis_url: str) -> None:
    with server(redis_url) as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreUnavailable, match="OutOfMemoryError"):
                await answers.begin(running(), LIVES_MS)
        finally:
            client.config_set("maxmemory", 0)
