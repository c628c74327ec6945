"""A minute's limit as a bucket that leaks: how much may pass, and when to ask again.

It promises at most limit + limit x t / 60 units in any t seconds: the bucket holds one minute's
limit and loses that much a minute, evenly. Time that goes back lets nothing leak twice. It refuses
to know whether a unit is a request or a token.
"""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Bucket:
    """`level` is in units x 60,000, so that a limit a minute leaks by whole numbers each ms."""

    level: int = 0
    at_ms: int = 0

    def pour(self, limit: int, units: int, now_ms: int) -> tuple[Bucket, int]:
        """The bucket with `units` more in it, and by how many ms that comes too early (0: it fits).

        The caller keeps the new bucket only where every limit of the call is kept.
        """
        behind_ms = max(0, self.at_ms - now_ms)  # nothing leaks before the clock is where it was
        leaked = limit * max(0, now_ms - self.at_ms)
        level = max(0, self.level - leaked) + units * MINUTE_MS
        excess = level - limit * MINUTE_MS
        wait_ms = behind_ms - (-excess // max(1, limit)) if excess > 0 else 0
        return Bucket(level, max(now_ms, self.at_ms)), wait_ms


EMPTY = Bucket()
