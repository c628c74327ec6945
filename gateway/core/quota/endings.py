"""What is kept under the rid of a call: an open hold, or how it ended where that must be known.

A hold that was settled leaves nothing: within an epoch, absent means ended, so a call costs no
memory. Kept is only what a late call of the same rid must find. It refuses to know how
long, and what a charge is counted in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gateway.core.event import PackSplit

RELEASED_MS = 60_000
"""A reserve that was given up comes late, or twice, by seconds, not by minutes."""
KEPT_MS = 86_400_000
"""A settlement waits in a file of its gateway for as long as a day."""


@dataclass(frozen=True, slots=True)
class OpenHold:
    """A call under way: the cap granted a choice, what it holds, and what it had sent so far.

    An orphan was made in an epoch that is lost: no account holds anything for it any more, but
    its charge is still to come.
    """

    output_tokens: int
    tokens: int
    nano_gbp: int
    period_ms: int
    since_ms: int
    tail: bytes
    progress_tokens: int = 0
    is_orphan: bool = False


@dataclass(frozen=True, slots=True)
class Expired:
    """A hold that ended by its lease, with what was booked of it: a late settlement corrects it."""

    tokens: int
    nano_gbp: int
    hold_tokens: int
    since_ms: int
    split: PackSplit


class Mark(Enum):
    """RELEASED: a reserve that comes late, perhaps after its release, must not hold again.
    BOOKED: booked although its hold or epoch was gone; a repetition must find that."""

    RELEASED = "v"
    BOOKED = "d"


Kept = OpenHold | Expired | Mark
