"""What a change of the configuration means for those who are served, in one sentence each.

A table by key, of which the first that fits counts. Whether a change needs a restart is in
`changes`; how many payers it concerns is not known here.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.config.changes import Change

_TIER: Final = r'plan\.tiers(\.[A-Za-z0-9_-]+|\["[^"]*"\])'
_MODEL: Final = r'models(\.[A-Za-z0-9_-]+|\["[^"]*"\])'
_JOBS = "holds from the next round of the jobs on"
_MEANINGS: Final = (
    (rf"{_TIER}\.packs", "holds for packs bought from now on; packs that are there stay"),
    (rf"{_TIER}\.shadow", "binds at the next call; what was used in this period counts"),
    (rf"{_TIER}\.limits", "binds at the next call; what was used in this period counts"),
    (rf"{_TIER}\.upgrade", "is told in the next refusal"),
    (r"plan\.default_tier", "holds for users made from now on"),
    (r"plan\.period", "holds for users made from now on"),
    (
        r"plan\.thresholds_percent",
        "holds from the next settlement on; what was passed before is not told again",
    ),
    (r"prices", "books calls that are admitted from now on; what was booked stays"),
    (r"upstreams", "calls from now on go there; those under way end where they are"),
    (_MODEL, "binds at the next call; those under way end as they began"),
    (r"identity", "binds at the next call, for which tokens are proven anew"),
    (r"notify", _JOBS),
    (r"ledger", _JOBS),
    (r"log", "holds from the next line on"),
)
_ADDED: Final = (
    (_TIER, "may be given to users from now on"),
    (_MODEL, "may be called from now on, on tiers that allow it"),
)
_REMOVED: Final = (
    (_TIER, "payers on it are answered 503 until they are moved to another tier"),
    (_MODEL, "calls to it are refused from now on; those under way end"),
)


def meaning(change: Change) -> str:
    """In small letters, without a full stop."""
    if change.needs_restart:
        return "needs a restart; a reload with it is refused as a whole"
    if re.fullmatch(rf"{_TIER}\.tokens", change.key) and None not in (change.before, change.after):
        if change.after < change.before:
            return (
                "binds at the next call; payers who have used more are refused until their "
                "period ends"
            )
        return "binds at the next call; payers who were refused may go on"
    table = _ADDED if change.before is None else _REMOVED if change.after is None else ()
    for pattern, text in table:
        if re.fullmatch(pattern, change.key):
            return text
    for pattern, text in _MEANINGS:
        if re.match(rf"{pattern}(?![A-Za-z0-9_-])", change.key):
            return text
    return "binds at the next call"
