"""Reports of usage: what makes their ids, their contents and their entries."""

from __future__ import annotations

import uuid
from dataclasses import replace
from decimal import Decimal

import pytest

from gateway.core.elsewhere import (
    STATED,
    Reported,
    dearest_nano_gbp,
    event_id_of,
    event_of,
    remembered_as,
    rounded_nano,
)
from gateway.core.event import encode_event, ledger_row
from gateway.core.hold import Caller, Hold
from gateway.core.idempotency import read_key
from gateway.core.models import Weights
from gateway.core.pace import ends_ms
from gateway.core.period import Calendar, Period
from gateway.core.pricing import Price
from gateway.core.refusal import Refused
from gateway.core.rid import derived_rid

REPORTED = Reported("one", "m", prompt_tokens=1_000_000, cached_tokens=500_000, output_tokens=10)
HOLD = Hold(
    rid=event_id_of("ada", "one"),
    caller=Caller("ada", "ada", "free", Calendar(1, "UTC")),
    route="quota_usage",
    model="m",
    stream=False,
    price=Price("2026", 4_000, 2_000, 8_000_000),
    weights=Weights(cached_per_mille=500),
    prompt_tokens=0,
    output_tokens=0,
    choices=1,
)


def test_an_event_has_the_same_id_for_ever_and_no_other_has_it() -> None:
    one = event_id_of("ada", "one")
    assert uuid.UUID(one).variant == uuid.RFC_4122
    assert uuid.UUID(one).version == 8
    others = {event_id_of("ada", "two"), event_id_of("bob", "one"), event_id_of("adaone", "")}
    assert one not in others
    assert len(others) == 3
    assert derived_rid(one, "late") == derived_rid(one, "late") != one


def test_no_header_can_name_what_a_report_is_remembered_by() -> None:
    with pytest.raises(Refused):
        read_key(remembered_as("one"), "chat", b"")


@pytest.mark.parametrize(
    "other",
    [
        replace(REPORTED, prompt_tokens=1),
        replace(REPORTED, output_tokens=1),
        replace(REPORTED, cached_tokens=1),
        replace(REPORTED, model="n"),
        replace(REPORTED, nano_gbp=0),
        replace(REPORTED, tag="t"),
        replace(REPORTED, at_ms=1),
        replace(REPORTED, is_split=False),
    ],
    ids=repr,
)
def test_any_other_content_has_another_digest(other: Reported) -> None:
    assert replace(REPORTED).digest() == REPORTED.digest()
    assert other.digest() != REPORTED.digest()


def test_the_entry_says_whose_the_cost_is_and_how_sure_it_is() -> None:
    ours = event_of(HOLD, REPORTED)
    assert (ours.price_id, ours.cost_nano_gbp, ours.charged_tokens) == ("2026", 3_080, 750_010)
    assert (ours.quality, ours.outcome, ours.status) == ("measured", "recorded", 200)
    stated = event_of(HOLD, replace(REPORTED, nano_gbp=7))
    assert (stated.price_id, stated.cost_nano_gbp, stated.quality) == (STATED, 7, "measured")
    total = Reported("one", "m", prompt_tokens=5, is_split=False)
    assert event_of(HOLD, total).quality == "estimated"
    assert event_of(HOLD, replace(total, nano_gbp=7)).quality == "measured"
    row = ledger_row(0, "5-0", encode_event(ours), b"1 1 1 9 9 0 0 0 0 1 0 0 -")
    assert row.event_id == derived_rid(HOLD.rid, "late"), "a correction can be derived from it"


@pytest.mark.parametrize(
    ("pounds", "nano"),
    [("0", 0), ("0.1", 10**8), ("0.0000000005", 1), ("0.00000000049", 0), ("100000", 10**14),
     ("1E-99999999", 0)],
)  # fmt: skip
def test_pounds_are_rounded_once_to_nine_decimals(pounds: str, nano: int) -> None:
    assert rounded_nano(Decimal(pounds)) == nano


def test_the_dearest_that_tokens_can_cost() -> None:
    assert dearest_nano_gbp(HOLD.price, 1_000_000) == 8_000_000
    assert dearest_nano_gbp(Price("p", 9_000_000, 0, 1_000_000), 1_000_000) == 9_000_000


@pytest.mark.parametrize(
    ("used", "left", "now", "ends"),
    [
        (50, 50, 100, 200),
        (50, 100, 100, 300),
        (50, 449, 100, 998),
        (50, 450, 100, None),  # the period ends first
        (0, 50, 100, None),
        (50, 50, 0, None),
        (50, 0, 100, 100),
    ],
)
def test_when_a_quota_ends_at_its_pace(used: int, left: int, now: int, ends: int | None) -> None:
    assert ends_ms(used, left, Period(0, 1000), now) == ends
