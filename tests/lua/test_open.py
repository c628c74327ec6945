"""open.lua: an open shard is left alone, a new one goes on where the ledger stopped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from tests.lua.script_calls import NOW_MS, Lua, Value


def server_ms(lua: Lua) -> int:
    seconds, micros = lua.client.time()
    return int(seconds * 1000 + micros // 1000)


def ids(lua: Lua) -> list[str]:
    return [stream_id.decode() for stream_id, _ in lua.client.xrange(lua.keys.of_shard.outbox)]


def last_id(lua: Lua) -> str:
    info = lua.client.xinfo_stream(lua.keys.of_shard.outbox)
    return str(info["last-generated-id"].decode())


def test_a_new_shard_takes_what_it_is_given(bare: Lua) -> None:
    before_ms = server_ms(bare)
    assert bare.run("open", epoch=7, shards=16, schema=3, quiet=50, awaited="g") == [1, 7, 16, 3]
    meta = bare.client.hgetall(bare.keys.of_shard.meta)
    assert before_ms + 50 <= int(meta.pop(b"u")) <= server_ms(bare) + 50
    assert meta == {b"e": b"7", b"n": b"16", b"v": b"3", b"w": b"g"}
    assert len(bare.everything()) == 1  # the ledger has seen nothing, so there is no stream yet


@pytest.mark.parametrize("epoch", [1, 4, 5])
def test_an_epoch_that_is_reached_stays(bare: Lua, epoch: int) -> None:
    bare.open(epoch=5)
    bare.bring()
    bare.reserve()
    bare.settle()
    before = bare.everything()
    reply = bare.run("open", epoch=epoch, shards=4, schema=4, cursor=f"{2**50}-0", quiet=9)
    assert reply == [0, 5, 1, 3]
    assert bare.everything() == before


def test_a_higher_epoch_is_raised_and_puts_no_account_in_force(lua: Lua) -> None:
    lua.reserve()
    newest = lua.settle().stream_id
    changes: dict[str, Value] = {
        "epoch": 3,
        "shards": 9,
        "cursor": newest,
        "quiet": 7,
        "awaited": "g1 g2",
    }
    assert lua.run("open", **changes, now=NOW_MS) == [1, 3, 1, 3]
    meta = lua.client.hgetall(lua.keys.of_shard.meta)  # as many shards as there always were
    wanted = {"e": 3, "n": 1, "v": 3, "clock": "test", "u": NOW_MS + 7, "w": "g1 g2"}
    assert meta == {name.encode(): str(value).encode() for name, value in wanted.items()}
    assert (ids(lua), last_id(lua)) == ([newest], newest)
    assert lua.run("snapshot") == [0]
    assert lua.reserve("next", now=NOW_MS + 7).code == -2


def test_an_epoch_raised_after_a_loss_goes_on_past_what_the_ledger_has(lua: Lua) -> None:
    lua.reserve()
    ahead = f"{2**50}-7"
    lua.run("open", epoch=2, cursor=ahead, now=NOW_MS)
    assert lua.settle().stream_id == f"{2**50}-8"
    assert ids(lua) == [f"{2**50}-8"]


def test_the_stream_goes_on_after_the_ledgers_cursor(bare: Lua) -> None:
    ahead = f"{2**50}-7"  # of a server whose clock was far ahead
    bare.run("open", cursor=ahead)
    assert (ids(bare), last_id(bare)) == ([], ahead)
    bare.client.hset(bare.keys.of_shard.meta, "clock", "test")
    bare.bring()
    bare.reserve()
    assert bare.settle().stream_id == f"{2**50}-8"


@pytest.mark.parametrize(
    ("there", "cursor", "goes_on_after"),
    [("5-3", "9-0", "9-0"), ("5-3", "5-4", "5-4"), ("5-3", "5-3", "5-3"), ("10-0", "9-9", "10-0")],
)
def test_a_stream_that_outlived_its_meta_is_never_behind_the_cursor(
    bare: Lua, there: str, cursor: str, goes_on_after: str
) -> None:
    bare.client.xadd(bare.keys.of_shard.outbox, {"e": "an event"}, there)
    assert bare.run("open", epoch=2, cursor=cursor)[0] == 1
    assert (ids(bare), last_id(bare)) == ([there], goes_on_after)


@pytest.mark.parametrize(
    "changes",
    [
        {name: text}
        for name in ("epoch", "shards", "schema")
        for text in ("", "x", "-1", "0", "1.5", "1e3", "nan")
    ]
    + [{"quiet": text} for text in ("", "x", "-1", "1.5")]
    + [{"cursor": text} for text in ("", "5", "5-", "-5", "5-5-5", "$", "+")],
    ids=str,
)
def test_a_wrong_argument_is_told_and_changes_nothing(bare: Lua, changes: dict[str, Value]) -> None:
    with pytest.raises(redis.ResponseError, match=r"^open: an argument"):
        bare.run("open", **changes)
    assert bare.everything() == {}


@pytest.mark.parametrize("cursor", ["5-5", f"{2**65}-0"])
def test_what_cannot_take_the_cursor_is_not_opened(bare: Lua, cursor: str) -> None:
    if cursor == "5-5":
        bare.client.set(bare.keys.of_shard.outbox, "not a stream")
    before = bare.everything()
    with pytest.raises(redis.ResponseError):
        bare.run("open", cursor=cursor)
    assert bare.everything() == before


def test_a_clock_of_the_caller_is_refused_where_meta_does_not_allow_it(bare: Lua) -> None:
    with pytest.raises(redis.ResponseError, match=r"^open: a clock"):
        bare.run("open", now=NOW_MS)
    assert bare.everything() == {}


def test_it_is_refused_when_memory_is_full(lua: Lua, fill_memory: Callable[[], None]) -> None:
    before = lua.everything()
    fill_memory()
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        lua.run("open", epoch=2, now=NOW_MS)
    assert lua.everything() == before
