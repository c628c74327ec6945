"""How long a quota lasts if it is used on as it was used so far in its period.

A straight line through what was used since the period began: no forecast, but what a person would
reckon. It refuses to know weekdays, and what others would do with the same quota.
"""

from __future__ import annotations

from gateway.core.period import Period


def ends_ms(used_tokens: int, left_tokens: int, period: Period, now_ms: int) -> int | None:
    """When nothing will be left at this pace; None when the period ends before, or nothing was used
    yet."""
    elapsed_ms = now_ms - period.start_ms
    if left_tokens <= 0:
        return now_ms
    if used_tokens <= 0 or elapsed_ms <= 0:
        return None
    at_ms = now_ms + left_tokens * elapsed_ms // used_tokens
    return at_ms if at_ms < period.end_ms else None
