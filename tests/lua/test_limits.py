"""reserve.lua and its limits: each alone, all together, which refusal wins, what lowers the cap."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lua.script_calls import ENDS_MS, NOW_MS, RID, STARTS_MS, Lua, Value

EMPTY: dict[str, Value] = {"prompt": 100, "wanted": 0, "least": 0}


@pytest.fixture
def team(lua: Lua) -> Lua:
    """A payer with a member, ann, in a tier whose share here is large."""
    lua.of("ann").bring()
    lua.share(100_000)
    return lua.by("ann")


# --- each alone ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settled", "held", "limit", "code"),
    [(0, 0, 100, 1), (0, 0, 99, -12), (30, 60, 190, 1), (30, 60, 189, -11), (30, 60, 129, -12)],
)
def test_a_member_has_a_ceiling_of_its_own(
    lua: Lua, settled: int, held: int, limit: int, code: int
) -> None:
    lua.of("ann").bring(settled=settled)
    by_ann = lua.by("ann")
    if held:
        by_ann.reserve("before", prompt=held, wanted=0, least=0)
    before = lua.everything()
    reply = by_ann.reserve(**EMPTY, member_limit=limit)
    assert reply.code == code
    if code == 1:
        assert lua.of("ann").account("h") == lua.account("h") == [held + 100]
    else:
        assert lua.everything() == before
    if code == -12:
        assert (reply.used, reply.held, reply.limit) == (settled, held, limit)
        assert reply.wait == ENDS_MS - NOW_MS
    else:
        assert (reply.used, reply.limit) == (0, 100_000)


def test_one_member_does_not_use_up_anothers_ceiling(team: Lua) -> None:
    team.of("bob").bring()
    assert team.reserve("a", **EMPTY, member_limit=100).code == 1
    assert team.reserve("b", **EMPTY, member_limit=199).code == -11
    assert team.by("bob").reserve("b", **EMPTY, member_limit=100).code == 1
    assert team.account("h", "n") == [200, 2]


def test_what_a_member_is_adjusted_by_counts_for_its_ceiling(team: Lua) -> None:
    team.of("ann").entitle(rev=1, adjusted=-40)
    assert team.reserve("a", **EMPTY, member_limit=59, caller_rev=1).code == -12
    assert team.reserve("a", **EMPTY, member_limit=60, caller_rev=1).code == 1


@pytest.mark.parametrize(
    ("settled", "held", "share", "code"),
    [(0, 0, 100, 1), (0, 0, 99, -13), (30, 60, 190, 1), (30, 60, 189, -11), (30, 60, 129, -13)],
)
def test_a_tiers_cap_is_what_this_shard_has_of_it(
    lua: Lua, settled: int, held: int, share: int, code: int
) -> None:
    sums = {"e": 1, "p": STARTS_MS, "c": share, "s": settled, "h": held}
    lua.client.hset(lua.tier, mapping=sums)
    before = lua.everything()
    assert lua.reserve(**EMPTY, tier_starts=STARTS_MS).code == code
    if code == 1:
        assert lua.tier_sums("p", "s", "h", "c") == [STARTS_MS, settled, held + 100, share]
    else:
        assert lua.everything() == before


@pytest.mark.parametrize("sums", [{}, {"c": 500}, {"e": 2, "c": 500}, {"e": 1}])
def test_a_tier_without_a_share_of_this_epoch_gives_nothing(lua: Lua, sums: dict[str, int]) -> None:
    if sums:
        lua.client.hset(lua.tier, mapping=sums)
    assert lua.reserve(**EMPTY, tier_starts=STARTS_MS).code == -13
    assert lua.reserve(**EMPTY).code == 1  # where the tier is not capped, nobody asks
    assert lua.tier_sums("h") == [0]


def test_a_tiers_new_period_begins_at_nothing_settled(lua: Lua) -> None:
    sums = {"e": 1, "p": STARTS_MS, "c": 100, "s": 90}
    lua.client.hset(lua.tier, mapping=sums)
    assert lua.reserve(**EMPTY, tier_starts=STARTS_MS).code == -13
    assert lua.reserve(**EMPTY, tier_starts=STARTS_MS + 1).code == 1


@pytest.mark.parametrize(
    ("spent", "held", "budget", "code"),
    [(0, 0, 70, 1), (0, 0, 69, -14), (30, 60, 160, 1), (30, 60, 159, -11), (30, 60, 99, -14)],
)
def test_a_budget_is_in_money(bare: Lua, spent: int, held: int, budget: int, code: int) -> None:
    bare.open()
    bare.bring(cost=spent)
    if held:
        bare.reserve("before", **EMPTY, prompt_cost=held)
    before = bare.everything()
    ask: dict[str, Value] = {"wanted": 10, "least": 10, "choices": 2, "output_cost": 3}
    reply = bare.reserve(**ask, prompt_cost=10, budget=budget)
    assert (reply.code, reply.spent) == (code, spent)
    if code == 1:
        assert bare.account("gh") == [held + 70]
    else:
        assert bare.everything() == before


@pytest.mark.parametrize("by_member", [False, True])
def test_a_caller_may_have_so_many_holds_open(team: Lua, by_member: bool) -> None:
    caller = team if by_member else Lua(team.client, team.keys)
    other = Lua(team.client, team.keys) if by_member else team
    assert [caller.reserve(f"r{n}", concurrent=2).code for n in range(3)] == [1, 1, -15]
    if by_member:
        assert other.reserve("o", concurrent=3).code == 1  # the payer's own has the members' too
    caller.settle("r0")
    reply = caller.reserve("r3", concurrent=2 if by_member else 3)
    assert (reply.code, reply.wait) == (1, 0)


def test_no_hold_at_all_is_a_limit_too(lua: Lua) -> None:
    for name, code in (("concurrent", -15), ("requests", -16), ("tokens", -17), ("budget", -14)):
        assert lua.reserve(**{name: 0}, prompt_cost=1).code == code
    assert lua.account("h", "n") == [0, 0]


# --- together -------------------------------------------------------------------------------------

ROOMY: dict[str, Value] = {
    "limit": 10_000, "member_limit": 10_000, "tier_starts": STARTS_MS, "budget": 10_000,
    "concurrent": 9, "requests": 9, "tokens": 10_000, "prompt_cost": 100, "output_cost": 1,
}  # fmt: skip
IN_ORDER: tuple[tuple[int, dict[str, Value]], ...] = (
    (-10, {"limit": 109}),
    (-12, {"member_limit": 109}),
    (-13, {"share": 109}),
    (-14, {"budget": 109}),
    (-15, {"concurrent": 0}),
    (-16, {"requests": 0}),
    (-17, {"tokens": 109}),
)


def ask(team: Lua, changes: dict[str, Value], rid: str = RID) -> Any:
    share = {"share": 10_000, **changes}.pop("share")
    team.share(int(share))
    asked = {**ROOMY, **changes}
    asked.pop("share", None)
    return team.reserve(rid, **asked)


def test_all_limits_together_hold_in_each_of_them(team: Lua) -> None:
    reply = ask(team, {})
    assert (reply.code, reply.hold, reply.hold_cost) == (1, 150, 150)
    for account in (team, team.of("ann")):
        assert account.account("h", "gh", "n") == [150, 150, 1]
    assert team.tier_sums("h") == [150]
    assert team.client.hmget(team.of("ann").keys.account, "mr", "mt") == [
        b"60000 %d" % NOW_MS,
        b"9000000 %d" % NOW_MS,
    ]
    assert team.client.hmget(team.keys.account, "mr", "mt") == [None, None]


@pytest.mark.parametrize("first", range(len(IN_ORDER)))
def test_the_first_limit_in_their_order_is_told_and_nothing_is_held(team: Lua, first: int) -> None:
    for code, alone in IN_ORDER[first:]:
        team.share(109 if "share" in alone else 10_000)
        before = team.everything()
        assert ask(team, alone).code == code
        assert team.everything() == before
    together = {name: value for _, one in IN_ORDER[first:] for name, value in one.items()}
    assert ask(team, together).code == IN_ORDER[first][0]
    assert team.account("h", "n") == [0, 0]


@pytest.mark.parametrize(
    ("used_up", "in_flight"),
    [(late, early) for late in (1, 2, 3) for early in (0, 1, 2, 3) if late != early],
)
def test_what_is_used_up_is_told_before_what_is_only_in_flight(
    team: Lua, used_up: int, in_flight: int
) -> None:
    """Waiting for open holds would not help."""
    ask(team, {}, "before")
    code, is_used_up = IN_ORDER[used_up]
    _, short = IN_ORDER[in_flight]
    held: dict[str, Value] = {name: int(value) + 150 for name, value in short.items()}
    assert ask(team, held, "r1").code == -11
    assert ask(team, {**held, **is_used_up}, "r1").code == code
    enough: dict[str, Value] = {name: int(value) + 1 for name, value in held.items()}
    assert ask(team, enough, "r1").output == 10


@pytest.mark.parametrize(
    ("name", "value", "output"),
    [
        ("limit", 163, 21),
        ("member_limit", 165, 21),
        ("share", 166, 22),
        ("budget", 250, 50),
        ("budget", 249, 49),
        ("budget", 133, 11),
        ("tokens", 199, 33),
        ("tokens", 131, 10),
    ],
)
def test_each_limit_lowers_the_cap(team: Lua, name: str, value: int, output: int) -> None:
    reply = ask(team, {name: value, "choices": 3})
    assert (reply.code, reply.output, reply.hold) == (1, output, 100 + 3 * output)


def test_the_narrowest_of_all_lowers_the_cap_most(team: Lua) -> None:
    narrow = {"limit": 148, "member_limit": 145, "share": 144, "budget": 146, "tokens": 147}
    for name in ("share", "member_limit", "budget", "tokens", "limit"):
        rid = f"r-{name}"
        assert ask(team, dict(narrow), rid).output == min(narrow.values()) - 100
        team.settle(rid, kind="release", tier_starts=STARTS_MS)
        team.client.hdel(team.of("ann").keys.account, "mr", "mt")
        del narrow[name]


def test_what_is_left_of_a_minute_lowers_no_cap(lua: Lua) -> None:
    """It comes back within seconds: the call waits and gets its whole cap."""
    limits: dict[str, Value] = {"tokens": 200, "least": 10, "wanted": 50}
    assert lua.reserve("r1", **limits).hold == 150
    reply = lua.reserve("r2", **limits)
    assert (reply.code, reply.wait) == (-17, 30_000)
    assert lua.reserve("r2", **limits, now=NOW_MS + 30_000).output == 50


def test_the_revision_of_the_caller_is_the_members(team: Lua) -> None:
    team.of("ann").entitle(rev=4)
    before = team.everything()
    for rev, caller_rev in ((0, 3), (0, 5), (1, 4)):
        reply = team.reserve(rev=rev, caller_rev=caller_rev)
        assert (reply.code, reply.rev, reply.caller_rev) == (-3, 0, 4)
    assert team.everything() == before
    assert team.reserve(caller_rev=4).code == 1


@pytest.mark.parametrize("state", ["missing", "hydrating", "older epoch"])
def test_a_member_that_is_not_in_force_admits_nothing(lua: Lua, state: str) -> None:
    if state == "hydrating":
        lua.of("ann").hydrate("begin")
    elif state == "older epoch":
        lua.of("ann").bring()
        lua.open(epoch=2)
        lua.bring()
    before = lua.everything()
    assert lua.by("ann").reserve().code == -2
    assert lua.everything() == before


def test_a_members_period_rolls_with_its_payers(team: Lua) -> None:
    team.reserve("old", member_limit=150)
    team.settle("old", charge=150, limit=7)
    following: dict[str, Value] = {"starts": ENDS_MS, "ends": ENDS_MS + 9, "now": ENDS_MS}
    assert team.reserve("r1", member_limit=150).code == -12
    assert team.reserve("r1", **following, member_limit=150).code == 1
    for account in (team, team.of("ann")):
        assert account.account("ps", "s", "h") == [ENDS_MS, 0, 150]
        assert account.last_period()[:2] == (STARTS_MS, 150)
