"""One account: what a payer, or a member of one, has used in its period and holds by open calls.

It promises that a charge is counted in the period its hold was made in, as long as that period is
the running one or the one before; that a period never goes back; and that a threshold is told once
each time it is reached. It refuses to know who asks, what a limit is, and what the time is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.core.quota.entitle import Pack
from gateway.core.quota.minute import EMPTY, Bucket


@dataclass(frozen=True, slots=True)
class PeriodBefore:
    """What is remembered of the period before, for the charges that come after its end."""

    starts_ms: int
    used_tokens: int
    allowance_tokens: int


NOTHING_BEFORE = PeriodBefore(0, 0, 0)


@dataclass(slots=True)
class Account:
    """The figures of one account. Amounts in tokens unless named otherwise.

    `epoch` is the one it was brought back in: of another epoch, it is not in force. `since_id` is
    the newest event at that moment; everything up to it is known by the ledger's sums, everything
    after it is counted here. While `token` is set, those sums are still to come.
    """

    epoch: int
    starts_ms: int
    ends_ms: int
    since_id: str
    token: str | None = None
    rev: int = 0
    settled: int = 0
    from_packs: int = 0
    adjusted: int = 0
    spent_nano_gbp: int = 0
    held: int = 0
    held_nano_gbp: int = 0
    open_holds: int = 0
    events: int = 0
    allowance: int = 0
    warned_percent: int = 0
    before: PeriodBefore = NOTHING_BEFORE
    packs: dict[str, Pack] = field(default_factory=dict)
    requests: Bucket = EMPTY
    tokens: Bucket = EMPTY

    @property
    def used(self) -> int:
        """What counts against the allowance: packs paid their part, and the ledger's adjustments
        count on either side. Below 0 it is room beyond the allowance."""
        return self.settled - self.from_packs + self.adjusted

    def roll(self, now_ms: int, starts_ms: int, ends_ms: int) -> None:
        """Begin the caller's period, which holds `now_ms`, where the account's own is over.

        Holds stay held: a call that runs over the border still may cost what it holds.
        """
        if now_ms < self.ends_ms:
            return
        self.before = PeriodBefore(self.starts_ms, self.used, self.allowance)
        self.starts_ms, self.ends_ms = starts_ms, ends_ms
        self.settled = self.from_packs = self.adjusted = 0
        self.spent_nano_gbp = self.warned_percent = 0

    def hold(self, tokens: int, nano_gbp: int) -> None:
        """A call begins."""
        self.held += tokens
        self.held_nano_gbp += nano_gbp
        self.open_holds += 1

    def let_go(self, tokens: int, nano_gbp: int) -> None:
        """A call ends, whatever it costs."""
        self.held -= tokens
        self.held_nano_gbp -= nano_gbp
        self.open_holds -= 1

    def beyond_allowance(self, tokens: int, period_ms: int, hold_allowance: int) -> int:
        """How much of a charge the allowance of its period cannot pay.

        Where nothing was granted in a period since the account was brought back, its allowance is
        not known; the one that the hold was made under stands for it, or packs would pay at once.
        Of a period longer ago nothing is remembered, so its charges are never laid on packs.
        """
        if period_ms == self.starts_ms:
            left = (self.allowance or hold_allowance) - self.used
        elif period_ms == self.before.starts_ms:
            left = (self.before.allowance_tokens or hold_allowance) - self.before.used_tokens
        else:
            return 0
        return max(0, tokens - max(0, left))

    def count(self, period_ms: int, tokens: int, from_packs: int, nano_gbp: int) -> None:
        """Count a change in the period it belongs to; what is older is in the ledger only."""
        if period_ms == self.starts_ms:
            self.settled += tokens
            self.from_packs += from_packs
            self.spent_nano_gbp += nano_gbp
        elif period_ms == self.before.starts_ms:
            self.before = PeriodBefore(
                period_ms, self.before.used_tokens + tokens - from_packs,
                self.before.allowance_tokens,
            )  # fmt: skip

    def cross(self, thresholds_percent: Sequence[int]) -> int:
        """The highest threshold that is reached now and was not before, or 0.

        What falls below a threshold again (an expiry corrected, a larger allowance) arms it anew.
        """
        if self.allowance == 0:
            return 0  # a percentage of nothing
        reached = [each for each in thresholds_percent if self.used * 100 >= each * self.allowance]
        highest = max(reached, default=0)
        before, self.warned_percent = self.warned_percent, highest
        return highest if highest > before else 0
