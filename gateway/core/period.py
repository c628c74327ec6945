"""Periods: a month from the payer's billing day, at local midnight in the payer's time zone.

Periods tile time: each ends where the next begins, whatever the zone does. The rules:
- a billing day that a month does not have is that month's last day (31 -> 30 April, 28 February),
  and the month after has the full day again;
- a local midnight that comes twice counts the first time;
- a local midnight that a clock change skips is resolved forwards, past the gap.
A zone is an IANA name; the caller brings the time.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

ANCHOR_DAY_MAX = 31
_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Days x zones x billing days in use at once; an entry is under 400 bytes.
_CACHED_DAYS_MAX = 4096


class Period(msgspec.Struct, frozen=True, gc=False):
    """From `start_ms` up to and not including `end_ms`, in Unix milliseconds."""

    start_ms: int
    end_ms: int


def period_at(now_ms: int, anchor_day: int, zone: str) -> Period:
    """The period that `now_ms` lies in. ValueError for an unknown zone or a day not in 1-31.

    Borders are at least 27 days apart, so a UTC day has one at most: both candidates of a day are
    kept, and the usual call is one look-up and one comparison.
    """
    first, second = _periods_of_day(now_ms // _DAY_MS, anchor_day, zone)
    return first if now_ms < first.end_ms else second


@dataclass(frozen=True, slots=True)
class Calendar:
    """When a payer's periods begin: at midnight of `anchor_day` (1-31) in `zone` (IANA).

    A changed calendar counts from the next period: up to `since_ms`, the end of the period in which
    it was changed, the periods are those of `prior_anchor_day` and `prior_zone`. The first period
    of the new calendar begins there and ends at the calendar's next border, so periods tile time
    across a change as well; that one may be short, and grants a whole allowance. The prior
    calendar's own first period began at `prior_since_ms`.
    """

    anchor_day: int
    zone: str
    since_ms: int = 0
    prior_anchor_day: int | None = None
    prior_zone: str | None = None
    prior_since_ms: int = 0

    def period_at(self, now_ms: int) -> Period:
        """The period that `now_ms` lies in. ValueError for an unknown zone or a day not in 1-31."""
        day, zone, since_ms = self.anchor_day, self.zone, self.since_ms
        if not since_ms:  # never changed, as most
            return period_at(now_ms, day, zone)
        if now_ms < since_ms and self.prior_anchor_day is not None and self.prior_zone is not None:
            day, zone, since_ms = self.prior_anchor_day, self.prior_zone, self.prior_since_ms
        period = period_at(now_ms, day, zone)
        # What was before the prior calendar is not known any more; its months go on backwards.
        is_first = period.start_ms < since_ms <= now_ms
        return Period(since_ms, period.end_ms) if is_first else period

    def changed(self, anchor_day: int, zone: str, now_ms: int) -> Calendar:
        """The calendar after a change made at `now_ms`; of several in one period the last counts.

        ValueError as for `period_at`.
        """
        period_at(now_ms, anchor_day, zone)
        if self.prior_anchor_day is not None and now_ms < self.since_ms:
            return replace(self, anchor_day=anchor_day, zone=zone)
        since_ms = self.period_at(now_ms).end_ms
        return Calendar(anchor_day, zone, since_ms, self.anchor_day, self.zone, self.since_ms)


def zone_exists(name: str) -> bool:
    """Whether the IANA database knows this zone by exactly this name."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        # A path outside of the database, a folder of it, a name it does not have.
        return False
    return True


@lru_cache(maxsize=_CACHED_DAYS_MAX)
def _periods_of_day(day: int, anchor_day: int, zone: str) -> tuple[Period, Period]:
    """The period in which this day since the epoch (UTC) begins, and the one after it."""
    if not 1 <= anchor_day <= ANCHOR_DAY_MAX:
        raise ValueError(f"billing day {anchor_day}: expected 1 to {ANCHOR_DAY_MAX}")
    if not zone_exists(zone):
        raise ValueError(f"time zone {zone!r}: not a name of the IANA database")
    tz = ZoneInfo(zone)
    day_ms = day * _DAY_MS
    local = (_EPOCH + timedelta(days=day)).astimezone(tz)
    month = local.year * 12 + local.month - 1
    if day_ms < _border_ms(month, anchor_day, tz):
        month -= 1
    start, middle, end = (_border_ms(month + step, anchor_day, tz) for step in range(3))
    return Period(start, middle), Period(middle, end)


def _border_ms(month: int, anchor_day: int, tz: ZoneInfo) -> int:
    """When the period of this month (counted from year 0) begins.

    With fold=0 Python takes the first of two equal local times, and for one inside a gap the
    offset from before the gap, which lands behind it.
    """
    year, index = divmod(month, 12)
    day = min(anchor_day, monthrange(year, index + 1)[1])
    midnight = datetime(year, index + 1, day, tzinfo=tz, fold=0)
    return (midnight - _EPOCH) // timedelta(milliseconds=1)
