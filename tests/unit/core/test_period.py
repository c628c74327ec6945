"""Periods tile time in every zone that is installed, and their borders are local midnights.

The dates in the examples are real changes of clocks.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.period import Calendar, Period, period_at, zone_exists

# A busy machine is no failure.
unhurried = settings(deadline=None)
thorough = settings(deadline=None, max_examples=300)
ZONES = sorted(available_timezones())  # all that are installed
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MAY_1970 = 120 * DAY_MS
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


def wall_ms(at_ms: int, tz: ZoneInfo) -> int:
    """What a clock on the wall shows, as if it were UTC."""
    offset = datetime.fromtimestamp(at_ms / 1000, tz).utcoffset()
    assert offset is not None
    return at_ms + offset // timedelta(milliseconds=1)


def change_between(early_ms: int, late_ms: int, tz: ZoneInfo) -> int:
    """The moment between these two from which clocks show another offset; a whole second."""
    early_s, late_s = early_ms // 1_000, late_ms // 1_000
    offset = datetime.fromtimestamp(early_s, tz).utcoffset()
    while late_s - early_s > 1:
        middle_s = (early_s + late_s) // 2
        if datetime.fromtimestamp(middle_s, tz).utcoffset() == offset:
            early_s = middle_s
        else:
            late_s = middle_s
    return late_s * 1_000


def first_moment_of(day_ms: int, tz: ZoneInfo) -> int:
    """When clocks first show this midnight, or more where they skip it; by trying, not by rule."""
    early_ms, late_ms = day_ms - 27 * HOUR_MS, day_ms + 27 * HOUR_MS
    first_ms = day_ms - (wall_ms(early_ms, tz) - early_ms)
    if wall_ms(early_ms, tz) - early_ms == wall_ms(late_ms, tz) - late_ms:
        return first_ms
    change_ms = change_between(early_ms, late_ms, tz)
    if first_ms < change_ms:
        return first_ms
    return max(change_ms, day_ms - (wall_ms(late_ms, tz) - late_ms))


def billing_days(at_ms: int, anchor: int) -> list[int]:
    """Midnight of the billing days of the month around `at_ms` and of its neighbours, as in UTC."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    found = []
    for month in range(at.year * 12 + at.month - 3, at.year * 12 + at.month + 2):
        year, index = divmod(month, 12)
        day = min(anchor, monthrange(year, index + 1)[1])
        found.append(int(datetime(year, index + 1, day, tzinfo=UTC).timestamp() * 1000))
    return found


def expected_period(now_ms: int, anchor: int, zone: str) -> Period:
    tz = ZoneInfo(zone)
    borders = [first_moment_of(day_ms, tz) for day_ms in billing_days(now_ms, anchor)]
    return next(Period(*each) for each in pairwise(borders) if each[0] <= now_ms < each[1])


ST_JOHNS_BACK = ms("2008-11-02T02:31")  # 00:01 became 23:01 of 1 November


@thorough
@given(now=moments, anchor=days, zone=zones)
@example(now=ST_JOHNS_BACK + 60_000, anchor=2, zone="America/St_Johns")
@example(now=ST_JOHNS_BACK - 60_000, anchor=2, zone="America/St_Johns")
@example(now=ms("2012-01-10T00:00"), anchor=30, zone="Pacific/Apia")  # no 30 December 2011
@example(now=ms("1995-01-10T00:00"), anchor=1, zone="Pacific/Enderbury")  # no 1 January 1995
@example(now=ms("1993-08-30T00:00"), anchor=21, zone="Pacific/Kwajalein")  # no 21 August 1993
@example(now=ms("1972-01-20T00:00"), anchor=7, zone="Africa/Monrovia")  # 44 minutes 30 seconds
@example(now=ms("2021-02-03T00:00"), anchor=1, zone="Africa/Juba")  # midnight became 23:00
def test_a_period_lies_between_the_first_moments_of_billing_days(
    now: int, anchor: int, zone: str
) -> None:
    assert period_at(now, anchor, zone) == expected_period(now, anchor, zone)


@thorough
@given(now=moments, anchor=days, zone=zones)
@example(now=ST_JOHNS_BACK + 60_000, anchor=2, zone="America/St_Johns")
def test_each_period_ends_where_the_next_begins(now: int, anchor: int, zone: str) -> None:
    period = period_at(now, anchor, zone)
    assert period.start_ms <= now < period.end_ms
    assert period_at(period.start_ms, anchor, zone) == period
    assert period_at(period.end_ms - 1, anchor, zone) == period
    assert period_at(period.end_ms, anchor, zone).start_ms == period.end_ms
    assert period_at(period.start_ms - 1, anchor, zone).end_ms == period.start_ms


