"""The buckets of a minute: how much passes in any window, and how long to wait.

The rule: at most limit + limit x t / 60 units pass in any t seconds. A bucket holds one minute's
limit and loses it evenly; a call that would bring it over the limit is told when it will fit.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lua.script_calls import NOW_MS, Lua, Value

HERE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LATER_MS = NOW_MS + 10**9


def empty(lua: Lua) -> None:
    """An account as at the start, with empty buckets."""
    lua.client.delete(lua.keys.holds, lua.keys.of_shard.leases)
    lua.client.hdel(lua.keys.account, "mr", "mt")
    lua.put(h=0, n=0)


def ask(lua: Lua, rid: int, now: int, **limits: Value) -> tuple[int, int]:
    """Code and wait of a call that holds `hold` tokens."""
    hold = limits.pop("hold", 1)
    usual: dict[str, Value] = {"wanted": 0, "least": 0, "limit": 10**14}
    reply = lua.reserve(f"r{rid}", prompt=hold, now=now, **usual, **limits)
    return reply.code, reply.wait


steps = st.lists(st.integers(0, 40_000), max_size=40)


@HERE
@given(limit=st.integers(1, 90), pauses=steps, as_told=st.booleans())
def test_requests_of_any_window_stay_under_the_rule_and_none_is_refused_in_vain(
    lua: Lua, limit: int, pauses: list[int], as_told: bool
) -> None:
    empty(lua)
    now, passed, level = NOW_MS, list[int](), Fraction(0)
    for number, pause in enumerate(pauses):
        now += pause
        level = max(Fraction(0), level - Fraction(limit * pause, 60_000))
        code, wait = ask(lua, number, now, requests=limit)
        assert (code == 1) == (level + 1 <= limit)
        if code != 1 and as_told:  # one millisecond sooner it is too early still
            assert (code, ask(lua, number, now + wait - 1, requests=limit)[0]) == (-16, -16)
            now, level = now + wait, max(Fraction(0), level - Fraction(limit * wait, 60_000))
            code, wait = ask(lua, number, now, requests=limit)
        if code == 1:
            assert wait == 0
            passed.append(now)
            level += 1
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            window_ms = passed[last] - passed[first]
            assert last - first + 1 <= limit + Fraction(limit * window_ms, 60_000)


@HERE
@given(
    limit=st.integers(1, 50_000) | st.integers(10**9, 10**11),
    calls=st.lists(st.tuples(st.integers(0, 90_000), st.floats(0, 1)), max_size=25),
)
def test_tokens_of_any_window_stay_under_the_rule_and_the_wait_is_exact(
    lua: Lua, limit: int, calls: list[tuple[int, float]]
) -> None:
    empty(lua)
    now, passed = NOW_MS, list[tuple[int, int]]()
    for number, (pause, part) in enumerate(calls):
        now, hold = now + pause, int(limit * part)
        code, wait = ask(lua, number, now, tokens=limit, hold=hold)
        if code != 1:
            assert code == -17
            assert 0 < wait <= 60_000
            assert ask(lua, number, now + wait - 1, tokens=limit, hold=hold)[0] == -17
            now += wait
            assert ask(lua, number, now, tokens=limit, hold=hold) == (1, 0)
        passed.append((now, hold))
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            window_ms = passed[last][0] - passed[first][0]
            taken = sum(hold for _, hold in passed[first : last + 1])
            assert taken <= limit + Fraction(limit * window_ms, 60_000)


@pytest.mark.parametrize("limit", [1, 7, 60, 59_999, 10**11, 10**12, 10**14])
def test_a_whole_minutes_limit_may_come_at_once_and_again_a_minute_later(
    lua: Lua, limit: int
) -> None:
    """Above 10^12 a minute nobody counts: that much passes, and not a token more."""
    counted = min(limit, 10**12)
    assert ask(lua, 1, NOW_MS, tokens=limit, hold=counted) == (1, 0)
    assert ask(lua, 2, NOW_MS + 59_999, tokens=limit, hold=counted) == (-17, 1)
    assert ask(lua, 2, NOW_MS + 60_000, tokens=limit, hold=counted) == (1, 0)
    assert ask(lua, 3, LATER_MS, tokens=limit, hold=counted) == (1, 0)  # it never gets deeper
    assert ask(lua, 4, LATER_MS, tokens=limit, hold=1)[0] == -17


def test_an_unused_bucket_saves_nothing_up(lua: Lua) -> None:
    codes = [ask(lua, n, LATER_MS, requests=3)[0] for n in range(4)]
    assert codes == [1, 1, 1, -16]


def test_a_hold_that_is_larger_than_the_bucket_never_fits(lua: Lua) -> None:
    for now in (NOW_MS, LATER_MS):
        code, wait = ask(lua, 1, now, tokens=100, hold=101)
        assert (code, wait) == (-17, 0)
    assert ask(lua, 1, NOW_MS, tokens=100, hold=100)[0] == 1


def test_what_one_bucket_refuses_the_other_does_not_count(lua: Lua) -> None:
    both: dict[str, Value] = {"requests": 2, "tokens": 100}
    assert ask(lua, 1, NOW_MS, **both, hold=60) == (1, 0)
    for _ in range(5):
        assert ask(lua, 2, NOW_MS, **both, hold=60) == (-17, 12_000)
    assert ask(lua, 3, NOW_MS, **both, hold=40) == (1, 0)
    assert ask(lua, 4, NOW_MS, **both, hold=0) == (-16, 30_000)


def test_what_another_limit_refuses_no_bucket_counts(lua: Lua) -> None:
    for _ in range(5):
        assert lua.reserve(requests=1, concurrent=0).code == -15
        assert lua.reserve(requests=1, limit=0).code == -10
    assert lua.reserve(requests=1).code == 1


def test_what_is_held_counts_whatever_is_charged(lua: Lua) -> None:
    ask(lua, 1, NOW_MS, tokens=100, hold=100)
    lua.settle("r1", charge=1)
    assert ask(lua, 2, NOW_MS, tokens=100, hold=1) == (-17, 600)


def test_the_same_rid_pours_once(lua: Lua) -> None:
    for code in (1, 2, 2, 2):
        assert ask(lua, 1, NOW_MS, requests=2)[0] == code
    assert ask(lua, 2, NOW_MS, requests=2)[0] == 1


@pytest.mark.parametrize("back_ms", [1, 500, 60_000, 10**9])
def test_a_clock_that_goes_back_lets_nothing_drain_twice(lua: Lua, back_ms: int) -> None:
    assert ask(lua, 1, NOW_MS, tokens=100, hold=90) == (1, 0)
    now = NOW_MS - back_ms
    assert lua.reserve("p", starts=0, now=now, tokens=100, prompt=10, wanted=0, least=0).code == 1
    reply = lua.reserve("q", starts=0, now=now, tokens=100, prompt=50, wanted=0, least=0)
    assert (reply.code, reply.wait) == (-17, back_ms + 30_000)  # what drains, drains from then on
    assert ask(lua, 2, NOW_MS + 29_999, tokens=100, hold=50) == (-17, 1)
    assert ask(lua, 2, NOW_MS + 30_000, tokens=100, hold=50) == (1, 0)


def test_another_limit_takes_the_bucket_as_it_is(lua: Lua) -> None:
    ask(lua, 1, NOW_MS, requests=1)
    assert ask(lua, 2, NOW_MS, requests=1) == (-16, 60_000)
    assert [ask(lua, n, NOW_MS, requests=3)[0] for n in (2, 3, 4)] == [1, 1, -16]
    assert ask(lua, 4, NOW_MS, requests=1) == (-16, 180_000)


def test_members_have_buckets_of_their_own(lua: Lua) -> None:
    for name in ("ann", "bob"):
        lua.of(name).bring()
    assert [lua.by("ann").reserve(f"a{n}", requests=1).code for n in range(2)] == [1, -16]
    assert lua.by("bob").reserve("b", requests=1).code == 1
    assert lua.reserve("own", requests=1).code == 1
