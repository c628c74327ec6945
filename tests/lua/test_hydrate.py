"""hydrate.lua: an account comes back from the ledger once, with nothing lost or doubled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from tests.lua.script_calls import ENDS_MS, NOW_MS, STARTS_MS, Lua, Value

HOUR_MS = 3_600_000
LARGE = 10**15 - 1


def test_what_the_ledger_says_is_in_force_after_the_second_step(bare: Lua) -> None:
    bare.open(epoch=4)
    begun = bare.hydrate("begin")
    assert (begun.code, begun.stream_id, begun.epoch, begun.starts) == (1, "0-0", 4, STARTS_MS)
    assert begun.token
    packs = f"p {LARGE} {ENDS_MS},q 0 5"
    sums = {"settled": 700, "from_packs": 90, "adjusted": -20, "cost": LARGE, "rev": 5}
    done = bare.hydrate("finish", token=begun.token, packs=packs, **sums)
    assert done == (3, begun.token, "0-0", 4, STARTS_MS)
    assert bare.account("e", "r", "s", "adj", "g") == [4, 5, 700, -20, LARGE]
    assert (bare.account("f", "k"), bare.packs()) == ([90, 2], {"p": LARGE, "q": 0})
    assert bare.account("ps", "pe", "h", "n", "q", "al") == [STARTS_MS, ENDS_MS, 0, 0, 0, 0]
    reply = bare.reserve(rev=5)
    assert (reply.used, reply.packs, reply.spent) == (590, LARGE, LARGE)


def test_a_second_gateway_joins_and_its_finish_does_nothing(bare: Lua) -> None:
    bare.open()
    first = bare.hydrate("begin")
    second = bare.hydrate("begin", starts=STARTS_MS + 1, now=NOW_MS + 5)
    assert second == first
    assert bare.hydrate("finish", token=first.token, settled=10).code == 3
    before = bare.everything()
    assert bare.hydrate("finish", token=second.token, settled=10).code == 0
    assert bare.everything() == before


def test_a_begin_that_nobody_finished_is_taken_up_again(bare: Lua) -> None:
    bare.open()
    first = bare.hydrate("begin")
    assert bare.settle(epoch=0, charge=30).code == 3
    again = bare.hydrate("begin", now=NOW_MS + HOUR_MS)
    assert again == first  # so the sums are those up to where the first one began to count
    bare.hydrate("finish", token=again.token, settled=5)
    assert bare.account("s") == [35]


def test_what_is_settled_between_the_steps_counts_once(bare: Lua) -> None:
    bare.open()
    bare.settle("before", epoch=0, charge=100, cost=1)
    begun = bare.hydrate("begin")
    bare.settle("between", epoch=0, charge=20, cost=2)
    (first, second) = bare.rows()
    assert first.stream_id == begun.stream_id != second.stream_id
    bare.hydrate("finish", token=begun.token, settled=100, cost=1)
    assert bare.account("s", "g", "q") == [120, 3, 1]


def test_sums_that_are_older_than_a_projection_in_between_are_read_again(bare: Lua) -> None:
    bare.open()
    begun = bare.hydrate("begin")
    assert bare.entitle(rev=8, adjusted=50) == (1, 8)
    before = bare.everything()
    for rev in (0, 7):
        reply = bare.hydrate("finish", token=begun.token, settled=5, adjusted=10, rev=rev)
        assert reply == (4, begun.token, begun.stream_id, 1, STARTS_MS)
    assert bare.everything() == before
    assert bare.reserve(rev=8).code == -2
    assert bare.hydrate("finish", token=begun.token, settled=5, adjusted=50, rev=8).code == 3
    assert bare.account("r", "adj", "s") == [8, 50, 5]


def test_newer_sums_win_over_a_projection_between_the_steps(bare: Lua) -> None:
    bare.open()
    begun = bare.hydrate("begin")
    assert bare.entitle(rev=8, adjusted=50, packs=f"p 9 {ENDS_MS}") == (1, 8)
    bare.hydrate("finish", token=begun.token, adjusted=60, rev=9, packs=f"q 7 {ENDS_MS}")
    assert bare.account("r", "adj") == [9, 60]
    assert bare.packs() == {"q": 7}


def test_the_period_does_not_change_between_the_steps(bare: Lua) -> None:
    """The sums are those of the period it began with, whatever the clock says meanwhile."""
    bare.open()
    begun = bare.hydrate("begin")
    assert bare.entitle(rev=1, starts=ENDS_MS, ends=ENDS_MS + 9, now=ENDS_MS) == (1, 1)
    done = bare.hydrate("finish", token=begun.token, settled=700, rev=1, now=ENDS_MS)
    assert (done.code, done.starts) == (3, STARTS_MS)
    assert bare.account("ps", "s") == [STARTS_MS, 700]


def test_what_is_charged_between_the_steps_is_paid_by_the_allowance(bare: Lua) -> None:
    """Its packs are not known yet; the ledger's are told as they were before."""
    bare.open()
    begun = bare.hydrate("begin")
    assert bare.settle("between", epoch=0, charge=70, limit=50).from_packs == 0
    bare.hydrate("finish", token=begun.token, from_packs=9, packs=f"p 30 {ENDS_MS}")
    assert (bare.account("s", "f"), bare.packs()) == ([70, 9], {"p": 30})


def test_the_packs_of_an_account_that_was_in_force_are_told_anew(lua: Lua) -> None:
    lua.entitle(rev=1, packs=f"p 9 {ENDS_MS},gone 5 {ENDS_MS}")
    lua.open(epoch=2)
    lua.bring(rev=1, packs=f"p 40 {ENDS_MS}")
    assert lua.packs() == {"p": 40}


