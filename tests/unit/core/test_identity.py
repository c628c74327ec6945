"""Keys, digests and shards: the same in every process and release, and nothing raw in a name."""

from __future__ import annotations

import hmac
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.identity import (
    KEY_PREFIX,
    USER_ID_PATTERN,
    account_digest,
    format_key,
    key_digest,
    member_digest,
    shard_of,
    valid_user_id,
)


@pytest.mark.parametrize("user_id", ["a", "0", "ada@example.org", "a-b_c.d:e+f", "Z" * 128])
def test_a_usual_user_id_is_valid(user_id: str) -> None:
    assert valid_user_id(user_id)


@pytest.mark.parametrize(
    "user_id",
    [
        *("", "-a", ".a", "@a", "a b", "a\n", "\na", "a\0", "a{b}", "a/b", "é", "a" * 129, "a,b"),
        *("a;b", "a'b", 'a"b', "a\\b", "a%2fb", "\u202ea", "a\u0661"),
    ],
)
def test_a_user_id_that_would_hurt_a_header_or_a_log_is_not_valid(user_id: str) -> None:
    assert not valid_user_id(user_id)


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_key_tells_its_bytes_apart_and_fits_a_header(one: bytes, other: bytes) -> None:
    key = format_key(one)
    assert re.fullmatch(r"qg_[A-Za-z0-9_-]{43}", key)
    assert key.startswith(KEY_PREFIX)
    assert (key == format_key(other)) == (one == other)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_less_chance_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        format_key(b"\0" * length)


@pytest.mark.parametrize("length", [0, 1, 32, 63, 64, 65, 200])
def test_a_digest_is_the_hmac_that_every_release_and_every_tool_computes(length: int) -> None:
    pepper = bytes(range(length))
    assert key_digest("qg_a", pepper) == hmac.digest(pepper, b"qg_a", "sha256")


def test_a_digest_needs_the_pepper() -> None:
    assert key_digest("qg_a", b"one") != key_digest("qg_a", b"two")
    assert key_digest("qg_a", b"one") != key_digest("qg_b", b"one")
    assert len(key_digest("qg_a", b"")) == 32


@settings(deadline=None)
@given(st.text())
def test_an_account_is_named_by_22_safe_characters(payer: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", account_digest(payer))


USER_IDS = st.from_regex(USER_ID_PATTERN, fullmatch=True)


@settings(deadline=None)
@given(USER_IDS, USER_IDS, USER_IDS, USER_IDS)
def test_a_member_has_an_account_that_no_other_member_and_no_payer_has(
    payer: str, member: str, other_payer: str, other_member: str
) -> None:
    digest = member_digest(payer, member)
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", digest)
    same = (payer, member) == (other_payer, other_member)
    assert (digest == member_digest(other_payer, other_member)) == same
    assert digest not in (account_digest(payer), account_digest(member), account_digest(""))


def test_where_the_payer_s_id_ends_makes_a_difference() -> None:
    assert member_digest("a", "bc") != member_digest("ab", "c")
    assert member_digest("a", "b") != member_digest("b", "a")


@settings(deadline=None)
@given(st.text(), st.integers(1, 99))
def test_a_shard_is_one_of_those_there_are(payer: str, shards: int) -> None:
    assert 0 <= shard_of(payer, shards) < shards


def test_digests_and_shards_do_not_change_between_releases() -> None:
    assert key_digest("qg_a", b"pepper").hex()[:16] == "6cee69c0610d1c4a"
    assert account_digest("ada") == "xu9DxH-MI2J-5bn49ctAbA"
    assert member_digest("team-1", "ada") == "Maj-E4hnCZVIVHsyCkmy1g"
    assert [shard_of(f"user-{n}", 16) for n in range(8)] == [6, 4, 1, 12, 4, 14, 3, 15]


def test_payers_spread_over_all_shards() -> None:
    counts = [0] * 16
    for number in range(1600):
        counts[shard_of(f"user-{number}", 16)] += 1
    assert min(counts) > 60
    assert max(counts) < 150
