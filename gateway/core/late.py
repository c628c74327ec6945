"""A settlement that came after its hold had expired, and after Redis had forgotten the expiry.

Where Redis remembers the expiry, its script books the difference. Where it was emptied meanwhile it
counts the whole charge, beside the estimate that it was given back from the ledger. Promises the
row that makes the ledger say what the settlement says, and what Redis has counted too much. Refuses
to know who books the one and takes back the other.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import msgspec

from gateway.core.event import LedgerRow, PackSplit
from gateway.core.hold import is_expiry
from gateway.core.rid import derived_rid


class BookedExpiry(msgspec.Struct, frozen=True):
    """What the ledger has of a hold that nobody ended: the sweeper's estimate, and who paid it."""

    charged_tokens: int
    cost_nano_gbp: int
    held_tokens: int
    pack_split: PackSplit = ()


class Late(NamedTuple):
    """`correction` is to be booked. `excess` is what is left of the row without it: what Redis has
    counted too much then, under the row's own id and place in the outbox."""

    correction: LedgerRow
    excess: LedgerRow


def settles(row: LedgerRow) -> bool:
    """Whether the row tells how a call ended, by somebody who knew it."""
    event = row.event
    return row.corrects is None and not is_expiry(event.quality, event.outcome, event.stream)


def settled_late(row: LedgerRow, expiry: BookedExpiry) -> Late:
    """What follows from a row that settles a hold whose `expiry` is booked.

    The correction is the one that the script would have made, had it remembered the expiry; it has
    the same id, so the ledger takes one of them.
    """
    before, held = expiry.charged_tokens, expiry.held_tokens
    split = _split_of_change(row, expiry)
    correction = _charging(row, before, expiry.cost_nano_gbp, split)
    correction = msgspec.structs.replace(
        correction,
        event_id=derived_rid(row.event_id, "late"),
        kind="correction",
        corrects=row.event_id,
        held_tokens=0,  # stands in the row of the expiry
        overdraft_tokens=max(0, row.charged_tokens - held) - max(0, before - held),
    )
    excess = _charging(
        row,
        correction.charged_tokens,
        correction.cost_nano_gbp,
        _without(row.pack_split, split),
    )
    return Late(correction, excess)


def _charging(row: LedgerRow, less_tokens: int, less_nano_gbp: int, split: PackSplit) -> LedgerRow:
    """The row with a smaller charge, of which packs pay `split`."""
    tokens, from_packs = row.charged_tokens - less_tokens, sum(part for _, part in split)
    return msgspec.structs.replace(
        row,
        charged_tokens=tokens,
        cost_nano_gbp=row.cost_nano_gbp - less_nano_gbp,
        from_allowance=tokens - from_packs,
        from_packs=from_packs,
        pack_split=split,
    )


def _split_of_change(row: LedgerRow, expiry: BookedExpiry) -> PackSplit:
    """What packs pay of the difference. The row was paid as if the estimate were owed as well, so
    packs paid that much too much of it. What is given back goes to packs first."""
    change = row.charged_tokens - expiry.charged_tokens
    if change < 0:
        return tuple((pack_id, -part) for pack_id, part in _first(expiry.pack_split, -change))
    return _first(row.pack_split, row.from_packs - expiry.charged_tokens)


def _first(split: PackSplit, tokens: int) -> PackSplit:
    """Up to so many tokens of a split."""
    parts = []
    for pack_id, part in split:
        some = min(part, tokens)
        if some > 0:
            parts.append((pack_id, some))
            tokens -= some
    return tuple(parts)


def _without(split: PackSplit, less: PackSplit) -> PackSplit:
    paid: Counter[str] = Counter()
    for pack_id, tokens in (*split, *((pack_id, -part) for pack_id, part in less)):
        paid[pack_id] += tokens
    return tuple((pack_id, tokens) for pack_id, tokens in paid.items() if tokens)
