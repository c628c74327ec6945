"""reserve.lua: what fits is held whole, what does not fit leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lua.script_calls import ENDS_MS, LEASE_MS, NOW_MS, RID, STARTS_MS, TAIL, Lua, Value

TOO_LARGE = 10**15

# --- the grant ------------------------------------------------------------------------------


def test_a_hold_is_the_prompt_and_the_whole_output(lua: Lua) -> None:
    reply = lua.reserve(prompt=100, wanted=50, choices=3)
    assert (reply.code, reply.rid, reply.output, reply.hold) == (1, RID, 50, 250)
    assert (reply.used, reply.held, reply.limit, reply.packs) == (0, 250, 100_000, 0)
    assert (reply.starts, reply.ends, reply.now) == (STARTS_MS, ENDS_MS, NOW_MS)
    assert (reply.rev, reply.caller_rev, reply.epoch, reply.wait) == (0, 0, 1, 0)
    assert lua.hold() == f"h 50 250 0 {STARTS_MS} {NOW_MS} 0 {TAIL}"
    assert lua.lease() == NOW_MS + LEASE_MS
    assert lua.account("h", "n", "al", "s", "q") == [250, 1, 100_000, 0, 0]


def test_a_hold_in_money_is_the_prompt_and_every_choices_output(lua: Lua) -> None:
    reply = lua.reserve(prompt_cost=7, wanted=50, choices=3, output_cost=11)
    assert reply.hold_cost == 7 + 50 * 3 * 11
    assert lua.account("gh", "g") == [reply.hold_cost, 0]
    assert lua.reserve().hold_cost == reply.hold_cost  # and so says the repetition
    lua.settle(cost=5)
    assert lua.account("gh", "g") == [0, 5]


def test_the_same_rid_holds_once_whatever_it_asks_the_second_time(lua: Lua) -> None:
    first = lua.reserve()
    before = lua.everything()
    for changes in ({}, {"prompt": 7}, {"rev": 9}, {"limit": 0}, {"now": ENDS_MS}):
        again = lua.reserve(**changes)
        assert again.code == 2
        assert (again.output, again.hold, again.held) == (first.output, first.hold, first.hold)
    assert lua.everything() == before


def test_the_repetition_names_the_period_the_hold_was_made_in(lua: Lua) -> None:
    lua.reserve("old")
    rolled = lua.reserve("new", now=ENDS_MS, starts=ENDS_MS, ends=ENDS_MS + 5)
    assert (rolled.code, rolled.starts) == (1, ENDS_MS)
    assert lua.reserve("old", now=ENDS_MS).starts == STARTS_MS


def test_who_only_asks_is_told_what_would_be_held_and_nothing_is(lua: Lua) -> None:
    lua.reserve("open", prompt=10, wanted=0, least=0)
    before = lua.everything()
    limits = {"requests": 5, "tokens": 1_000, "concurrent": 9}
    told = lua.reserve(prompt=100, wanted=50, prompt_cost=7, lease=0, **limits)
    assert (told.code, told.output, told.hold, told.hold_cost, told.held) == (1, 50, 150, 7, 10)
    refused = lua.reserve(prompt=100, wanted=50, lease=0, limit=109)
    assert (refused.code, refused.output, refused.hold) == (-10, 0, 0)
    assert lua.reserve(prompt=2_000, wanted=0, least=0, lease=0, **limits).code == -17
    assert lua.everything() == before
    assert lua.reserve(prompt=100, wanted=50).code == 1, "it was not asked before"


@pytest.mark.parametrize(
    ("settled", "held", "limit", "code"),
    [
        (0, 0, 110, 1),
        (0, 0, 109, -10),
        (40, 0, 150, 1),
        (40, 0, 149, -10),
        (40, 60, 210, 1),
        (40, 60, 209, -11),
        (40, 60, 150, -11),
        (40, 60, 149, -10),
        (500, 0, 400, -10),
        (0, 0, 0, -10),
    ],
)
def test_the_limit_is_exact(bare: Lua, settled: int, held: int, limit: int, code: int) -> None:
    bare.open()
    bare.bring(settled=settled)
    if held:
        bare.reserve("before", prompt=held, wanted=0, least=0)
    before = bare.everything()
    reply = bare.reserve(prompt=100, wanted=50, least=10, limit=limit)
    assert reply.code == code
    assert (reply.used, reply.limit) == (settled, limit)
    if code < 0:
        assert (reply.output, reply.hold, reply.held) == (0, 0, held)
        assert bare.everything() == before


@pytest.mark.parametrize(
    ("room", "choices", "output"),
    [(250, 3, 50), (249, 3, 49), (248, 3, 49), (247, 3, 49), (246, 3, 48), (130, 3, 10)],
)
def test_the_cap_is_lowered_to_what_fits_each_choice(
    lua: Lua, room: int, choices: int, output: int
) -> None:
    reply = lua.reserve(prompt=100, wanted=50, least=10, choices=choices, limit=room)
    assert (reply.code, reply.output, reply.hold) == (1, output, 100 + output * choices)


def test_below_the_least_cap_nothing_is_held(lua: Lua) -> None:
    assert lua.reserve(prompt=100, wanted=50, least=10, choices=3, limit=129).code == -10
    assert lua.hold() is None


def test_a_negative_adjustment_gives_room_and_a_positive_one_takes_it(lua: Lua) -> None:
    fitting = {"prompt": 100, "wanted": 0, "least": 0, "limit": 100}
    lua.put(adj=-50, s=51)
    assert lua.reserve(**fitting).code == -10
    lua.put(s=50)
    assert lua.reserve(**fitting).code == 1
    lua.put(s=0)  # what was given and not used yet is room as well
    assert lua.reserve("r2", **{**fitting, "limit": 150}).code == 1
    assert lua.reserve("r3", **{**fitting, "limit": 249}).code == -11
    assert lua.reserve("r3", **{**fitting, "limit": 250}).used == 0  # never less than nothing


def test_the_largest_amounts_keep_every_digit(lua: Lua) -> None:
    large = TOO_LARGE - 1
    reply = lua.reserve(limit=large, prompt=large - 2, wanted=9, least=1, prompt_cost=large)
    assert (reply.code, reply.output, reply.hold) == (1, 2, large)
    assert lua.hold() == f"h 2 {large} {large} {STARTS_MS} {NOW_MS} 0 {TAIL}"
    assert lua.account("h", "gh", "al") == [large, large, large]
    assert lua.settle(charge=large, cost=large).code == 1
    for n in range(9):  # what the figures come to is above what one call may be
        lua.reserve(f"r{n}", prompt=0, wanted=0, least=0)
        assert lua.settle(f"r{n}", charge=large, cost=large).code == 1
    assert lua.account("s", "g", "h", "gh") == [10 * large, 10 * large, 0, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"output_cost": 10**14, "wanted": 10},
        {"prompt_cost": TOO_LARGE - 1, "output_cost": 1},
        {"output_cost": TOO_LARGE - 1, "wanted": TOO_LARGE - 1, "limit": TOO_LARGE - 1},
    ],
    ids=str,
)
def test_a_hold_that_could_not_be_read_again_is_not_made(
    lua: Lua, changes: dict[str, Value]
) -> None:
    before = lua.everything()
    with pytest.raises(redis.ResponseError, match=r"^reserve: an argument is out of its range"):
        lua.reserve(**changes)
    assert lua.everything() == before


amounts = st.one_of(st.integers(0, 300), st.integers(0, TOO_LARGE - 1))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit_and_settled=st.tuples(amounts, amounts),
    prompt=amounts,
    outputs=st.tuples(amounts, amounts).map(sorted),
    choices=st.one_of(st.integers(1, 9), st.integers(1, TOO_LARGE - 1)),
)
def test_a_grant_is_what_exact_arithmetic_gives(
    lua: Lua, limit_and_settled: tuple[int, int], prompt: int, outputs: list[int], choices: int
) -> None:
    limit, settled = limit_and_settled
    lua.client.delete(lua.keys.holds)
    lua.put(s=settled, h=0, n=0)
    least, wanted = outputs
    reply = lua.reserve(limit=limit, prompt=prompt, wanted=wanted, least=least, choices=choices)
    room = max(0, limit - settled)
    if prompt + least * choices > room:
        assert reply.code == -10
    else:
        output = min(wanted, (room - prompt) // choices)
        assert (reply.code, reply.output) == (1, output)
        assert reply.hold == prompt + output * choices <= room


def test_two_hundred_at_once_hold_exactly_what_fits(lua: Lua, redis_url: str) -> None:
    def ask(worker: int) -> list[int]:
        with redis.Redis.from_url(redis_url, protocol=2) as client:
            mine = Lua(client, lua.keys)
            return [
                mine.reserve(f"r{worker}-{n}", prompt=150, wanted=0, least=0, limit=5_600).code
                for n in range(25)
            ]

    with ThreadPoolExecutor(8) as workers:
        codes = [code for found in workers.map(ask, range(8)) for code in found]
    assert (codes.count(1), codes.count(-11)) == (37, 163)
    assert lua.account("h", "n") == [37 * 150, 37]
    assert lua.client.hlen(lua.keys.holds) == lua.client.zcard(lua.keys.of_shard.leases) == 37


# --- periods --------------------------------------------------------------------------------

NEXT = {"starts": ENDS_MS, "ends": ENDS_MS + 1_000, "now": ENDS_MS}


def test_a_new_period_starts_at_nothing_used_and_keeps_the_last_ones_figures(bare: Lua) -> None:
    bare.open()
    bare.bring(settled=930, from_packs=30, adjusted=70, cost=5)
    bare.reserve("old", prompt=20, wanted=0, least=0)
    assert bare.reserve(now=ENDS_MS - 1, limit=1_000, prompt=11, least=0).code == -11
    reply = bare.reserve(**NEXT, limit=1_000, prompt=980, wanted=0, least=0)
    assert (reply.code, reply.used, reply.held) == (1, 0, 1_000)  # an old hold is still held
    assert (reply.starts, reply.ends) == (ENDS_MS, ENDS_MS + 1_000)
    assert bare.account("ps", "pe", "s", "adj", "g") == [ENDS_MS, ENDS_MS + 1_000, 0, 0, 0]
    assert bare.account("f", "h", "n") == [0, 1_000, 2]
    assert bare.last_period() == (STARTS_MS, 970, 100_000)


def test_a_refusal_in_a_new_period_is_judged_by_it_but_writes_nothing(bare: Lua) -> None:
    bare.open()
    bare.bring(settled=900)
    before = bare.everything()
    reply = bare.reserve(**NEXT, limit=50)
    assert (reply.code, reply.used, reply.starts) == (-10, 0, ENDS_MS)
    assert bare.everything() == before


@pytest.mark.parametrize(
    "borders",
    [
        {"starts": STARTS_MS, "ends": ENDS_MS},  # the caller's clock is behind
        {"starts": ENDS_MS + 1, "ends": ENDS_MS + 2},  # ahead
        {"starts": ENDS_MS, "ends": ENDS_MS},
    ],
)
def test_borders_that_do_not_hold_the_servers_time_are_not_taken(
    lua: Lua, borders: dict[str, Value]
) -> None:
    before = lua.everything()
    reply = lua.reserve(**borders, now=ENDS_MS)
    assert (reply.code, reply.now) == (-4, ENDS_MS)
    assert lua.everything() == before


def test_a_refusal_of_the_month_waits_for_its_end(lua: Lua) -> None:
    reply = lua.reserve(limit=109)
    assert (reply.code, reply.wait) == (-10, ENDS_MS - NOW_MS)
    assert lua.reserve(**NEXT, limit=109).wait == 1_000


def test_a_running_period_keeps_its_borders_whatever_the_caller_says(lua: Lua) -> None:
    reply = lua.reserve(starts=NOW_MS - 1, ends=NOW_MS + 1)
    assert (reply.code, reply.starts, reply.ends) == (1, STARTS_MS, ENDS_MS)


def test_a_clock_that_goes_back_brings_no_period_back(lua: Lua) -> None:
    lua.reserve(RID, **NEXT)
    reply = lua.reserve("r2", now=NOW_MS)
    assert (reply.code, reply.starts) == (1, ENDS_MS)


# --- answers that mend or refuse, and leave everything as it was -------------------------------


def test_a_shard_without_meta_is_not_ready(bare: Lua) -> None:
    reply = bare.reserve(now="")
    assert (reply.code, reply.rid, reply.epoch) == (-1, RID, 0)
    assert bare.everything() == {}


def test_a_missing_account_is_not_zero_used(bare: Lua) -> None:
    bare.open()
    before = bare.everything()
    assert bare.reserve().code == -2
    assert bare.everything() == before


def test_an_account_that_is_being_hydrated_admits_nothing(bare: Lua) -> None:
    bare.open()
    bare.hydrate("begin")
    before = bare.everything()
    assert bare.reserve().code == -2
    assert bare.everything() == before


def test_an_account_of_an_older_epoch_admits_nothing(lua: Lua) -> None:
    lua.reserve("held")
    lua.open(epoch=2)
    before = lua.everything()
    assert [lua.reserve(rid).code for rid in ("held", RID)] == [-2, -2]
    assert lua.everything() == before


@pytest.mark.parametrize("rev", [0, 4, 6])
def test_only_the_revision_in_force_is_admitted(lua: Lua, rev: int) -> None:
    lua.put(r=5)
    before = lua.everything()
    reply = lua.reserve(rev=rev)
    assert (reply.code, reply.rev) == (-3, 5)
    assert lua.everything() == before
    assert lua.reserve(rev=5).code == 1


def test_a_rid_that_was_released_unseen_never_holds(lua: Lua) -> None:
    lua.settle(kind="release")
    before = lua.everything()
    reply = lua.reserve()
    assert (reply.code, reply.hold) == (-5, 0)
    assert lua.everything() == before


# --- calls that are wrong ----------------------------------------------------------------------

WRONG_AMOUNTS = ("", "x", "-1", "1.5", "1 2", " 1", "nan", "inf", "-inf", str(TOO_LARGE))
AMOUNTS = (
    *("rev", "caller_rev", "starts", "ends", "prompt", "wanted", "least", "choices"),
    *("prompt_cost", "output_cost", "lease", "limit"),
)
GIVEN = ("member_limit", "tier_starts", "budget", "concurrent", "requests", "tokens")


@pytest.mark.parametrize(
    "changes",
    [{name: text} for name in AMOUNTS for text in WRONG_AMOUNTS]
    + [{name: text} for name in GIVEN for text in WRONG_AMOUNTS[1:]]
    + [{"rid": ""}, {"choices": 0}, {"least": 51}],
    ids=str,
)
def test_a_wrong_argument_is_told_and_changes_nothing(lua: Lua, changes: dict[str, Value]) -> None:
    before = lua.everything()
    with pytest.raises(redis.ResponseError, match=r"^reserve: an argument"):
        lua.run("reserve", **changes)
    assert lua.everything() == before


def test_a_clock_of_the_caller_is_refused_where_meta_does_not_allow_it(lua: Lua) -> None:
    lua.client.hdel(lua.keys.of_shard.meta, "clock")
    before = lua.everything()
    with pytest.raises(redis.ResponseError, match=r"^reserve: a clock"):
        lua.reserve(now=NOW_MS)
    assert lua.everything() == before


def test_without_the_tests_clock_the_servers_time_counts(bare: Lua) -> None:
    bare.open()
    bare.bring(starts=0, ends=TOO_LARGE - 1)
    bare.client.hdel(bare.keys.of_shard.meta, "clock")
    now_ms = bare.reserve(now="", starts=0, ends=TOO_LARGE - 1).now
    seconds, micros = bare.client.time()
    assert 0 <= seconds * 1000 + micros // 1000 - now_ms < 5_000
    assert bare.lease() == now_ms + LEASE_MS


@pytest.mark.parametrize("place", range(7))
def test_a_key_of_a_wrong_type_stops_it_before_it_writes(bare: Lua, place: int) -> None:
    bare.open()
    bare.bring(packs=f"p 500 {ENDS_MS}")
    bare.of("ann").bring()
    bare.share(1_000)
    by_ann, limits = bare.by("ann"), {"requests": 5, "tokens": 500, "tier_starts": STARTS_MS}
    by_ann.spoil("reserve", place)
    before = bare.everything()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        by_ann.reserve(**limits)
    assert bare.everything() == before


def test_it_is_refused_when_memory_is_full(lua: Lua, fill_memory: Callable[[], None]) -> None:
    before = lua.everything()
    fill_memory()
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        lua.reserve()
    assert lua.everything() == before