@thorough
@given(now=moments, anchor=days, zone=zones)
def test_a_period_is_a_month_long(now: int, anchor: int, zone: str) -> None:
    period = period_at(now, anchor, zone)
    length = timedelta(milliseconds=period.end_ms - period.start_ms)
    assert timedelta(days=27) <= length <= timedelta(days=32)


def clock_changes(zone: str, from_ms: int, to_ms: int) -> Iterator[tuple[int, int, int]]:
    """When clocks of this zone are set, and what they show then: before, and after."""
    tz = ZoneInfo(zone)
    times_s = range(from_ms // 1_000, to_ms // 1_000, 20 * 86_400)
    offsets = [datetime.fromtimestamp(at_s, tz).utcoffset() for at_s in times_s]
    for place, (before, after) in enumerate(pairwise(offsets)):
        if before != after and before is not None:
            at_ms = change_between(times_s[place] * 1_000, times_s[place + 1] * 1_000, tz)
            yield at_ms, at_ms + before // timedelta(milliseconds=1), wall_ms(at_ms, tz)


def zones_by_clocks(from_ms: int, to_ms: int) -> dict[object, str]:
    """One zone for each way in which clocks go in that time: most zones go like others."""
    found: dict[object, str] = {}
    for zone in ZONES:
        changes = tuple(clock_changes(zone, from_ms, to_ms))
        found.setdefault((changes, wall_ms(from_ms, ZoneInfo(zone))), zone)
    return found


def test_in_every_zone_and_on_every_billing_day_periods_tile_a_leap_year() -> None:
    found = zones_by_clocks(ms("2027-12-01"), ms("2029-02-01"))
    assert len(found) > 50
    for zone in found.values():
        for anchor in range(1, 32):
            at_2028 = [
                datetime(2028, month, min(anchor, monthrange(2028, month)[1]), tzinfo=UTC)
                for month in range(1, 13)
            ]
            midnights = [int(each.timestamp() * 1000) for each in at_2028]
            borders = [first_moment_of(day_ms, ZoneInfo(zone)) for day_ms in midnights]
            for start_ms, end_ms in pairwise(borders):
                period = Period(start_ms, end_ms)
                assert period_at(start_ms, anchor, zone) == period, zone
                assert period_at(end_ms - 1, anchor, zone) == period, zone


def test_in_every_zone_a_clock_change_at_midnight_keeps_the_borders() -> None:
    """All changes that skip a midnight, show one twice, or begin or end at one."""
    checked: set[tuple[int, int, int]] = set()
    for zone in ZONES:
        for change_ms, before_ms, after_ms in clock_changes(zone, MAY_1970, ms("2040-01-01")):
            least_ms, most_ms = sorted((before_ms, after_ms))
            near = range(least_ms // DAY_MS, most_ms // DAY_MS + 2)
            change = (change_ms, before_ms, after_ms)
            if change in checked or (len(near) == 2 and least_ms % DAY_MS):
                continue
            checked.add(change)
            for anchor in {datetime.fromtimestamp(day * 86_400, UTC).day for day in near}:
                for now_ms in (change_ms - 1, change_ms + HOUR_MS):
                    found = period_at(now_ms, anchor, zone)
                    assert found == expected_period(now_ms, anchor, zone), (zone, now_ms)
    assert len(checked) > 500
    assert {after_ms > before_ms for _, before_ms, after_ms in checked} == {True, False}


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


# --- calendars that are changed -----------------------------------------------------------------

NOW = ms("2026-11-22T21:26")
IN_LONDON = Calendar(1, "Europe/London")
# Most changes of a chain fall into one period or the one after, some come months later.
delays = st.one_of(st.integers(0, 400 * DAY_MS), st.integers(0, 2 * DAY_MS), st.just(0))
calendars = st.builds(Calendar, days, zones)
chains = st.lists(st.tuples(delays, days, zones), min_size=1, max_size=8)


def walk(calendar: Calendar, period: Period, to_ms: int) -> Period:
    """The period that `to_ms` lies in, reached border by border; each must be in order."""
    while to_ms >= period.end_ms:
        following = calendar.period_at(period.end_ms)
        assert following.start_ms == period.end_ms < following.end_ms
        assert following.end_ms - following.start_ms <= 32 * DAY_MS
        assert calendar.period_at(following.end_ms - 1) == following
        plain = period_at(following.end_ms - 1, calendar.anchor_day, calendar.zone)
        assert following.end_ms == plain.end_ms
        period = following
    return period


@unhurried
@given(now=moments, calendar=calendars)
def test_a_calendar_that_was_never_changed_has_the_plain_periods(
    now: int, calendar: Calendar
) -> None:
    assert calendar.period_at(now) == period_at(now, calendar.anchor_day, calendar.zone)


@thorough
@given(now=moments, calendar=calendars, chain=chains)
@example(now=NOW, calendar=IN_LONDON, chain=[(0, 1, "Pacific/Kiritimati"), (0, 1, "UTC")])
@example(now=NOW, calendar=IN_LONDON, chain=[(0, 2, "UTC"), (9 * DAY_MS, 3, "UTC")])
@example(now=NOW, calendar=IN_LONDON, chain=[(0, 1, "Europe/London"), (9 * DAY_MS, 1, "UTC")])
def test_periods_tile_time_across_any_chain_of_changes(
    now: int, calendar: Calendar, chain: list[tuple[int, int, str]]
) -> None:
    period = calendar.period_at(now)
    for delay_ms, anchor, zone in chain:
        now += delay_ms
        period = walk(calendar, period, now)
        calendar = calendar.changed(anchor, zone, now)
        assert (calendar.anchor_day, calendar.zone) == (anchor, zone)
        for moment_ms in (period.start_ms, now, period.end_ms - 1):
            assert calendar.period_at(moment_ms) == period  # what runs stays as it was
    walk(calendar, period, now + 100 * DAY_MS)


@thorough
@given(now=moments, calendar=calendars, anchor=days, zone=zones)
@example(now=NOW, calendar=IN_LONDON, anchor=1, zone="Europe/London")
def test_a_change_counts_from_the_next_period(
    now: int, calendar: Calendar, anchor: int, zone: str
) -> None:
    running, after = calendar.period_at(now), calendar.changed(anchor, zone, now)
    first = after.period_at(running.end_ms)
    assert first == Period(running.end_ms, period_at(running.end_ms, anchor, zone).end_ms)
    for later_ms in (first.end_ms, first.end_ms + 50 * DAY_MS):
        assert after.period_at(later_ms) == period_at(later_ms, anchor, zone)
    for earlier_ms in (now, running.start_ms - 1):
        assert after.period_at(earlier_ms) == calendar.period_at(earlier_ms)


@thorough
@given(moments, calendars, chains, st.integers(0, 10**9), st.booleans())
def test_of_several_changes_in_one_period_the_last_counts(
    now: int, calendar: Calendar, chain: list[tuple[int, int, str]], part: int, was_changed: bool
) -> None:
    """Wherever in the period they are made, that of a calendar that was changed before too."""
    if was_changed:
        calendar = calendar.changed(17, "Asia/Tokyo", now - 45 * DAY_MS)
    running = calendar.period_at(now)
    times = [
        running.start_ms + (running.end_ms - running.start_ms - 1) * part * place // 10**10
        for place in range(1, len(chain) + 1)
    ]
    after = calendar
    for at_ms, (_, anchor, zone) in zip(times, chain, strict=True):
        after = after.changed(anchor, zone, at_ms)
    _, anchor, zone = chain[-1]
    assert after == calendar.changed(anchor, zone, now)


@thorough
@given(now=moments, calendar=calendars, chain=chains)
def test_a_change_during_a_first_short_period_waits_for_its_end(
    now: int, calendar: Calendar, chain: list[tuple[int, int, str]]
) -> None:
    """Each change is made in the first period of the one before, at its first or last moment."""
    for place, (_, anchor, zone) in enumerate(chain):
        after = calendar.changed(anchor, zone, now)
        short = after.period_at(calendar.period_at(now).end_ms)
        assert short.start_ms == calendar.period_at(now).end_ms
        now = (short.start_ms, short.end_ms - 1)[place % 2]
        again = after.changed(3, "America/Lima", now)
        assert again.period_at(now) == short
        assert again.period_at(short.end_ms).start_ms == short.end_ms
        calendar = after


def test_an_earlier_midnight_makes_a_first_period_of_hours() -> None:
    in_kiritimati = Calendar(1, "Pacific/Kiritimati")
    after = in_kiritimati.changed(1, "Europe/London", NOW)
    assert after.period_at(NOW).end_ms == ms("2026-11-30T10:00")
    assert after.period_at(ms("2026-11-30T10:00")) == Period(
        ms("2026-11-30T10:00"), ms("2026-12-01T00:00")
    )
    assert after.period_at(ms("2026-12-01T00:00")).end_ms == ms("2027-01-01T00:00")


def test_a_change_that_is_taken_back_leaves_the_periods_as_they_were() -> None:
    there_and_back = IN_LONDON.changed(15, "UTC", NOW).changed(1, "Europe/London", NOW + 1)
    for now_ms in range(NOW, NOW + 100 * DAY_MS, DAY_MS):
        assert there_and_back.period_at(now_ms) == IN_LONDON.period_at(now_ms)


@pytest.mark.parametrize(("anchor", "zone"), [(0, "UTC"), (32, "UTC"), (1, "Mars/Olympus")])
def test_a_change_to_what_does_not_exist_is_refused(anchor: int, zone: str) -> None:
    for calendar in (IN_LONDON, IN_LONDON.changed(2, "UTC", NOW)):
        with pytest.raises(ValueError, match=r"billing day|time zone"):
            calendar.changed(anchor, zone, NOW)
