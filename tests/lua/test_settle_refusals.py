"""settle.lua when the call, the memory or a key is wrong: never half a charge, never two."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import redis

from tests.lua.script_calls import ENDS_MS, NOW_MS, RID, Lua, Value, event_of

WRONG_AMOUNTS = ("", "x", "-1", "1.5", "nan", "inf", str(2**53))
AMOUNTS = ("epoch", "period", "charge", "cost", "grace")
META, ACCOUNT, HOLDS, LEASES, OUTBOX, ENDINGS = range(6)


@pytest.mark.parametrize(
    "changes",
    [{name: text} for name in AMOUNTS for text in WRONG_AMOUNTS] + [{"rid": ""}, {"kind": "late"}],
    ids=str,
)
def test_a_wrong_argument_is_told_and_changes_nothing(lua: Lua, changes: dict[str, Value]) -> None:
    lua.reserve()
    before = lua.everything()
    with pytest.raises(redis.ResponseError, match=r"^settle: an argument"):
        lua.run("settle", **changes)
    assert lua.everything() == before


def test_a_clock_of_the_caller_is_refused_where_meta_does_not_allow_it(lua: Lua) -> None:
    lua.reserve()
    lua.client.hdel(lua.keys.of_shard.meta, "clock")
    before = lua.everything()
    with pytest.raises(redis.ResponseError, match=r"^settle: a clock"):
        lua.settle(now=NOW_MS)
    assert lua.everything() == before
    assert lua.settle(now="").code == 1


@pytest.mark.parametrize("kind", ["settle", "expire"])
@pytest.mark.parametrize("place", [META, ACCOUNT, HOLDS, OUTBOX])
def test_a_key_of_a_wrong_type_stops_it_before_it_writes(lua: Lua, place: int, kind: str) -> None:
    lua.reserve()
    lua.client.delete(lua.keys_of("settle")[place])
    lua.client.set(lua.keys_of("settle")[place], "text")
    before = lua.everything()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        lua.settle(kind=kind, now=ENDS_MS)
    assert lua.everything() == before


@pytest.mark.parametrize(
    ("kind", "place"), [("settle", LEASES), ("expire", LEASES), ("expire", ENDINGS)]
)
def test_a_spoilt_set_of_leases_or_endings_never_makes_two_charges(
    lua: Lua, kind: str, place: int
) -> None:
    lua.reserve()
    lua.client.delete(lua.keys_of("settle")[place])
    lua.client.set(lua.keys_of("settle")[place], "text")
    for _ in range(2):
        with suppress(redis.ResponseError):
            lua.settle(kind=kind, charge=30, now=ENDS_MS)
    settled, held = lua.account("s", "h")
    assert settled == sum(row.charged_tokens for row in lua.rows())
    assert (settled, held) in ((30, 0), (0, 150))


def test_a_full_memory_refuses_no_ending(lua: Lua, fill_memory: Callable[[], None]) -> None:
    for rid in ("settled", "released", RID):
        lua.reserve(rid)
    fill_memory()
    assert lua.settle("settled", charge=30).code == 1
    assert lua.settle("released", kind="release").code == 4
    assert lua.settle("unseen", kind="release").code == 4
    assert lua.settle(kind="expire", charge=20, now=ENDS_MS).code == 1
    assert lua.settle(charge=25, now=ENDS_MS).code == 2
    assert lua.account("s", "h", "n", "q") == [55, 0, 0, 3]
    assert len(lua.rows()) == 3


def test_a_server_that_forgot_the_script_takes_it_again_with_its_memory_full(
    lua: Lua, fill_memory: Callable[[], None]
) -> None:
    lua.reserve()
    lua.client.script_flush()
    fill_memory()
    with pytest.raises(redis.exceptions.NoScriptError):
        lua.settle()
    again = Lua(lua.client, lua.keys)  # loads every script
    assert again.settle(charge=30).code == 1


def test_an_event_passes_through_byte_for_byte(lua: Lua) -> None:
    lua.reserve()
    event = event_of(RID, 30, 1) + "\x00\r\n€ %d %s".encode()
    lua.settle(charge=30, event=event)
    ((_, fields),) = lua.client.xrange(lua.keys.of_shard.outbox)
    assert fields[b"e"] == event
