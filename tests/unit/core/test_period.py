"""Periods tile time in every zone, and their borders are local midnights.

The zones are those whose clocks do something odd; the dates in the examples are real changes.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.period import Period, period_at, zone_exists

# A busy machine is no failure.
unhurried = settings(deadline=None)
ZONES = [
    "UTC",
    "Europe/London",
    "America/New_York",
    "Asia/Kathmandu",  # +05:45
    "Pacific/Chatham",  # +12:45 and +13:45
    "Australia/Lord_Howe",  # a clock change of half an hour
    "America/Sao_Paulo",  # until 2018 the day of the change began at 01:00
    "Africa/Cairo",  # clock changes at midnight
    "Asia/Beirut",  # clock changes at midnight
    "America/Havana",  # back from 01:00 to 00:00: midnight comes twice
    "Atlantic/Azores",  # likewise
    "Pacific/Apia",  # no 30 December 2011
    "Pacific/Kiritimati",  # +14
    "Pacific/Pago_Pago",  # -11
    "America/St_Johns",  # until 2011 changes at 00:01: a minute past midnight, then 23:01 again
]
MAY_1970 = 120 * 86_400_000
YEAR_2100 = 4_102_444_800_000

moments = st.integers(min_value=MAY_1970, max_value=YEAR_2100)
days = st.integers(min_value=1, max_value=31)
zones = st.sampled_from(ZONES)


def ms(text: str, zone: str = "UTC") -> int:
    """Local time as Unix milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def local(at_ms: int, zone: str) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).astimezone(
        ZoneInfo(zone)
    )


ST_JOHNS_BACK = ms("2008-11-02T02:31")  # 00:01 became 23:01 of 1 November


@unhurried
@given(now=moments, anchor=days, zone=zones)
@example(now=ST_JOHNS_BACK + 60_000, anchor=2, zone="America/St_Johns")
@example(now=ST_JOHNS_BACK - 60_000, anchor=2, zone="America/St_Johns")
def test_a_moment_lies_in_its_period(now: int, anchor: int, zone: str) -> None:
    period = period_at(now, anchor, zone)
    assert period.start_ms <= now < period.end_ms


@unhurried
@given(now=moments, anchor=days, zone=zones)
@example(now=ST_JOHNS_BACK + 60_000, anchor=2, zone="America/St_Johns")
def test_each_period_ends_where_the_next_begins(now: int, anchor: int, zone: str) -> None:
    period = period_at(now, anchor, zone)
    assert period_at(period.start_ms, anchor, zone) == period
    assert period_at(period.end_ms - 1, anchor, zone) == period
    assert period_at(period.end_ms, anchor, zone).start_ms == period.end_ms
    assert period_at(period.start_ms - 1, anchor, zone).end_ms == period.start_ms


@unhurried
@given(now=moments, anchor=days, zone=zones)
def test_a_period_is_a_month_long(now: int, anchor: int, zone: str) -> None:
    period = period_at(now, anchor, zone)
    length = timedelta(milliseconds=period.end_ms - period.start_ms)
    assert timedelta(days=27) <= length <= timedelta(days=32)


@unhurried
@given(now=moments, anchor=days, zone=zones)
def test_a_border_is_the_first_moment_of_the_billing_day(now: int, anchor: int, zone: str) -> None:
    start_ms = period_at(now, anchor, zone).start_ms
    start, before = local(start_ms, zone), local(start_ms - 1, zone)
    billing_day = min(anchor, monthrange(start.year, start.month)[1])
    if (start.hour, start.minute) == (0, 0):
        assert start.day == billing_day or zone == "Pacific/Apia"
    else:
        gap = start.utcoffset() != before.utcoffset()
        assert gap, f"{start} is not midnight although no clock changed"
    assert before.date() < start.date()


def test_the_calendar_month_in_utc() -> None:
    assert period_at(ms("2026-11-22T21:26"), 1, "UTC") == Period(
        ms("2026-11-01T00:00"), ms("2026-12-01T00:00")
    )


