"""Costs are exact, rounded once, and never zero by omission.

Expected values come from exact Decimal arithmetic or were worked out by hand.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.models import Weights
from gateway.core.pricing import (
    Price,
    PriceTable,
    PriceVersion,
    charged_tokens,
    cost_nano_gbp,
    nano_gbp,
)
from gateway.core.usage import Usage

# A busy machine is no failure.
unhurried = settings(deadline=None)
MINI = Price(
    "v1", input_nano_gbp=118_500_000, cached_nano_gbp=59_250_000, output_nano_gbp=474 * 10**6
)
DEFAULT = Price("v1", 7_900 * 10**6, 3_950 * 10**6, 31_600 * 10**6, is_default=True)
LATER = Price("v2", 1, 1, 1, is_default=True)
TABLE = PriceTable(
    (
        PriceVersion("v1", 1_000, {"*": DEFAULT, "mini": MINI}),
        PriceVersion("v2", 2_000, {"*": LATER}),
    )
)

counts = st.integers(min_value=0, max_value=10**9)
line_prices = st.integers(min_value=0, max_value=10**13)
per_mille = st.integers(min_value=0, max_value=1000)


def test_a_price_in_dollars_becomes_whole_nano_gbp() -> None:
    assert nano_gbp(Decimal("0.15"), Decimal("0.79")) == 118_500_000


def test_a_price_that_is_not_whole_in_nano_gbp_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number"):
        nano_gbp(Decimal("0.00001"), Decimal("0.00001"))


def test_one_million_of_each_costs_the_sum_of_the_lines() -> None:
    million = 10**6
    cost = cost_nano_gbp(MINI, Usage(2 * million, million, million, 0))
    assert cost == 118_500_000 + 59_250_000 + 474 * 10**6


def test_half_a_nano_is_rounded_up_and_less_is_dropped() -> None:
    half = Price("v", input_nano_gbp=500_000, cached_nano_gbp=0, output_nano_gbp=499_999)
    assert cost_nano_gbp(half, Usage(1, 0, 0, 0)) == 1
    assert cost_nano_gbp(half, Usage(0, 0, 1, 0)) == 0
    assert cost_nano_gbp(half, Usage(1, 0, 1, 0)) == 1, "rounded once over the sum, not per line"


@unhurried
@given(
    prompt=counts,
    cached=counts,
    output=counts,
    prices=st.tuples(line_prices, line_prices, line_prices),
)
def test_cost_equals_exact_decimal_arithmetic(
    prompt: int, cached: int, output: int, prices: tuple[int, int, int]
) -> None:
    cached = min(cached, prompt)
    exact = Decimal((prompt - cached) * prices[0] + cached * prices[1] + output * prices[2]) / 10**6
    expected = int(exact.to_integral_value(rounding=ROUND_HALF_UP))
    assert cost_nano_gbp(Price("v", *prices), Usage(prompt, cached, output, 0)) == expected


def test_more_cached_than_prompt_is_not_believed() -> None:
    believed, claimed = Usage(10, 10, 0, 0), Usage(10, 999, 0, 0)
    assert cost_nano_gbp(MINI, claimed) == cost_nano_gbp(MINI, believed)


def test_a_priced_model_has_its_own_line() -> None:
    price = TABLE.price_for("mini", 1_500)
    assert (price.id, price.input_nano_gbp) == ("v1", MINI.input_nano_gbp)
    assert not price.is_default


def test_a_model_without_a_price_is_booked_at_the_default_and_says_so() -> None:
    price = TABLE.price_for("unheard-of", 1_500)
    assert price is DEFAULT
    assert price.is_default


def test_the_newest_version_that_has_begun_applies() -> None:
    assert TABLE.price_for("mini", 1_999).id == "v1"
    assert TABLE.price_for("mini", 2_000).id == "v2"


def test_before_the_first_version_its_prices_apply_and_are_marked() -> None:
    early = TABLE.price_for("mini", 999)
    assert early.input_nano_gbp == MINI.input_nano_gbp
    assert early.is_default


def test_a_frozen_id_finds_its_price_after_a_newer_version_began() -> None:
    admitted = TABLE.price_for("mini", 1_500)
    assert TABLE.by_id(admitted.id, "mini") == admitted
    assert TABLE.by_id("v1", "unheard-of") == DEFAULT
    assert TABLE.by_id("gone", "mini") is None


def test_a_version_without_a_default_line_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="no default line"):
        PriceVersion("v", 0, {"mini": MINI})


def test_versions_must_be_there_and_in_order() -> None:
    with pytest.raises(ValueError, match="at least one"):
        PriceTable(())
    with pytest.raises(ValueError, match="later than"):
        PriceTable(tuple(reversed(TABLE.versions)))


def test_unweighted_tokens_are_simply_added() -> None:
    assert charged_tokens(100, 40, 50, 30, Weights()) == 150


def test_weights_are_rounded_up_once() -> None:
    tenth = Weights(cached_per_mille=100, reasoning_per_mille=500)
    assert charged_tokens(11, 11, 0, 0, tenth) == 2
    assert charged_tokens(1, 1, 1, 1, tenth) == 1, "0.1 + 0.5 is rounded up over the sum"


def test_free_reasoning_leaves_the_visible_output() -> None:
    assert charged_tokens(0, 0, 100, 64, Weights(reasoning_per_mille=0)) == 36


@unhurried
@given(
    prompt=counts,
    cached=counts,
    output=counts,
    reasoning=counts,
    weights=st.builds(Weights, per_mille, per_mille),
)
def test_a_charge_is_the_exact_weighted_sum_rounded_up_and_never_above_the_raw_sum(
    prompt: int, cached: int, output: int, reasoning: int, weights: Weights
) -> None:
    charge = charged_tokens(prompt, cached, output, reasoning, weights)
    cached, reasoning = min(cached, prompt), min(reasoning, output)
    per_mille_sum = (prompt - cached + output - reasoning) * 1000
    per_mille_sum += cached * weights.cached_per_mille + reasoning * weights.reasoning_per_mille
    assert charge == -(-per_mille_sum // 1000)
    assert 0 <= charge <= prompt + output


def test_negative_counts_charge_nothing() -> None:
    assert charged_tokens(-5, -5, -5, -5, Weights()) == 0
    assert cost_nano_gbp(MINI, Usage(-5, -5, -5, -5, -5, -5, -5)) == 0
