"""What a call costs: the Redis commands that a script runs, counted by the server itself.

The two scripts that every call runs are pinned exactly; a command more is a decision, not a slip.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.lua.script_calls import FAR_MS, Lua, Value

ALL: dict[str, Value] = {
    "member_limit": 5_000, "tier_starts": 1, "budget": 10**6, "concurrent": 9,
    "requests": 60, "tokens": 9_000,
}  # fmt: skip
PLAIN_RESERVE = "time hmget*2 hget zadd hset*2"
WHOLE_RESERVE = "time hmget*4 hget*3 hgetall zadd hset*5"
PLAIN_SETTLE = "hmget hget*2 xadd hdel hset zrem"
WHOLE_SETTLE = "hmget*3 hget*2 hgetall xadd hdel hset*4 zrem"


def counted(text: str) -> Counter[str]:
    """Commands and how often each."""
    pairs = (part.partition("*") for part in text.split())
    return Counter({name: int(times or 1) for name, _, times in pairs})


def commands(lua: Lua) -> Counter[str]:
    """What the server ran since its counts were reset, but for the calls themselves."""
    stats = lua.client.info("commandstats")
    ran = Counter({name.removeprefix("cmdstat_"): told["calls"] for name, told in stats.items()})
    for name in list(ran):
        if name in ("evalsha", "info") or name.startswith("config"):
            del ran[name]
    return ran


@pytest.fixture
def team(bare: Lua) -> Lua:
    """By the server's clock, which the product goes by: a member, packs, a capped tier."""
    bare.open()
    bare.bring(starts=0, ends=FAR_MS, packs=f"p 500 {FAR_MS}")
    bare.of("ann").bring(starts=0, ends=FAR_MS)
    bare.share(10_000)
    return bare


@pytest.mark.parametrize(
    ("by_member", "limits", "reserving", "settling"),
    [(False, {}, PLAIN_RESERVE, PLAIN_SETTLE), (True, ALL, WHOLE_RESERVE, WHOLE_SETTLE)],
    ids=["plain", "everything"],
)
def test_a_call_costs_these_commands(
    team: Lua, by_member: bool, limits: dict[str, Value], reserving: str, settling: str
) -> None:
    lua = team.by("ann") if by_member else team
    if not by_member:
        team.put(k=0)
    team.client.config_resetstat()
    ask: dict[str, Value] = {**limits, "limit": 100, "prompt": 20, "starts": 0, "ends": FAR_MS}
    assert lua.reserve(**ask, now="").code == 1
    assert commands(team) == counted(reserving)
    team.client.config_resetstat()
    tier_starts = limits.get("tier_starts", "")
    ending: dict[str, Value] = {"charge": 130, "limit": 100, "tier_starts": tier_starts}
    assert lua.settle(**ending, period=0, now="").code == 1
    assert commands(team) == counted(settling)


def test_a_refusal_writes_nothing_and_stops_early(team: Lua) -> None:
    team.client.config_resetstat()
    assert team.reserve(starts=0, ends=FAR_MS, limit=0, now="", prompt=501).code == -10
    assert commands(team) == counted("time hmget*2 hget hgetall")
