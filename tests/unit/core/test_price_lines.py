"""Which line of a price list a call is booked on, and what a hold must take for it.

What has no price of its own is booked on the default line and marked; a hold takes the dearest line
to which its request can lead.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.pricing import (
    Price,
    PriceTable,
    PriceVersion,
    cost_nano_gbp,
    held_nano_gbp,
    line_of_call,
)
from gateway.core.usage import Usage

# A price of 10**6 is one nano-GBP a token, so that costs can be read.
M = 10**6
DEFAULT = Price("v", 60 * M, 60 * M, 300 * M, is_default=True)


def line(times: int) -> Price:
    long = Price("v", 20 * times * M, 2 * times * M, 75 * times * M, False, 25 * times * M)
    return Price(
        *("v", 10 * times * M, times * M, 50 * times * M),
        cache_write_nano_gbp=12 * times * M,
        long_above_tokens=1000,
        long=long,
    )


LUNA = replace(line(2), tiers={"flex": line(1), "priority": line(4)})
HEARD = Price("v", 2 * M, 2 * M, 10 * M, False, None, 32 * M, 64 * M)
VERSION = PriceVersion("v", 0, {"*": DEFAULT, "luna": LUNA, "heard": HEARD})
TABLE = PriceTable((VERSION,))
TALK = Usage(100, 0, 10, 0)


def cost(model: str, used: Usage, service_tier: str | None = None) -> int:
    return cost_nano_gbp(line_of_call(TABLE.price_for(model, 1), used, service_tier), used)


@pytest.mark.parametrize(
    ("service_tier", "times"),
    [
        *((name, 2) for name in (None, "default", "standard", "auto")),
        ("flex", 1),
        ("priority", 4),
        ("fast", 4),  # the other name of priority
    ],
)
def test_the_service_tier_that_the_answer_names_picks_the_line(
    service_tier: str | None, times: int
) -> None:
    assert cost("luna", TALK, service_tier) == times * (100 * 10 + 10 * 50)
    booked = line_of_call(TABLE.price_for("luna", 1), TALK, service_tier)
    assert not booked.is_default


@pytest.mark.parametrize("service_tier", ["ultrafast", "scale", "FLEX", "default ", ""])
def test_a_tier_without_a_line_is_booked_at_the_default_and_says_so(service_tier: str) -> None:
    assert cost("luna", TALK, service_tier) == 100 * 60 + 10 * 300
    assert line_of_call(TABLE.price_for("luna", 1), TALK, service_tier).is_default


def test_a_model_without_a_line_is_booked_at_the_default_on_every_tier() -> None:
    for service_tier in (None, "flex", "priority"):
        assert cost("unheard-of", TALK, service_tier) == 100 * 60 + 10 * 300
        assert line_of_call(TABLE.price_for("unheard-of", 1), TALK, service_tier).is_default


def test_a_long_prompt_makes_the_whole_request_dearer() -> None:
    short, long = Usage(1000, 100, 10, 0), Usage(1001, 100, 10, 0)
    assert cost("luna", short) == 2 * (900 * 10 + 100 + 10 * 50)
    assert cost("luna", long) == 2 * (901 * 20 + 100 * 2 + 10 * 75)
    assert cost("luna", long, "flex") == 901 * 20 + 100 * 2 + 10 * 75


def test_what_is_written_to_the_cache_has_its_price_else_that_of_input() -> None:
    written = Usage(100, 30, 0, 0, cache_write_tokens=50)
    assert cost("luna", written) == 2 * (20 * 10 + 30 + 50 * 12)
    assert cost("heard", written) == 100 * 2


def test_audio_has_its_price() -> None:
    assert cost("heard", Usage(100, 0, 50, 0, 0, 80, 40)) == 20 * 2 + 80 * 32 + 10 * 10 + 40 * 64


@pytest.mark.parametrize("used", [Usage(100, 0, 50, 0, 0, 1, 0), Usage(100, 0, 50, 0, 0, 0, 1)])
def test_audio_of_a_model_that_has_no_price_for_it_is_never_cheap(used: Usage) -> None:
    assert cost("luna", used) == 100 * 60 + 50 * 300
    assert line_of_call(TABLE.price_for("luna", 1), used).is_default


def test_parts_that_overlap_are_the_dearest_they_may_be() -> None:
    everything = Usage(100, 100, 50, 50, 100, 100, 50)
    assert cost("heard", everything) == 100 * 32 + 50 * 64
    assert cost("luna", Usage(100, 100, 0, 0, cache_write_tokens=60)) == 2 * (60 * 12 + 40)
    written = replace(HEARD, cache_write_nano_gbp=3 * M)
    both = Usage(100, 0, 0, 0, cache_write_tokens=60, audio_input_tokens=70)
    assert cost_nano_gbp(written, both) == 70 * 32 + 30 * 3


def test_before_the_first_version_every_line_says_that_it_is_not_the_true_one() -> None:
    early = PriceTable((replace(VERSION, from_ms=1000),)).price_for("luna", 1)
    for service_tier in (None, "flex", "ultrafast"):
        assert line_of_call(early, TALK, service_tier).is_default


def test_a_frozen_id_finds_the_same_lines_again() -> None:
    assert TABLE.by_id("v", "luna") == TABLE.price_for("luna", 1)


# --- holds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service_tier", "times"),
    [("default", 2), ("standard", 2), ("flex", 2), ("priority", 4), ("fast", 4)],
)
def test_a_hold_takes_the_asked_line_or_the_ordinary_one_that_it_may_become(
    service_tier: str, times: int
) -> None:
    assert held_nano_gbp(LUNA, 100, service_tier) == (100 * 12 * times, 50 * times)


@pytest.mark.parametrize("service_tier", [None, "auto"])
def test_a_hold_takes_the_dearest_line_where_the_upstream_chooses(service_tier: str | None) -> None:
    assert held_nano_gbp(LUNA, 100, service_tier) == (100 * 12 * 4, 50 * 4)
    assert held_nano_gbp(LUNA, 1001, service_tier) == (1001 * 25 * 4, 75 * 4)


def test_a_hold_takes_the_default_line_where_the_tier_has_none() -> None:
    price = TABLE.price_for("luna", 1)
    assert held_nano_gbp(price, 100, "ultrafast") == (100 * 60, 300)


def test_a_hold_takes_audio_for_all_of_it_where_audio_has_a_price() -> None:
    assert held_nano_gbp(HEARD, 100) == (100 * 32, 64)


counts = st.integers(min_value=0, max_value=3000)
tiers = st.sampled_from([None, "auto", "default", "flex", "priority", "fast", "ultrafast"])


@settings(deadline=None)
@given(
    model=st.sampled_from(["luna", "heard", "unheard-of"]),
    prompt=counts,
    output=counts,
    parts=st.tuples(counts, counts, counts, counts),
    asked=tiers,
)
def test_no_call_within_its_hold_costs_more_than_was_held(
    model: str, prompt: int, output: int, parts: tuple[int, int, int, int], asked: str | None
) -> None:
    cached, written, heard, spoken = parts
    heard, spoken = (heard, spoken) if model == "heard" else (0, 0)
    used = Usage(prompt, cached, output, 0, written, heard, spoken)
    price = TABLE.price_for(model, 1)
    held_prompt, held_output = held_nano_gbp(price, prompt, asked)
    upstream_chooses = asked in (None, "auto")
    for answered in ("default", *(price.tiers if upstream_chooses else [asked])):
        assert cost(model, used, answered) <= held_prompt + held_output * output
