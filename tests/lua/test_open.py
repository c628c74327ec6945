"""open.lua: an open shard is left alone, a new one goes on where the ledger stopped."""

from __future__ import annotations

import pytest
import redis

from tests.lua.script_calls import Lua, Value


def ids(lua: Lua) -> list[str]:
    return [stream_id.decode() for stream_id, _ in lua.client.xrange(lua.keys.of_shard.outbox)]


def last_id(lua: Lua) -> str:
    info = lua.client.xinfo_stream(lua.keys.of_shard.outbox)
    return str(info["last-generated-id"].decode())


def test_a_new_shard_takes_what_it_is_given(bare: Lua) -> None:
    assert bare.run("open", epoch=7, shards=16, schema=1) == [1, 7, 16, 1]
    meta = bare.client.hgetall(bare.keys.of_shard.meta)
    assert meta == {b"e": b"7", b"n": b"16", b"v": b"1"}
    assert len(bare.everything()) == 1  # the ledger has seen nothing, so there is no stream yet


def test_an_open_shard_stays_as_it_is(lua: Lua) -> None:
    lua.reserve()
    lua.settle()
    before = lua.everything()
    reply = lua.run("open", epoch=9, shards=4, schema=3, cursor=f"{2**50}-0")
    assert reply == [0, 1, 1, 1]
    assert lua.everything() == before


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
