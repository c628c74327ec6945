"""What differs between the ledger and OpenAI, by how much in all, and why."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from gateway.core.models import Model, Weights, entry_behind
from gateway.core.reconciling import Booked, Comparison, Paid, Terms, Used, compare

DAY, NEXT, TODAY = "2026-11-03", "2026-11-04", "2026-11-05"
BOOKED = Booked(DAY, "m", "p", "measured", 1, 80, 0, 20, 1_000_000_000)
USED = Used(DAY, "m", 1, 80, 0, 20)
PAID = Paid(DAY, "m, input", Decimal("1.25"))
TERMS = Terms(
    entry_of=lambda name: name if name in ("m", "n") else None,
    is_default=lambda price_id, model: price_id == "dear",
    gbp_per_usd=Decimal("0.8"),
    today=TODAY,
)


def compared(booked: Booked = BOOKED, used: Used = USED, paid: Paid = PAID) -> Comparison:
    return compare([booked], [used], [paid], TERMS)


def test_what_agrees_has_no_cause() -> None:
    whole = compared()
    (line,) = whole.lines
    assert (line.tokens_off, line.nano_gbp_off, line.causes) == (0, 0, {})
    assert whole.is_within(0)
    assert compare([], [], [], TERMS).is_within(0)


@pytest.mark.parametrize(
    ("booked", "used", "causes"),
    [
        ({}, {"calls": 3}, {"beside": "2 requests"}),
        ({}, {"cached_tokens": 8}, {"cached": "+8 tokens"}),
        ({"price_id": "dear"}, {}, {"default_price": "dear"}),
        ({"over_midnight_tokens": 7}, {}, {}),
        ({"input_tokens": 70, "over_midnight_tokens": 7}, {}, {"day_border": "7 tokens"}),
        ({"nano_gbp": 999_000_000}, {}, {"rounding": "+0.001000 GBP"}),
        ({"standing": "estimated"}, {}, {"estimated": "1 call, 100 tokens"}),
        ({"standing": "client_gone"}, {}, {"client_gone": "1 call, 100 tokens"}),
        ({"standing": "upstream_failed"}, {}, {"upstream_failed": "1 call, 100 tokens"}),
    ],
)
def test_a_difference_has_its_cause(
    booked: dict[str, Any], used: dict[str, Any], causes: dict[str, str]
) -> None:
    whole = compared(replace(BOOKED, **booked), replace(USED, **used))
    assert whole.lines[0].causes == causes


def test_what_never_went_to_openai_is_left_out_and_told() -> None:
    told = replace(BOOKED, standing="recorded", input_tokens=5000)
    whole = compare([BOOKED, told], [USED], [PAID], TERMS)
    assert whole.is_within(0)
    assert whole.lines[0].causes == {"recorded": "1 call, 5,020 tokens"}


def test_estimates_explain_a_difference_up_to_their_own_size() -> None:
    estimated = replace(BOOKED, standing="estimated")
    for tokens, explained in ((130, 30), (100, 0), (500, 100)):
        used = replace(USED, input_tokens=tokens - 20)
        assert compared(booked=estimated, used=used).explained_tokens == explained


def test_a_day_that_is_not_over_says_so() -> None:
    assert compared(booked=replace(BOOKED, day=TODAY)).lines[1].causes == {"today": TODAY}


def test_days_cancel_each_other_and_models_do_not() -> None:
    late = replace(BOOKED, day=NEXT)
    whole = compare([BOOKED, late], [replace(USED, input_tokens=180)], [], TERMS)
    assert [line.tokens_off for line in whole.lines] == [100, -100]
    assert whole.tokens_off_percent == 0
    other = compare([BOOKED], [replace(USED, name="n")], [], TERMS)
    assert other.tokens_off_percent == 200
    assert not other.is_within(199)


def test_money_alone_can_be_beyond_the_tolerance() -> None:
    whole = compared(paid=replace(PAID, usd=Decimal("1.2625")))
    assert (whole.tokens_off_percent, round(whole.cost_off_percent, 2)) == (0, 0.99)
    assert whole.is_within(1)
    assert not whole.is_within(0.98)


def test_items_without_a_model_stand_alone() -> None:
    whole = compare([], [], [replace(PAID, item="evals | m, input")], TERMS)
    assert whole.lines[0].model == "evals | m"
    assert whole.lines[0].causes == {"unknown_model": "evals | m"}


def model(name: str, upstream_model: str | None = None) -> Model:
    return Model(name, "openai", "o200k_base", 1, 1, 1, 1, Weights(), upstream_model)


@pytest.mark.parametrize(
    ("billed", "entry"),
    [
        *(
            ("gpt-a", "gpt-a"),
            ("gpt-a-2026-01-02", "gpt-a"),
            ("gpt-b", "ours"),
            ("gpt-c-9", "gpt-*"),
        ),
        *(("gpt-b-2026-01-02", "ours"), ("gpt-c-mini-1", "gpt-c-mini*"), ("o9", None), ("", None)),
    ],
)
def test_the_entry_behind_a_billed_name(billed: str, entry: str | None) -> None:
    models = [model("gpt-*"), model("gpt-a"), model("ours", "gpt-b"), model("gpt-c-mini*")]
    found = entry_behind(models, billed)
    assert (found and found.name) == entry