def test_a_year_ends_in_december() -> None:
    assert period_at(ms("2026-12-31T23:59:59"), 1, "UTC").end_ms == ms("2027-01-01T00:00")
    assert period_at(ms("2027-01-05T00:00"), 15, "UTC").start_ms == ms("2026-12-15T00:00")


@pytest.mark.parametrize(
    ("now", "anchor", "start", "end"),
    [
        ("2026-02-15T00:00", 31, "2026-01-31T00:00", "2026-02-28T00:00"),
        ("2026-02-28T00:00", 31, "2026-02-28T00:00", "2026-03-31T00:00"),
        ("2028-02-28T12:00", 31, "2028-01-31T00:00", "2028-02-29T00:00"),
        ("2028-02-29T00:00", 29, "2028-02-29T00:00", "2028-03-29T00:00"),
        ("2027-02-28T00:00", 29, "2027-02-28T00:00", "2027-03-29T00:00"),
        ("2026-04-30T00:00", 31, "2026-04-30T00:00", "2026-05-31T00:00"),
        ("2026-04-29T23:59", 30, "2026-03-30T00:00", "2026-04-30T00:00"),
        ("2100-02-28T00:00", 29, "2100-02-28T00:00", "2100-03-29T00:00"),
    ],
)
def test_a_day_the_month_lacks_is_its_last(now: str, anchor: int, start: str, end: str) -> None:
    assert period_at(ms(now), anchor, "UTC") == Period(ms(start), ms(end))


def test_midnight_is_local_with_offsets_of_quarter_hours() -> None:
    assert period_at(ms("2026-11-22T00:00"), 1, "Asia/Kathmandu").start_ms == ms("2026-10-31T18:15")
    assert period_at(ms("2026-06-22T00:00"), 1, "Pacific/Chatham").start_ms == ms(
        "2026-05-31T11:15"
    )


def test_a_month_with_a_clock_change_is_an_hour_shorter() -> None:
    march = period_at(ms("2026-03-10T00:00"), 1, "Europe/London")
    assert march.end_ms - march.start_ms == (31 * 24 - 1) * 3_600_000


def test_a_skipped_midnight_is_resolved_forwards() -> None:
    # On 4 November 2018 clocks in Sao Paulo went from 00:00 to 01:00.
    period = period_at(ms("2018-11-10T00:00"), 4, "America/Sao_Paulo")
    assert period.start_ms == ms("2018-11-04T03:00")
    assert local(period.start_ms, "America/Sao_Paulo").hour == 1


def test_a_skipped_day_is_resolved_forwards() -> None:
    # Samoa went from 29 to 31 December 2011 when it crossed the date line.
    period = period_at(ms("2012-01-10T00:00"), 30, "Pacific/Apia")
    assert local(period.start_ms, "Pacific/Apia").date().isoformat() == "2011-12-31"


def test_a_midnight_that_comes_twice_counts_the_first_time() -> None:
    # On 1 November 2026 clocks in Havana go from 01:00 back to 00:00.
    first, second = ms("2026-11-01T04:00"), ms("2026-11-01T05:00")
    assert local(first, "America/Havana").hour == local(second, "America/Havana").hour == 0
    assert period_at(second, 1, "America/Havana").start_ms == first
    assert period_at(first - 1, 1, "America/Havana").end_ms == first


def test_a_clock_set_back_over_midnight_does_not_reopen_the_period() -> None:
    # In St. John's 00:01 on 2 November 2008 became 23:01 on 1 November.
    start = ms("2008-11-02T00:00", "America/St_Johns")
    assert local(start + 120_000, "America/St_Johns").day == 1
    assert period_at(start + 120_000, 2, "America/St_Johns").start_ms == start


@pytest.mark.parametrize("anchor", [0, -1, 32])
def test_a_billing_day_that_no_month_has_is_refused(anchor: int) -> None:
    with pytest.raises(ValueError, match="billing day"):
        period_at(0, anchor, "UTC")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "Europe", "../etc/passwd", "/etc/localtime"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    assert not zone_exists(zone)
    with pytest.raises(ValueError, match="time zone"):
        period_at(0, 1, zone)


def test_every_zone_of_these_tests_exists() -> None:
    assert all(zone_exists(zone) for zone in ZONES)
