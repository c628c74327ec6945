"""Request ids are UUIDv7: versioned, in order, never twice, and derived ids are stable."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.rid import Rids, derived_rid, made_ms, make_rid

TIMES_MS = st.integers(0, 2**48 - 1)
CHANCE = st.binary(min_size=10, max_size=16)


@settings(deadline=None)
@given(TIMES_MS, CHANCE)
def test_a_rid_is_a_uuid_of_version_7_and_the_rfc_variant(now_ms: int, chance: bytes) -> None:
    rid = uuid.UUID(make_rid(now_ms, chance))
    assert rid.version == 7
    assert rid.variant == uuid.RFC_4122
    assert rid.int >> 80 == now_ms


@settings(deadline=None)
@given(TIMES_MS, TIMES_MS, CHANCE, CHANCE)
def test_rids_sort_by_time_whatever_chance_says(
    first_ms: int, second_ms: int, chance: bytes, other: bytes
) -> None:
    first, second = make_rid(first_ms, chance), make_rid(second_ms, other)
    if first_ms < second_ms:
        assert first < second


def test_the_rfc_s_own_example_comes_out() -> None:
    # RFC 9562, appendix A.6: rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F
    chance = bytes.fromhex("0cc3" + "18c4dc0c0c07398f")
    assert make_rid(0x017F22E279B0, chance) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_every_random_bit_but_the_fixed_ones_is_kept() -> None:
    ones, zeros = make_rid(0, b"\xff" * 10), make_rid(0, b"\0" * 10)
    assert (uuid.UUID(ones).int ^ uuid.UUID(zeros).int).bit_count() == 80 - 4 - 2


def test_a_time_beyond_48_bits_is_an_error_and_no_wrong_id() -> None:
    with pytest.raises(OverflowError):
        make_rid(2**48, b"\0" * 10)


@settings(deadline=None)
@given(TIMES_MS, CHANCE, st.text(max_size=10), st.text(max_size=10))
def test_a_derived_rid_is_stable_and_its_own(
    now_ms: int, chance: bytes, reason: str, other: str
) -> None:
    parent = make_rid(now_ms, chance)
    derived = derived_rid(parent, reason)
    assert derived == derived_rid(parent, reason)
    assert derived != parent
    assert uuid.UUID(derived).version == 7
    assert uuid.UUID(derived).int >> 80 == now_ms
    assert (derived == derived_rid(parent, other)) == (reason == other)


def test_derived_rids_do_not_change_between_releases() -> None:
    parent = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    assert derived_rid(parent, "late") == "017f22e2-79b0-7e82-ab9e-7f1eb6a648ca"


# --- those of one process --------------------------------------------------------------------

SEED = bytes.fromhex("18c4dc0c0c07398f")


@settings(deadline=None)
@given(st.lists(TIMES_MS, max_size=20) | st.lists(st.integers(0, 3), max_size=50), CHANCE)
def test_a_process_makes_each_once_and_in_order_whatever_its_clock_does(
    times_ms: list[int], seed: bytes
) -> None:
    rids = Rids(seed)
    made = [rids.next(now_ms) for now_ms in times_ms]
    assert sorted(set(made)) == made
    for rid in made:
        parsed = uuid.UUID(rid)
        assert (str(parsed), parsed.version, parsed.variant) == (rid, 7, uuid.RFC_4122)


@settings(deadline=None)
@given(TIMES_MS, CHANCE)
def test_its_time_is_the_clock_s(now_ms: int, seed: bytes) -> None:
    rids = Rids(seed)
    assert [made_ms(rids.next(now_ms)) for _ in range(3)] == [now_ms] * 3


def test_a_clock_that_stands_still_or_goes_back_runs_on_in_the_rids() -> None:
    rids = Rids(SEED)
    made = [rids.next(7) for _ in range(4096)] + [rids.next(5) for _ in range(4096 + 1)]
    assert sorted(set(made)) == made
    assert {made_ms(rid) for rid in made[:4096]} == {7}
    assert (made_ms(made[4096]), made_ms(made[-1])) == (8, 9)
    assert made_ms(rids.next(10)) == 10, "and when the clock has come up, it counts again"


@settings(deadline=None)
@given(TIMES_MS, st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8))
def test_two_processes_differ_by_62_bits(now_ms: int, seed: bytes, other: bytes) -> None:
    same = [uuid.UUID(Rids(each).next(now_ms)).int for each in (seed, other)]
    bits = int.from_bytes(seed, "big") ^ int.from_bytes(other, "big")
    assert same[0] ^ same[1] == bits & (2**62 - 1)


def test_the_form_does_not_change_between_releases() -> None:
    rids = Rids(SEED)
    assert rids.next(0x017F22E279B0) == "017f22e2-79b0-7000-98c4-dc0c0c07398f"
    assert rids.next(0x017F22E279B0) == "017f22e2-79b0-7001-98c4-dc0c0c07398f"


def test_what_no_rid_can_be_made_of_is_an_error() -> None:
    with pytest.raises(OverflowError, match="48 bits"):
        Rids(SEED).next(2**48)
    with pytest.raises(ValueError, match="8 random bytes"):
        Rids(bytes(7))
