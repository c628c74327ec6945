"""Did anybody get more than their limit? The bound of each user, and what was booked.

The bound is the limit, what the upstream reported beyond a hold, what was spent while Redis was
away, but no more of it than is allowed on each gateway, and what came to be booked after its hold
was gone: an expired hold gives its room to others, and a settlement that comes later is still
booked (in a correction, or without a hold).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos.records import Evidence, Row


@dataclass(frozen=True, slots=True)
class Reached:
    """One user's figures, in tokens."""

    user: str
    limit: int
    booked: int
    overdraft: int
    outage: int
    late: int

    @property
    def bound(self) -> int:
        return self.limit + self.overdraft + self.outage + self.late

    def __str__(self) -> str:
        return (
            f"{self.booked} booked of at most {self.bound} (limit {self.limit}, overdraft "
            f"{self.overdraft}, outage {self.outage}, booked after the hold was gone {self.late})"
        )


def all_reached(evidence: Evidence) -> Iterator[Reached]:
    """Every user who has a limit."""
    terms = evidence.terms
    for user, limit in terms.limits.items():
        rows = [row for row in evidence.rows if row.user == user]
        yield Reached(
            user,
            limit,
            sum(row.charged_tokens for row in rows),
            sum(row.overdraft_tokens for row in rows),
            min(
                terms.gateways * terms.outage_tokens,
                sum(row.charged_tokens for row in rows if row.in_outage),
            ),
            sum(max(0, row.charged_tokens) for row in rows if _is_late(row)),
        )


def beyond_limits(evidence: Evidence) -> Iterator[Reached]:
    """Those who got more than their bound."""
    return (user for user in all_reached(evidence) if user.booked > user.bound)


def reached(evidence: Evidence) -> Reached | None:
    """The user nearest to the bound."""
    return max(all_reached(evidence), key=lambda user: user.booked - user.bound, default=None)


def _is_late(row: Row) -> bool:
    without_hold = row.kind == "usage" and row.held_tokens == 0 and not row.in_outage
    return row.kind == "correction" or without_hold
