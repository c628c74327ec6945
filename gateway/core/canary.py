"""The canary's rules: its names, its figures, and what its answers prove.

The canary is a user that no ledger and no list of people knows. It has spent a little of its quota,
once a period, so that one call still fits and another, which would fit into an unspent quota, never
does. Whoever counts nothing, or lets everything through, admits that one. Refuses to know how a
call is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gateway.core.refusal import Case

TIER: Final = "canary"
MODEL: Final = "quota-canary"
USER: Final = "~canary"
"""No user can be called so: ids begin with a letter or a digit."""

LIMIT_TOKENS: Final = 1_000_000
# Output caps. A prompt has up to 500 tokens, so what never fits would fit if nothing were used; and
# what is spent is a thousandth, below every threshold that is told to anybody.
FITS_TOKENS: Final = 1
SPENDS_TOKENS: Final = 1_000
NEVER_FITS_TOKENS: Final = LIMIT_TOKENS - 500

NO_CHARGE: Final = 418
"""The status of the canary's upstream for calls that shall cost nothing."""

Result = Literal["proven", "unproven", "broken"]
_IN_FLIGHT: Final = Case.QUOTA_IN_FLIGHT.value.code
_USED_UP: Final = Case.MONTH_USED_UP.value.code


@dataclass(frozen=True, slots=True)
class Reply:
    """What one of the canary's calls was answered. `decision`, `source` and `remaining_tokens` are
    headers, '' and None where they are missing; `code` is the error's."""

    status: int
    decision: str = ""
    source: str = ""
    code: str = ""
    remaining_tokens: int | None = None

    @property
    def words(self) -> str:
        """The reply, for whoever reads the log."""
        said = f"{self.status} {self.code}".rstrip()
        return f"{said} ({self.decision})" if self.decision else said


@dataclass(frozen=True, slots=True)
class Finding:
    """What a round has found, and why that is so. `is_passing`: it may have come between two calls
    of somebody else, or two periods; look again before it is said."""

    result: Result
    why: str = ""
    is_passing: bool = False


PROVEN: Final = Finding("proven")


def of_fitting(reply: Reply, status: int) -> Finding | None:
    """What is wrong with the answer to a call that fits; None when it was admitted, and answered
    with this status."""
    if reply.status == status and reply.decision == "admitted":
        return None
    return _away(reply) or _in_flight(reply) or _broken("a call that fits was not admitted", reply)


def of_too_large(reply: Reply) -> Finding | None:
    """The same for a call that does not fit; None when it was refused for its quota."""
    if (reply.status, reply.code, reply.source) == (429, _USED_UP, "gateway"):
        return None
    return (
        _away(reply) or _in_flight(reply) or _broken("a call over the limit was not refused", reply)
    )


def must_spend(reply: Reply) -> bool:
    """Whether nothing is used in this period yet, by the answer to a call that fits."""
    return reply.remaining_tokens is None or reply.remaining_tokens >= NEVER_FITS_TOKENS


def _away(reply: Reply) -> Finding | None:
    if reply.decision == "outage":
        return Finding("unproven", "Redis does not answer, and calls are admitted without it")
    if reply.status == 503:
        return Finding("unproven", f"the stores do not answer: {reply.words}")
    return None


def _in_flight(reply: Reply) -> Finding | None:
    if reply.code == _IN_FLIGHT:
        return Finding("unproven", "calls of other canaries are under way", is_passing=True)
    return None


def _broken(what: str, reply: Reply) -> Finding:
    return Finding("broken", f"{what}: {reply.words}", is_passing=True)
