"""What is remembered of payers' room lets a bound pass only where it can do no harm."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.quota.reserve import ReserveCode, ReserveReply
from gateway.core.quota.settle import SettleCode, SettleReply
from gateway.flow.room import BOUND_SHARE, Rooms

HELD = ReserveReply(
    code=ReserveCode.HELD,
    output_tokens=0,
    hold_tokens=0,
    hold_nano_gbp=0,
    used_tokens=0,
    held_tokens=0,
    limit_tokens=1000,
    pack_tokens=0,
    spent_nano_gbp=0,
    period_start_ms=0,
    period_end_ms=1,
    now_ms=0,
    wait_ms=0,
    rev=1,
    member_rev=1,
    epoch=1,
)
SEEN_S = 5.0
MOST = 1000 // BOUND_SHARE
OF_TOKENS = [
    ReserveCode.MONTH,
    ReserveCode.IN_FLIGHT,
    ReserveCode.TIER,
    ReserveCode.BUDGET,
    ReserveCode.TOKENS,
]


def settled(used_tokens: int, held_tokens: int = 0, from_packs: int = 0) -> SettleReply:
    return SettleReply(
        SettleCode.SETTLED, used_tokens, held_tokens, 1000, 0, 0, from_packs, 0, "1-0", 1
    )


def known(**changes: Any) -> Rooms:
    rooms = Rooms()
    rooms.reserved("ada", replace(HELD, **changes), SEEN_S)
    return rooms


def most(rooms: Rooms) -> int:
    """The most that a bound may hold now, found without taking it."""
    found = [tokens for tokens in range(1, 2000) if _would_take(rooms, tokens)]
    return max(found, default=0)


def _would_take(rooms: Rooms, tokens: int) -> bool:
    room = rooms._rooms.get("ada")
    held = room.held_tokens if room else 0
    taken = rooms.take("ada", tokens)
    if taken and room:
        room.held_tokens = held
    return taken


def test_of_a_payer_who_was_never_seen_nothing_is_known() -> None:
    assert not Rooms().take("ada", 1)
    assert not known().take("bob", 1)


@pytest.mark.parametrize(
    ("figures", "tokens"),
    [
        ({}, MOST),
        ({"used_tokens": 500}, MOST // 2),
        ({"held_tokens": 20}, MOST - 20),
        ({"held_tokens": 500}, 0),
        ({"pack_tokens": 1000}, 2 * MOST),
        ({"used_tokens": 3000, "pack_tokens": 200}, 10),
        ({"used_tokens": 1000}, 0),
    ],
)
def test_a_twentieth_of_what_is_left_may_be_held_by_bounds(
    figures: dict[str, Any], tokens: int
) -> None:
    assert most(known(**figures)) == tokens


def test_what_one_call_takes_the_next_does_not_find() -> None:
    rooms = known()
    assert [rooms.take("ada", 20) for _ in range(4)] == [True, True, False, False]


def test_a_settlement_brings_the_figures_up_to_date() -> None:
    rooms = known(held_tokens=900, pack_tokens=400)
    rooms.settled("ada", settled(used_tokens=200, held_tokens=30))
    assert most(rooms) == (800 + 400) // BOUND_SHARE - 30
    rooms.settled("ada", settled(used_tokens=1000, from_packs=100))
    assert most(rooms) == 300 // BOUND_SHARE


def test_a_settlement_of_a_payer_who_is_not_known_says_nothing() -> None:
    rooms = Rooms()
    rooms.settled("ada", settled(0))
    assert len(rooms) == 0


@pytest.mark.parametrize(("empty", "left"), [(SettleCode.NOT_READY, MOST), (SettleCode.LATE, 0)])
def test_what_was_known_of_an_account_that_is_gone_is_forgotten(
    empty: SettleCode, left: int
) -> None:
    """A settlement that Redis could not take yet says nothing. One that was booked without an
    account was not counted in the room that is remembered."""
    rooms = known()
    rooms.settled("ada", SettleReply(empty, 0, 0, 0, 0, 0, 0, 0, "", 1))
    assert most(rooms) == left
    assert (rooms.last("ada") is None) == (not left)


def test_the_last_figures_are_those_of_the_last_reply() -> None:
    rooms = known(used_tokens=100, pack_tokens=50)
    rooms.settled("ada", settled(used_tokens=300, held_tokens=30, from_packs=10))
    room = rooms.last("ada")
    assert room is not None
    assert (room.left_tokens, room.held_tokens, room.pack_tokens) == (740, 30, 40)
    assert (room.used_tokens, room.seen_s) == (300, SEEN_S)


@pytest.mark.parametrize("code", OF_TOKENS)
def test_a_payer_who_was_refused_is_counted_exactly_until_more_is_left(code: ReserveCode) -> None:
    rooms = known()
    rooms.reserved("ada", replace(HELD, code=code, used_tokens=100), SEEN_S)
    assert most(rooms) == 0
    rooms.settled("ada", settled(used_tokens=150))
    assert most(rooms) == 0
    rooms.reserved("ada", replace(HELD, used_tokens=150), SEEN_S)
    assert most(rooms) == 0
    rooms.reserved("ada", replace(HELD, used_tokens=150, pack_tokens=400), SEEN_S)
    assert most(rooms) == 1250 // BOUND_SHARE
    rooms.reserved("ada", HELD, SEEN_S)  # a new period
    assert most(rooms) == MOST


def test_a_refusal_at_first_sight_is_remembered() -> None:
    rooms = Rooms()
    rooms.reserved("ada", replace(HELD, code=ReserveCode.IN_FLIGHT), SEEN_S)
    rooms.reserved("ada", HELD, SEEN_S)
    assert most(rooms) == 0


def test_a_member_s_own_ceiling_does_not_pass_for_the_team_s() -> None:
    rooms = known()
    rooms.reserved("ada", replace(HELD, code=ReserveCode.MEMBER, limit_tokens=5), SEEN_S)
    assert most(rooms) == 0
    rooms.reserved("ada", replace(HELD, pack_tokens=20), SEEN_S)
    assert most(rooms) == 1020 // BOUND_SHARE
    rooms.reserved("bob", replace(HELD, code=ReserveCode.MEMBER), SEEN_S)
    assert len(rooms) == 1


@pytest.mark.parametrize("code", [ReserveCode.CONCURRENT, ReserveCode.REQUESTS])
def test_a_refusal_that_is_not_for_tokens_changes_nothing(code: ReserveCode) -> None:
    rooms = known()
    rooms.reserved("ada", replace(HELD, code=code), SEEN_S)
    assert most(rooms) == MOST


@pytest.mark.parametrize(
    "code", [c for c in ReserveCode if c > ReserveCode.MONTH and c is not ReserveCode.HELD]
)
def test_what_is_to_be_mended_first_says_nothing(code: ReserveCode) -> None:
    rooms = Rooms()
    rooms.reserved("ada", replace(HELD, code=code), SEEN_S)
    assert len(rooms) == 0


def test_memory_is_bounded_by_who_called_last() -> None:
    rooms = Rooms(rooms_max=2)
    for payer in ("ada", "bob", "ada", "eve"):
        rooms.reserved(payer, HELD, SEEN_S)
    assert len(rooms) == 2
    assert [rooms.take(payer, 1) for payer in ("ada", "bob", "eve")] == [True, False, True]
