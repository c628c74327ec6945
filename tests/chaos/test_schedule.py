"""A schedule follows from its seed alone, and in the end every sort of fault is drawn."""

from __future__ import annotations

from itertools import combinations

from tests.chaos.schedule import drawn, parts_of

LENGTH_S = 60.0


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert drawn(7, LENGTH_S) == drawn(7, LENGTH_S)
    assert drawn(7, LENGTH_S) != drawn(8, LENGTH_S)


def test_a_schedule_is_in_order_and_begins_within_its_length() -> None:
    for seed in range(50):
        times = [fault.at_s for fault in drawn(seed, LENGTH_S)]
        assert times == sorted(times)
        assert times[-1] < LENGTH_S
        assert len(times) > LENGTH_S / 3


def test_what_is_broken_is_not_broken_again_before_it_is_whole() -> None:
    for seed in range(50):
        for first, second in combinations(drawn(seed, LENGTH_S), 2):
            if parts_of(first.target) & parts_of(second.target):
                assert second.at_s > first.at_s + first.lasting_s


def test_every_kind_befalls_every_target_it_may() -> None:
    seen = {(fault.kind, fault.target) for seed in range(200) for fault in drawn(seed, LENGTH_S)}
    assert ("kill", "gateway-3") in seen
    assert ("freeze", "upstream") in seen
    assert len({kind for kind, _ in seen}) == 9
    assert len(seen) == 69


def test_two_faults_may_be_under_way_at_once() -> None:
    faults = drawn(1, LENGTH_S)
    assert any(
        second.at_s < first.at_s + first.lasting_s for first, second in combinations(faults, 2)
    )
