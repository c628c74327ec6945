"""Request ids are UUIDv7: versioned, in order of time, and derived ids are stable."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.rid import derived_rid, make_rid

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
