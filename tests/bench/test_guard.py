"""The gateway's CPU time a request beside a bare pass-through: a guard against getting slower.

CPU time of the processes counts, in turn within a round and as the median of the rounds, so that
what else the machine does weighs on both alike. The marks lie far below what `make bench` finds.
On a machine that is busy at something else rounds spread by a factor of four, so a comparison that
fails is made again: what has become dearer stays so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NoReturn

import pytest

from bench.cpu import QUICK, Case, compare
from bench.rig import Rig, comparison

# What the pass-through takes, divided by what the gateway takes; and the seconds of a round. A
# stream takes a second, and those that are begun are read to their end.
LEAST = {"plain": 0.5, "stream": 0.5}
SECONDS = {"plain": 0.8, "stream": 0.1}
_ROUNDS, _TRIES = 3, 4


@pytest.fixture(scope="module")
def rig(missing: Callable[[str], NoReturn]) -> Iterator[Rig]:
    if len(os.sched_getaffinity(0)) < 2:
        missing("two cores are needed: one for what is measured, one for the rest")
    with comparison() as running:
        yield running
        running.check_books()


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_the_gateway_is_not_dearer_than_it_may_be(rig: Rig, case: Case) -> None:
    short = replace(case, connections=16)
    ratios = []
    for _ in range(_TRIES):
        found = compare(rig, short, _ROUNDS, SECONDS[case.name], lambda *_: None)
        ratios.append(found.ratio)
        if found.ratio >= LEAST[case.name]:
            return
    pytest.fail(f"the pass-through by the gateway is {ratios}, the mark is {LEAST[case.name]}")
