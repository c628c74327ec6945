"""settle.lua when the call, the memory or a key is wrong: never half a charge, never two."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import redis

from tests.lua.script_calls import ENDS_MS, FAR_MS, NOW_MS, RID, STARTS_MS, Lua, Value, event_of

WRONG_AMOUNTS = ("", "x", "-1", "1.5", "nan", "inf", "1 2", str(10**15))
AMOUNTS = ("epoch", "period", "charge", "cost", "grace", "limit")
META, ACCOUNT, HOLDS, LEASES, OUTBOX, ENDINGS, PACKS, TIER, MEMBER = range(9)


@pytest.mark.parametrize(
    "changes",
    [{name: text} for name in AMOUNTS for text in WRONG_AMOUNTS]
    + [{"tier_starts": text} for text in WRONG_AMOUNTS[1:]]
    + [{"rid": ""}, {"kind": "late"}],
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
@pytest.mark.parametrize("place", [META, ACCOUNT, HOLDS, OUTBOX, PACKS, TIER, MEMBER])
def test_a_key_of_a_wrong_type_stops_it_before_it_writes(bare: Lua, place: int, kind: str) -> None:
    bare.open()
    bare.bring(packs=f"p 500 {ENDS_MS}")
    bare.of("ann").bring()
    bare.share(1_000)
    by_ann = bare.by("ann")
    by_ann.reserve(tier_starts=STARTS_MS)
    by_ann.spoil("settle", place)
    before = bare.everything()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        by_ann.settle(kind=kind, tier_starts=STARTS_MS, now=ENDS_MS)
    assert bare.everything() == before


@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize("place", [META, ACCOUNT, HOLDS, ENDINGS, TIER, MEMBER])
def test_so_it_does_with_a_release(lua: Lua, place: int, is_held: bool) -> None:
    lua.of("ann").bring()
    lua.share(1_000)
    by_ann = lua.by("ann")
    if is_held:
        by_ann.reserve(tier_starts=STARTS_MS)
    by_ann.spoil("settle", place)
    before = lua.everything()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        by_ann.settle(kind="release", tier_starts=STARTS_MS)
    assert lua.everything() == before


@pytest.mark.parametrize(
    ("kind", "place"), [("settle", LEASES), ("expire", LEASES), ("expire", ENDINGS)]
)
def test_a_spoilt_set_of_leases_or_endings_never_makes_two_charges(
    lua: Lua, kind: str, place: int
) -> None:
    lua.reserve()
    lua.spoil("settle", place)
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


# --- a charge is never refused ------------------------------------------------------------------

LARGEST = 10**15 - 1


@pytest.mark.parametrize("kind", ["settle", "release", "expire"])
@pytest.mark.parametrize(
    "fields",
    [
        {"s": 0, "adj": -LARGEST, "al": 0},
        {"s": 9 * LARGEST, "adj": 0, "al": 1, "g": 9 * LARGEST, "w": 100},
        {"s": LARGEST, "f": LARGEST, "k": 1, "al": 100_000},
        {"s": 5, "f": 3, "adj": 4, "k": 9, "l": "1 -5 7"},
        {"k": 0, "f": 50, "h": 0, "n": 0, "gh": 0},
        {"q": LARGEST, "awaits": 1, "y": "1:1:0-0", "r": LARGEST},
        {"ps": ENDS_MS, "pe": ENDS_MS + 5, "l": f"{STARTS_MS} -30 0"},
        {"ps": ENDS_MS, "pe": ENDS_MS + 5, "k": 1},
        {"mr": "0 0", "mt": f"{LARGEST} {LARGEST}"},
    ],
    ids=str,
)
@pytest.mark.parametrize("tier", [{}, {"e": 1}, {"e": 1, "c": 5, "p": FAR_MS}, {"e": 1, "h": -9}])
def test_whatever_is_in_a_well_formed_account(
    lua: Lua, kind: str, fields: dict[str, Value], tier: dict[str, int]
) -> None:
    lua.reserve()
    lua.put(**fields)
    lua.client.hset(lua.keys.packs, mapping={"p": f"{LARGEST} {ENDS_MS}", "q": "0 1"})
    if tier:
        lua.client.hset(lua.tier, mapping=tier)
    usual: dict[str, Value] = {"tier_starts": STARTS_MS, "thresholds": "1 80 100", "now": ENDS_MS}
    reply = lua.settle(kind=kind, charge=LARGEST, cost=LARGEST, **usual)
    assert reply.code == (4 if kind == "release" else 1)
    assert (lua.hold() or "-")[0] == {"settle": "-", "release": "v", "expire": "x"}[kind]
    if kind == "expire":
        assert lua.settle(charge=0, cost=0, **usual).code == 2
    rows = lua.rows()
    assert sum(row.charged_tokens for row in rows) == (LARGEST if kind == "settle" else 0)
    assert all(row.from_allowance + row.from_packs == row.charged_tokens for row in rows)
