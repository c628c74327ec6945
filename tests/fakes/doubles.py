"""What Redis has counted twice, for ledgers in memory: the rule of `adapters.postgres.doubles`.

Of rows that are booked, or come, under one id and period from more than one entry of the outbox,
the first counts. Where that is a mere estimate and a later one settles the call, the difference is
booked as well. Books nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.core.event import LedgerRow
from gateway.core.hold import is_expiry
from gateway.core.late import BookedExpiry, settled_late, settles

Key = tuple[str, int]


def counted_twice(
    booked: Mapping[Key, LedgerRow], rows: Sequence[LedgerRow]
) -> tuple[list[LedgerRow], list[LedgerRow]]:
    """The corrections of expiries that follow from these rows, and what Redis is to take back."""
    first, corrections, too_much = dict(booked), [], []
    for row in rows:
        known = first.setdefault((row.event_id, row.period_ms), row)
        if _origin(known) == _origin(row):
            continue
        if _is_expiry(known) and settles(row):
            late = settled_late(row, _expiry_of(known))
            key = (late.correction.event_id, row.period_ms)
            if _origin(first.setdefault(key, late.correction)) == _origin(row):
                corrections.append(late.correction)
                row = late.excess
                if not row.charged_tokens:  # of which nothing was booked was counted once
                    continue
        too_much.append(row)
    return corrections, too_much


def _origin(row: LedgerRow) -> tuple[int, str]:
    return row.epoch, row.stream_id


def _is_expiry(row: LedgerRow) -> bool:
    return is_expiry(row.event.quality, row.event.outcome, row.event.stream)


def _expiry_of(row: LedgerRow) -> BookedExpiry:
    return BookedExpiry(row.charged_tokens, row.cost_nano_gbp, row.held_tokens, row.pack_split)
