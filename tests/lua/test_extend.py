"""extend.lua: a heartbeat lengthens a lease, and nothing else comes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from tests.lua.script_calls import FAR_MS, LEASE_MS, NOW_MS, RID, STARTS_MS, TAIL, Lua, Value


def server_ms(lua: Lua) -> int:
    seconds, micros = lua.client.time()
    return int(seconds * 1000 + micros // 1000)


def test_the_lease_runs_anew_from_the_servers_time(lua: Lua) -> None:
    lua.reserve()
    before_ms = server_ms(lua)
    assert lua.extend(lease=LEASE_MS) == [1, RID]
    lease = lua.lease()
    assert lease is not None
    assert before_ms + LEASE_MS <= lease <= server_ms(lua) + LEASE_MS


def test_progress_is_noted_and_never_falls(lua: Lua) -> None:
    lua.reserve()
    for told, noted in ((7, 7), (3, 7), (FAR_MS, FAR_MS), (0, FAR_MS)):
        assert lua.extend(progress=told)[0] == 1
        assert lua.hold() == f"h 50 150 0 {STARTS_MS} {NOW_MS} {noted} {TAIL}"


def test_it_touches_no_figure_of_the_account(lua: Lua) -> None:
    lua.reserve()
    before = lua.client.hgetall(lua.keys.account)
    lua.extend(progress=10)
    assert lua.client.hgetall(lua.keys.account) == before


@pytest.mark.parametrize("kind", ["settle", "release", "expire"])
def test_an_ended_hold_stays_ended(lua: Lua, kind: str) -> None:
    lua.reserve()
    lua.settle(kind=kind, now=FAR_MS)
    before = lua.everything()
    assert lua.extend() == [0, RID]
    assert lua.everything() == before


def test_a_rid_never_seen_gets_no_lease(lua: Lua) -> None:
    lua.settle("released", kind="release")
    before = lua.everything()
    assert lua.extend("unseen") == [0, "unseen"]
    assert lua.extend("released") == [0, "released"]
    assert lua.everything() == before


def test_a_tail_of_any_bytes_survives(lua: Lua) -> None:
    tail = b'{"tag":"a b\n% \\u0000"}' + bytes(range(256))
    lua.reserve(tail=tail)
    lua.extend(progress=5)
    assert lua.client.hget(lua.keys.holds, RID).endswith(b" 5 " + tail)


@pytest.mark.parametrize(
    "changes",
    [{name: text} for name in ("progress", "lease") for text in ("", "x", "-1", "1.5", "inf")]
    + [{"rid": ""}],
    ids=str,
)
def test_a_wrong_argument_is_told_and_changes_nothing(lua: Lua, changes: dict[str, Value]) -> None:
    lua.reserve()
    before = lua.everything()
    with pytest.raises(redis.ResponseError, match=r"^extend: an argument"):
        lua.run("extend", **changes)
    assert lua.everything() == before


@pytest.mark.parametrize("place", range(2))
def test_a_key_of_a_wrong_type_stops_it_before_it_writes(lua: Lua, place: int) -> None:
    lua.reserve()
    lua.spoil("extend", place)
    before = lua.everything()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        lua.extend(progress=9)
    assert lua.everything() == before


def test_a_full_memory_does_not_end_a_stream(lua: Lua, fill_memory: Callable[[], None]) -> None:
    lua.reserve()
    fill_memory()
    assert lua.extend(progress=9) == [1, RID]
