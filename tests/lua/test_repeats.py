"""Any script may be sent again: the second time nothing on the server changes, not a byte.

Each case brings an account into a state and names the call; the call is sent three times, the last
time with another charge, as a gateway might that counted anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.lua.script_calls import (
    DAY_MS,
    ENDS_MS,
    NOW_MS,
    RID,
    STARTS_MS,
    Lua,
    Value,
)

TEAM: dict[str, Value] = {
    "member_limit": 5_000, "tier_starts": STARTS_MS, "budget": 10**6, "concurrent": 9,
    "requests": 60, "tokens": 9_000, "prompt_cost": 5, "limit": 200,
}  # fmt: skip
END: dict[str, Value] = {"tier_starts": STARTS_MS, "thresholds": "50 100", "limit": 200}
PACKS = f"a 30 {NOW_MS + 1},b 500 {ENDS_MS}"
EXPIRED_MS = NOW_MS + DAY_MS

Step = Callable[[Lua], Any]


def nothing(lua: Lua) -> None:
    """The account as it is."""


def held(lua: Lua) -> None:
    lua.reserve(**TEAM)


def expired(lua: Lua) -> None:
    held(lua)
    lua.settle(kind="expire", charge=260, now=EXPIRED_MS, **END)


def lost(lua: Lua) -> None:
    """The epoch of the hold, and the hold with it."""
    held(lua)
    lua.client.hdel(lua.keys.holds, RID)
    lua.open(epoch=2)


def orphaned(lua: Lua) -> None:
    held(lua)
    lua.open(epoch=2)
    lua.bring(packs=PACKS)
    lua.of("ann").bring()


def ending(kind: str, charge: int = 250) -> Step:
    return lambda lua: lua.settle(kind=kind, charge=charge, now=EXPIRED_MS, **END)


def ended_orphan(lua: Lua) -> None:
    orphaned(lua)
    ending("settle")(lua)


def another(kind: str) -> Step:
    return ending(kind, 999)


def taken_back(lua: Lua) -> int:
    newest = lua.rows()[-1]
    return lua.correct(
        stream_id=newest.stream_id, charge=250, tier_starts=STARTS_MS, split="a:30,b:20"
    )


def doubled(lua: Lua) -> None:
    held(lua)
    ending("settle")(lua)


def beginning(lua: Lua) -> None:
    lua.open(epoch=2)
    lua.hydrate("begin")


def finish(lua: Lua) -> Any:
    return lua.hydrate("finish", token=lua.token(), settled=70, packs=PACKS)


CASES: dict[str, tuple[Step, Step, Step]] = {
    "reserve": (nothing, held, lambda lua: lua.reserve(**{**TEAM, "prompt": 1})),
    "reserve refused": (nothing, lambda lua: lua.reserve(**{**TEAM, "limit": 0}), nothing),
    "reserve after its end": (expired, held, held),
    "settle": (held, ending("settle"), another("settle")),
    "settle, over everything": (held, ending("settle", 9_000), another("settle")),
    "settle of nothing": (nothing, ending("settle"), another("settle")),
    "settle of an expired hold": (expired, ending("settle"), another("settle")),
    "settle of a lost hold": (lost, ending("settle"), another("settle")),
    "settle of an orphan": (orphaned, ending("settle"), another("settle")),
    "release": (held, ending("release"), another("release")),
    "release unseen": (nothing, ending("release"), another("release")),
    "release of an expired hold": (expired, ending("release", 0), nothing),
    "release of an orphan": (orphaned, ending("release"), another("release")),
    "expire": (held, ending("expire"), another("expire")),
    "expire of an orphan": (orphaned, ending("expire"), another("expire")),
    "reassert": (
        orphaned,
        lambda lua: lua.reassert(tier_starts=STARTS_MS),
        lambda lua: lua.reassert(hold=999, progress=9, tier_starts=STARTS_MS),
    ),
    "reassert of an ended hold": (
        ended_orphan,
        lambda lua: lua.reassert(),
        lambda lua: lua.reassert(hold=999),
    ),
    "correct": (doubled, taken_back, taken_back),
    "entitle": (
        held,
        lambda lua: lua.entitle(rev=3, adjusted=7, packs=f"b 9 {ENDS_MS},c 4 {ENDS_MS}"),
        lambda lua: lua.entitle(rev=3, adjusted=9),
    ),
    "hydrate begin": (
        lambda lua: lua.open(epoch=2),
        lambda lua: lua.hydrate("begin"),
        lambda lua: lua.hydrate("begin", now=NOW_MS + 5),
    ),
    "hydrate finish": (beginning, finish, finish),
    "forget": (nothing, lambda lua: lua.forget(now=10**14), nothing),
    "open": (
        nothing,
        lambda lua: lua.run("open", epoch=3, cursor=f"{10**14}-0", quiet=5, awaited="g1 g2"),
        lambda lua: lua.run("open", epoch=2, cursor=f"{10**14}-9", quiet=9, now=NOW_MS),
    ),
    "caught_up": (
        lambda lua: lua.run("open", epoch=2, quiet=5, awaited="g1 g2", now=NOW_MS),
        lambda lua: lua.run("caught_up", epoch=2),
        lambda lua: lua.run("caught_up", epoch=1),
    ),
    "snapshot": (held, lambda lua: lua.snapshot(), nothing),
}


@pytest.mark.parametrize("by_member", [False, True], ids=["payer", "member"])
@pytest.mark.parametrize("case", CASES)
def test_the_second_call_changes_nothing(bare: Lua, case: str, by_member: bool) -> None:
    bare.open()
    bare.bring(packs=PACKS)
    bare.of("ann").bring()
    bare.share(10_000)
    lua = bare.by("ann") if by_member else bare
    before, call, differently = CASES[case]
    before(lua)
    call(lua)
    after = lua.everything()
    for again in (call, differently):
        again(lua)
        assert lua.everything() == after


def test_a_second_heartbeat_only_renews_the_lease(lua: Lua) -> None:
    lua.reserve()
    lua.extend(progress=7)
    after = lua.everything()
    lua.extend(progress=7)
    leases = lua.keys.of_shard.leases.encode()
    assert {**lua.everything(), leases: b""} == {**after, leases: b""}
