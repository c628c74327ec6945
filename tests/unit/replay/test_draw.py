"""Who sends each row: the same for the same seed, skewed, and on every tier."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway.replay.draw import Draw, Drawn, deal_tiers

TIERS = ("free", "lite", "full")


def drawn(users: int, seed: int, rows: int) -> list[Drawn]:
    draw = Draw(users, seed)
    return [draw.next() for _ in range(rows)]


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    assert drawn(60, 7, 500) == drawn(60, 7, 500)
    assert drawn(60, 7, 500) != drawn(60, 8, 500)
    assert deal_tiers(TIERS, 60, 7) == deal_tiers(TIERS, 60, 7)
    assert deal_tiers(TIERS, 60, 7) != deal_tiers(TIERS, 60, 8)


def test_a_seed_means_the_same_on_every_python() -> None:
    assert deal_tiers(TIERS, 6, 7) == ["free", "lite", "full", "full", "lite", "free"]
    assert [one.user for one in drawn(60, 7, 8)] == [1, 11, 4, 18, 25, 28, 26, 3]


@pytest.mark.parametrize("users", [3, 4, 60])
def test_each_tier_has_busy_users_and_quiet_ones(users: int) -> None:
    tiers = deal_tiers(TIERS, users, 11)
    assert len(tiers) == users
    assert set(tiers[:3]) == set(TIERS)
    if users == 60:
        assert set(tiers[-3:]) == set(TIERS)
        assert Counter(tiers) == dict.fromkeys(TIERS, 20)


def test_user_k_sends_in_proportion_to_one_by_k() -> None:
    sent = Counter(one.user for one in drawn(60, 7, 40_000))
    share = 40_000 / sum(1 / rank for rank in range(1, 61))
    for rank in (1, 2, 3, 10, 60):
        assert sent[rank - 1] == pytest.approx(share / rank, rel=0.15)
    assert set(sent) == set(range(60))


def test_half_of_the_requests_stream_and_half_of_those_ask_for_usage() -> None:
    rows = drawn(60, 7, 4_000)
    streams = [one for one in rows if one.stream]
    assert len(streams) == pytest.approx(2_000, rel=0.1)
    assert sum(one.asks_usage for one in streams) == pytest.approx(1_000, rel=0.1)
    assert not any(one.asks_usage for one in rows if not one.stream)
