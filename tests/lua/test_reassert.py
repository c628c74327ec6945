"""reassert.lua: what a gateway has open is held again after a loss, once, and never after its end.

A settlement, a repetition, the sweeper and the saying again may reach the server in any order; the
call is booked once, and nothing stays held.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest
import redis

from tests.lua.script_calls import (
    GRACE_MS,
    LEASE_MS,
    NOW_MS,
    STARTS_MS,
    TAIL,
    Lua,
    Value,
)

LATER_MS = NOW_MS + 5_000
DUE_MS = LATER_MS + LEASE_MS + GRACE_MS


def lose_everything(lua: Lua) -> None:
    lua.client.delete(*lua.client.keys())
    lua.open(epoch=2)


@pytest.fixture
def lost(lua: Lua) -> Lua:
    """The server has lost a hold of 150; its account is in force again, with 40 used."""
    lua.reserve()
    lose_everything(lua)
    lua.bring(settled=40)
    return lua


def test_a_lost_hold_is_held_again_as_it_was(lost: Lua) -> None:
    assert lost.reassert(cost=7, progress=3, now=LATER_MS) == 1
    assert lost.hold() == f"h 50 150 7 {STARTS_MS} {LATER_MS} 3 {TAIL}"
    assert lost.lease() == LATER_MS + LEASE_MS
    assert lost.account("s", "h", "n", "gh") == [40, 150, 1, 7]


def test_nobody_is_admitted_into_its_room_and_all_may_once_it_has_ended(lost: Lua) -> None:
    lost.reassert()
    assert lost.reserve("other", limit=190 + 60 - 1, least=10).hold == 0
    assert lost.reserve("other", limit=190 + 110, least=10).hold == 110
    assert lost.settle("other", charge=0, epoch=2).code == 1
    reply = lost.settle(charge=30)
    assert (reply.code, reply.used, reply.held) == (1, 70, 0)


def test_it_is_held_whatever_room_is_left_and_whatever_the_limits_say(lost: Lua) -> None:
    lost.put(s=10**6, n=99)
    assert lost.reassert() == 1
    assert lost.account("s", "h", "n") == [10**6, 150, 100]


def test_an_orphan_is_held_again_and_keeps_its_time_and_how_far_it_came(lua: Lua) -> None:
    lua.reserve()
    lua.extend(progress=9)
    lua.open(epoch=2)
    lua.bring()
    assert str(lua.hold()).startswith("o ")
    assert lua.reassert(progress=4, now=LATER_MS) == 1
    assert lua.hold() == f"h 50 150 0 {STARTS_MS} {NOW_MS} 9 {TAIL}"
    assert lua.account("h", "n") == [150, 1]


def test_one_whose_account_is_not_there_is_told_and_changes_nothing(lua: Lua) -> None:
    lua.reserve()
    lua.open(epoch=2)  # the account is of the epoch before
    before = lua.everything()
    assert lua.reassert() == -2
    assert lua.everything() == before
    lose_everything(lua)
    before = lua.everything()
    assert lua.reassert() == -2
    assert lua.everything() == before


def test_an_account_that_is_being_brought_back_holds_it_and_keeps_it(lua: Lua) -> None:
    lua.reserve()
    lose_everything(lua)
    token = lua.hydrate("begin").token
    assert lua.reassert() == 1
    assert lua.reserve("other").code == -2
    assert lua.hydrate("begin").token == token
    assert lua.hydrate("finish", token=token, settled=40).code == 3
    assert lua.account("s", "h", "n") == [40, 150, 1]


def test_settled_while_its_account_is_brought_back_it_counts_once(lua: Lua) -> None:
    lua.reserve()
    lose_everything(lua)
    token = lua.hydrate("begin").token
    lua.reassert()
    assert lua.settle(charge=30).code == 1
    assert lua.reassert() == 0
    lua.hydrate("finish", token=token, settled=40)
    assert lua.account("s", "h", "n") == [70, 0, 0]


def test_the_next_loss_makes_an_orphan_of_it_which_is_held_again(lost: Lua) -> None:
    lost.reassert()
    lost.open(epoch=3)
    assert lost.reassert() == -2
    lost.bring()
    assert str(lost.hold()).startswith("o ")
    assert lost.reassert() == 1
    assert lost.account("h", "n") == [150, 1]


def test_within_its_own_epoch_absent_means_ended(lua: Lua) -> None:
    lua.reserve()
    lua.settle()
    before = lua.everything()
    assert lua.reassert() == 0
    assert lua.everything() == before


def test_a_server_that_is_behind_the_hold_is_told_nothing(lua: Lua) -> None:
    before = lua.everything()
    assert lua.reassert(epoch=2) == -1
    lua.client.delete(lua.keys.of_shard.meta)
    assert lua.run("reassert", now="")[0] == -1
    lua.open()
    assert lua.everything() == before


def test_what_a_member_has_open_is_held_by_the_team_the_member_and_the_tier(lua: Lua) -> None:
    of_ann, by_ann = lua.of("ann"), lua.by("ann")
    lose_everything(lua)
    lua.bring()
    assert by_ann.reassert() == -2
    of_ann.bring()
    assert by_ann.reassert(tier_starts=STARTS_MS) == 1
    assert lua.account("h", "n") == of_ann.account("h", "n") == [150, 1]
    assert lua.tier_sums("e", "c", "s", "h") == [2, 0, 0, 150]
    lua.share(500, epoch=2)
    assert by_ann.settle(charge=30, tier_starts=STARTS_MS).code == 1
    assert lua.tier_sums("c", "s", "h") == [500, 30, 0]
    assert lua.account("h", "n") == of_ann.account("h", "n") == [0, 0]


# --- in every order -----------------------------------------------------------------------------

STEPS: dict[str, Callable[[Lua], object]] = {
    "said": lambda lua: lua.reassert(now=LATER_MS),
    "settled": lambda lua: lua.settle(charge=30, now=DUE_MS),
    "settled again": lambda lua: lua.settle(charge=30, now=DUE_MS),
    "expired": lambda lua: lua.settle(kind="expire", charge=20, epoch=2, now=DUE_MS),
}
ORDERS = [
    order for order in permutations(STEPS) if order.index("settled") < order.index("settled again")
]


def with_nothing_left(lua: Lua) -> None:
    lose_everything(lua)
    lua.bring(settled=40)


def with_the_hold_left(lua: Lua) -> None:
    lua.open(epoch=2)
    lua.bring(settled=40)


@pytest.mark.parametrize("lose", [with_nothing_left, with_the_hold_left])
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: ", ".join(order))
def test_in_every_order_it_is_booked_once_and_nothing_stays_held(
    lua: Lua, order: tuple[str, ...], lose: Callable[[Lua], None]
) -> None:
    lua.reserve()
    lose(lua)
    for step in (*order, "said"):
        STEPS[step](lua)
    assert lua.account("s", "h", "n") == [70, 0, 0]
    assert sum(row.charged_tokens for row in lua.rows()) == 30
    assert lua.lease() is None
    assert lua.hold() == "d"


@pytest.mark.parametrize("order", [("said", "released"), ("released", "said")])
def test_released_before_or_after_it_holds_nothing_and_charges_nothing(
    lost: Lua, order: tuple[str, ...]
) -> None:
    for step in (*order, "said"):
        if step == "said":
            lost.reassert()
        else:
            assert lost.settle(kind="release").code == 4
    assert lost.account("s", "h", "n") == [40, 0, 0]
    assert (lost.hold(), lost.lease(), lost.rows()) == ("v", None, [])


def test_whom_nobody_ends_the_sweeper_ends(lost: Lua) -> None:
    lost.reassert(now=LATER_MS)
    assert lost.settle(kind="expire", charge=20, epoch=2, now=DUE_MS - 1).code == 5
    assert lost.settle(kind="expire", charge=20, epoch=2, now=DUE_MS).code == 1
    assert lost.reassert(now=DUE_MS) == 0
    assert lost.account("s", "h", "n") == [60, 0, 0]


# --- wrong calls --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {name: text}
        for name in ("epoch", "period", "output", "hold", "cost", "progress", "lease")
        for text in ("", "x", "-1", "1.5", 10**15)
    ]
    + [{"rid": ""}, {"tier_starts": "x"}, {"now": "x"}],
    ids=str,
)
def test_a_wrong_argument_is_told_and_changes_nothing(lost: Lua, changes: dict[str, Value]) -> None:
    before = lost.everything()
    with pytest.raises(redis.ResponseError, match=r"^reassert: a"):
        lost.run("reassert", **changes)
    assert lost.everything() == before


def test_a_clock_of_the_caller_is_refused(lost: Lua) -> None:
    lost.client.hdel(lost.keys.of_shard.meta, "clock")
    with pytest.raises(redis.ResponseError, match=r"^reassert: a clock"):
        lost.reassert()


@pytest.mark.parametrize("place", range(6))
def test_a_key_of_a_wrong_type_stops_it_before_it_writes(lua: Lua, place: int) -> None:
    lua.open(epoch=2)
    lua.bring()
    lua.of("ann").bring()
    by_ann = lua.by("ann")
    by_ann.spoil("reassert", place)
    before = lua.everything()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        by_ann.reassert(tier_starts=STARTS_MS)
    assert lua.everything() == before


def test_a_full_memory_takes_nobody_s_hold(lost: Lua, fill_memory: Callable[[], None]) -> None:
    fill_memory()
    assert lost.reassert() == 1
