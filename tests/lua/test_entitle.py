"""entitle.lua: what the ledger grants arrives whole, in order, and in its own period.

It takes the server's time and no other, so the borders here lie around the true now.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from tests.lua.script_calls import RID, Lua, Value

HOUR_MS = 3_600_000


@pytest.fixture
def now_ms(bare: Lua) -> int:
    seconds, _ = bare.client.time()
    return int(seconds * 1000)


@pytest.fixture
def running(bare: Lua, now_ms: int) -> Lua:
    """An account in the middle of its period."""
    bare.open()
    bare.bring(starts=now_ms - HOUR_MS, ends=now_ms + HOUR_MS, settled=40, adjusted=3, rev=2)
    return bare


@pytest.fixture
def over(bare: Lua, now_ms: int) -> Lua:
    """An account whose period is over; nobody has called since."""
    bare.open()
    starts = now_ms - 2 * HOUR_MS
    bare.bring(starts=starts, ends=now_ms - HOUR_MS, settled=40, adjusted=3, cost=8, rev=2)
    bare.reserve(rev=2, now=starts, prompt=30, wanted=0, least=0)
    return bare


def test_adjustments_are_absolute_and_signed(running: Lua, now_ms: int) -> None:
    borders = {"starts": now_ms - HOUR_MS, "ends": now_ms + HOUR_MS}
    assert running.entitle(rev=3, adjusted=500, **borders) == [1, 3]
    assert running.entitle(rev=4, adjusted=-20, **borders) == [1, 4]
    assert running.account("adj", "r", "s", "h") == [-20, 4, 40, 0]


@pytest.mark.parametrize("rev", [2, 3])
def test_a_revision_that_is_not_newer_changes_nothing(running: Lua, now_ms: int, rev: int) -> None:
    borders = {"starts": now_ms - HOUR_MS, "ends": now_ms + HOUR_MS}
    running.entitle(rev=3, adjusted=500, **borders)
    before = running.everything()
    assert running.entitle(rev=rev, adjusted=9, **borders) == [0, 3]
    assert running.everything() == before


def test_adjustments_of_a_period_that_was_left_raise_only_the_revision(
    running: Lua, now_ms: int
) -> None:
    old = {"starts": now_ms - 9 * HOUR_MS, "ends": now_ms - HOUR_MS}
    assert running.entitle(rev=3, adjusted=500, **old) == [1, 3]
    assert running.account("r", "adj", "s", "ps") == [3, 3, 40, now_ms - HOUR_MS]


def test_adjustments_of_the_period_that_is_over_are_still_its_own(over: Lua, now_ms: int) -> None:
    same = {"starts": now_ms - 2 * HOUR_MS, "ends": now_ms - HOUR_MS}
    assert over.entitle(rev=3, adjusted=500, **same) == [1, 3]
    assert over.account("adj", "s", "ps") == [500, 40, now_ms - 2 * HOUR_MS]


def test_the_first_projection_of_a_new_period_begins_it(over: Lua, now_ms: int) -> None:
    new = {"starts": now_ms - HOUR_MS, "ends": now_ms + HOUR_MS}
    assert over.entitle(rev=3, adjusted=500, **new) == [1, 3]
    assert over.account("ps", "pe") == [now_ms - HOUR_MS, now_ms + HOUR_MS]
    assert over.account("s", "adj", "g", "r") == [0, 500, 0, 3]
    assert over.account("lps", "ls", "h", "n") == [now_ms - 2 * HOUR_MS, 40, 30, 1]


@pytest.mark.parametrize("account", ["running", "over"])
def test_a_period_that_has_not_begun_waits(
    request: pytest.FixtureRequest, account: str, now_ms: int
) -> None:
    """Its adjustments must not be passed over, so the revision may not rise yet."""
    lua: Lua = request.getfixturevalue(account)
    before = lua.everything()
    soon = {"starts": now_ms + HOUR_MS, "ends": now_ms + 2 * HOUR_MS}
    assert lua.entitle(rev=3, adjusted=500, **soon) == [-4, 2]
    assert lua.everything() == before


def test_without_an_account_in_force_nothing_is_projected(bare: Lua) -> None:
    assert bare.entitle() == [-1, 0]
    bare.open()
    assert bare.entitle() == [-2, 0]
    bare.bring()
    bare.open(epoch=2)
    before = bare.everything()
    assert bare.entitle() == [-2, 0]
    assert bare.everything() == before


def test_a_hold_and_a_projection_leave_each_other_alone(running: Lua, now_ms: int) -> None:
    running.reserve(rev=2, now=now_ms)
    hold = running.hold()
    borders = {"starts": now_ms - HOUR_MS, "ends": now_ms + HOUR_MS}
    running.entitle(rev=3, adjusted=500, **borders)
    assert (running.hold(), running.account("h", "n")) == (hold, [150, 1])
    assert running.settle(RID, charge=10, now=now_ms).used == 550


@pytest.mark.parametrize(
    "changes",
    [{name: text} for name in ("rev", "starts", "ends") for text in ("", "x", "-1", "1.5", "inf")]
    + [{"adjusted": text} for text in ("", "x", "1.5", "nan", "inf", "-inf", str(2**53))],
    ids=str,
)
def test_a_wrong_argument_is_told_and_changes_nothing(lua: Lua, changes: dict[str, Value]) -> None:
    before = lua.everything()
    with pytest.raises(redis.ResponseError, match=r"^entitle: an argument"):
        lua.run("entitle", **changes)
    assert lua.everything() == before


@pytest.mark.parametrize("place", range(2))
def test_a_key_of_a_wrong_type_stops_it_before_it_writes(lua: Lua, place: int) -> None:
    lua.client.delete(lua.keys_of("entitle")[place])
    lua.client.set(lua.keys_of("entitle")[place], "text")
    before = lua.everything()
    with pytest.raises(redis.ResponseError, match=r"WRONGTYPE"):
        lua.entitle()
    assert lua.everything() == before


def test_a_full_memory_does_not_stop_a_projection(
    running: Lua, now_ms: int, fill_memory: Callable[[], None]
) -> None:
    fill_memory()
    borders = {"starts": now_ms - HOUR_MS, "ends": now_ms + HOUR_MS}
    assert running.entitle(rev=3, adjusted=5, **borders) == [1, 3]
