"""snapshot.lua: one moment of an account, and not a byte written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from tests.lua.script_calls import ENDS_MS, NOW_MS, STARTS_MS, Lua, Seen

LARGE = 10**15 - 1


def test_it_reads_the_account_and_the_newest_event_and_writes_nothing(bare: Lua) -> None:
    bare.open()
    packs = f"p {LARGE} {ENDS_MS},q 5 {NOW_MS - 1}"
    bare.bring(settled=40, from_packs=9, adjusted=-7, cost=LARGE, rev=3, packs=packs)
    bare.reserve("r1", rev=3)
    bare.reserve("r2", rev=3)
    newest = bare.settle("r1", charge=10, cost=0).stream_id
    before = bare.everything()
    assert bare.snapshot() == Seen(
        code=1, settled=50, from_packs=9, adjusted=-7, held=150, open=1, cost=LARGE,
        starts=STARTS_MS, ends=ENDS_MS, rev=3, epoch=1, stream_id=newest,
        packs=f"q 5 {NOW_MS - 1},p {LARGE} {ENDS_MS}",
    )  # fmt: skip
    assert bare.everything() == before


def test_the_newest_event_counts_when_it_was_trimmed_away(lua: Lua) -> None:
    lua.reserve()
    newest = lua.settle().stream_id
    lua.client.xtrim(lua.keys.of_shard.outbox, maxlen=0, approximate=False)
    assert lua.snapshot().stream_id == newest


def test_without_any_event_the_stream_is_at_its_beginning(lua: Lua) -> None:
    seen = lua.snapshot()
    assert (seen.stream_id, seen.packs) == ("0-0", "")


def test_what_is_not_in_force_has_no_figures(bare: Lua) -> None:
    assert bare.run("snapshot") == [-1]
    bare.open()
    assert bare.run("snapshot") == [0]
    token = bare.hydrate("begin").token
    assert bare.run("snapshot") == [0]
    bare.hydrate("finish", token=token)
    assert bare.run("snapshot")[0] == 1
    bare.open(epoch=2)
    assert bare.run("snapshot") == [0]


@pytest.mark.parametrize("place", range(4))
def test_a_key_of_a_wrong_type_is_told(bare: Lua, place: int) -> None:
    bare.open()
    bare.bring(packs=f"p 5 {ENDS_MS}")
    bare.spoil("snapshot", place)
    with pytest.raises(redis.ResponseError, match=r"WRONGTYPE"):
        bare.run("snapshot")


def test_a_full_memory_can_be_looked_at(lua: Lua, fill_memory: Callable[[], None]) -> None:
    fill_memory()
    assert lua.run("snapshot")[0] == 1