def test_a_member_comes_back_beside_its_payer(lua: Lua) -> None:
    lua.reserve()
    before = lua.client.hgetall(lua.keys.account), lua.hold()
    assert lua.by("ann").reserve("by-ann").code == -2
    lua.of("ann").bring(settled=7)
    assert (lua.client.hgetall(lua.keys.account), lua.hold()) == before
    assert lua.by("ann").reserve("by-ann").code == 1


def test_an_account_in_force_is_never_touched(lua: Lua) -> None:
    lua.reserve()
    before = lua.everything()
    assert lua.hydrate("begin", settled=9).code == 2
    assert lua.hydrate("finish", token="", settled=9).code == 0
    assert lua.everything() == before


def test_a_finish_without_a_begin_makes_no_account(bare: Lua) -> None:
    bare.open()
    before = bare.everything()
    assert bare.hydrate("finish", token="1:2:0-0", settled=9).code == 0
    assert bare.everything() == before


@pytest.mark.parametrize("token", ["", "x", "1:1:0-0"])
def test_a_finish_with_another_token_does_nothing(bare: Lua, token: str) -> None:
    bare.open()
    bare.hydrate("begin")
    before = bare.everything()
    assert bare.hydrate("finish", token=token, settled=9).code == 0
    assert bare.everything() == before


def test_a_token_of_an_older_epoch_finishes_nothing(bare: Lua) -> None:
    bare.open(epoch=1)
    old = bare.hydrate("begin").token
    bare.open(epoch=2)
    assert bare.hydrate("finish", token=old, settled=9).code == 0
    new = bare.hydrate("begin").token
    assert new != old
    assert bare.hydrate("finish", token=old, settled=9).code == 0
    assert bare.hydrate("finish", token=new, settled=4).code == 3
    assert bare.account("s") == [4]


def test_a_new_epoch_makes_orphans_of_open_holds_and_keeps_endings(lua: Lua) -> None:
    lua.reserve("open")
    lua.reserve("expired")
    lua.settle("expired", kind="expire", charge=7, cost=1, now=ENDS_MS)
    lua.settle("released", kind="release")
    lua.open(epoch=2)
    lua.settle("late", epoch=1, charge=3)
    held = lua.hold("open")
    lua.bring(settled=10)
    assert lua.hold("open") == "o" + str(held)[1:]
    ended = [f"x 7 1 150 {NOW_MS} -", "v", "d"]
    assert [lua.hold(rid) for rid in ("expired", "released", "late")] == ended
    assert lua.account("h", "n", "gh") == [0, 0, 0]


def test_a_shard_without_meta_is_not_ready(bare: Lua) -> None:
    for step in ("begin", "finish"):
        assert bare.hydrate(step, now="") == (-1, "", "", 0, 0)
    assert bare.everything() == {}


SIGNED = ("settled", "from_packs", "adjusted", "cost")


@pytest.mark.parametrize(
    "changes",
    [{name: text} for name in ("starts", "ends", "rev") for text in ("", "x", "-1", "1.5", "inf")]
    + [
        {name: text}
        for name in SIGNED
        for text in ("", "x", "1.5", "nan", "-inf", str(-(10**15) * 10))
    ]
    + [{"step": "join"}, {"step": ""}, {"packs": "p 5"}, {"packs": "a:b 5 5"}],
    ids=str,
)
@pytest.mark.parametrize("step", ["begin", "finish"])
def test_a_wrong_argument_is_told_and_changes_nothing(
    bare: Lua, step: str, changes: dict[str, Value]
) -> None:
    bare.open()
    token = bare.hydrate("begin").token if step == "finish" else ""
    before = bare.everything()
    with pytest.raises(redis.ResponseError, match=r"^hydrate: an argument"):
        bare.run("hydrate", **{"step": step, "token": token, **changes})
    assert bare.everything() == before


def test_a_clock_of_the_caller_is_refused_where_meta_does_not_allow_it(bare: Lua) -> None:
    bare.run("open")
    before = bare.everything()
    with pytest.raises(redis.ResponseError, match=r"^hydrate: a clock"):
        bare.hydrate("begin")
    assert bare.everything() == before
    assert bare.hydrate("begin", now="").code == 1


META, ACCOUNT, PACKS, OUTBOX, HOLDS = range(5)


@pytest.mark.parametrize(
    ("step", "place"),
    [("begin", place) for place in (META, ACCOUNT, OUTBOX, HOLDS)]
    + [("finish", place) for place in (META, ACCOUNT, PACKS)],
)
def test_a_key_of_a_wrong_type_stops_it_before_it_writes(bare: Lua, step: str, place: int) -> None:
    bare.open()
    token = bare.hydrate("begin").token if step == "finish" else ""
    bare.spoil("hydrate", place)
    before = bare.everything()
    with pytest.raises(redis.ResponseError, match=r"WRONGTYPE"):
        bare.hydrate(step, token=token, packs=f"p 5 {ENDS_MS}")
    assert bare.everything() == before


def test_packs_that_cannot_be_read_are_written_anew(bare: Lua) -> None:
    bare.open()
    bare.spoil("hydrate", PACKS)
    bare.bring(packs=f"p 5 {ENDS_MS}")
    assert bare.packs() == {"p": 5}


def test_it_is_refused_when_memory_is_full(bare: Lua, fill_memory: Callable[[], None]) -> None:
    bare.open()
    before = bare.everything()
    fill_memory()
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        bare.hydrate("begin")
    assert bare.everything() == before
