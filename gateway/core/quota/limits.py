"""The limits of a period: how much output fits under all of them at once.

It promises the most output that each limit still has room for beside everything that is held, or
the reason why not even the least fits. It tells apart what would fit once open holds end from what
would not. It refuses to know accounts: a limit is what it has left and what a call takes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.quota.reserve import ReserveCode


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit, in tokens or nano-GBP: `left` of it by what is settled, `held` of that by open
    holds; a call takes `fixed` of it, and `each` for a token of output of every choice."""

    code: ReserveCode
    left: int
    held: int
    fixed: int
    each: int


def most_output(bounds: Sequence[Bound], least: int, wanted: int) -> tuple[ReserveCode, int]:
    """HELD with the output a choice that may be granted, or the code of a refusal and 0.

    The first limit that is used up is told, in the order of `bounds`; only where none is, that
    waiting for open holds helps.
    """
    for bound in bounds:
        if bound.fixed + least * bound.each > bound.left:
            return bound.code, 0
    output = wanted
    for bound in bounds:
        room = bound.left - bound.held - bound.fixed
        if least * bound.each > room:
            return ReserveCode.IN_FLIGHT, 0
        if bound.each > 0:
            output = min(output, room // bound.each)
    return ReserveCode.HELD, output


@dataclass(slots=True)
class TierShare:
    """This shard's share of a cap that holds for a whole tier, as it was handed out in `epoch`.

    `settled` belongs to the tier's period that began at `period_ms`; a later one begins at 0. What
    earlier epochs settled is among it once the share `is_whole`. `round` is the newest in which
    shares were handed out, `free` what was free of the whole cap in the one before.
    """

    epoch: int
    period_ms: int
    share: int
    settled: int = 0
    held: int = 0
    is_whole: bool = False
    round: int = 0
    free: int = 0

    def left(self, period_ms: int) -> int:
        """What is settled of a share that a call in this period may still take, holds aside."""
        return self.share - (self.settled if self.period_ms >= period_ms else 0)

    def may_get(self, tokens: int) -> bool:
        """Whether so much may be shared out anew within a second."""
        return not self.is_whole or tokens <= self.free

    def runs(self, period_ms: int, now_ms: int) -> bool:
        """Whether a call may name this period: it has begun, and no later one has."""
        return period_ms <= now_ms and (self.period_ms <= period_ms or self.period_ms > now_ms)

    def count(self, period_ms: int, settled: int, held: int) -> None:
        """Count changes; those of a period that is over only change what is held."""
        if period_ms > self.period_ms:
            self.period_ms, self.settled = period_ms, 0
        if period_ms == self.period_ms:
            self.settled += settled
        self.held = max(0, self.held + held)
