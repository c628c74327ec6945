"""A few fixed seeds with every run of the tests; `make chaos` runs others, for longer.

That the bench finds what it is there to find is shown by `make chaos-planted`, which takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest

from gateway.adapters.embedded import EmbeddedError
from tests.chaos.planted.faults import FAULTS
from tests.chaos.planted.prove import PROOFS
from tests.chaos.run import Order, run

SEEDS, LENGTH_S = (2, 5, 11), 30.0


@pytest.mark.timeout(600)  # nothing here takes so long unless it is stuck, and then it says where
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_breaks_every_delivered_token_is_booked_once(
    seed: int, missing: Callable[[str], NoReturn]
) -> None:
    try:
        report = run(Order(seed, LENGTH_S))
    except EmbeddedError as error:
        missing(str(error))
    print(report.summary())
    assert not report.verdict.findings, report.failure()
    assert report.served > 0
    assert report.faults > 0


def test_each_planted_fault_has_its_proof() -> None:
    assert PROOFS.keys() == FAULTS.keys()
