"""Packs: what is left of each, spent by earliest end, given back in the opposite order.

It promises that a pack loses exactly what a split says it paid, and that what the ledger tells
never raises a pack that is known: the ledger runs behind. It refuses to know prices and payments.
A pack that ended while a call was open may still pay for that call, so ends are compared with the
time at which the call began.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gateway.core.event import PackSplit
from gateway.core.quota.entitle import Pack

Packs = dict[str, Pack]


def by_end(packs: Packs) -> list[Pack]:
    """Those that would be lost first come first; of one end, by id, so that all agree."""
    return sorted(packs.values(), key=lambda pack: (pack.ends_ms, pack.pack_id))


def left_in(packs: Packs, since_ms: int) -> int:
    """What a call that begins at `since_ms` may spend."""
    return sum(pack.tokens for pack in packs.values() if pack.ends_ms > since_ms)


def spend(packs: Packs, since_ms: int, tokens: int) -> PackSplit:
    """Take up to `tokens` for a call that began at `since_ms`; who paid how much."""
    split = []
    for pack in by_end(packs):
        part = min(pack.tokens, tokens) if pack.ends_ms > since_ms else 0
        if part > 0:
            packs[pack.pack_id] = replace(pack, tokens=pack.tokens - part)
            split.append((pack.pack_id, part))
            tokens -= part
    return tuple(split)


def give_back(packs: Packs, split: PackSplit, tokens: int) -> PackSplit:
    """Undo up to `tokens` of a split, the last that paid first; the split of that is negative.

    A pack that is forgotten takes nothing: then the allowance is given back instead.
    """
    back = []
    for pack_id, paid in reversed(split):
        part = min(paid, tokens)
        if pack_id in packs and part > 0:
            packs[pack_id] = replace(packs[pack_id], tokens=packs[pack_id].tokens + part)
            back.append((pack_id, -part))
            tokens -= part
    return tuple(back)


def undo(packs: Packs, split: PackSplit) -> None:
    """Take back a whole split. What it had given back is taken as far as the pack has it."""
    for pack_id, tokens in split:
        if pack_id in packs:
            left = max(0, packs[pack_id].tokens + tokens)
            packs[pack_id] = replace(packs[pack_id], tokens=left)


def total(split: PackSplit) -> int:
    """What packs paid in all."""
    return sum(tokens for _, tokens in split)


def merge(packs: Packs, told: Iterable[Pack]) -> Packs:
    """The packs that the ledger tells of. One that is known keeps what is left of it here, which
    is newer than what the ledger says, unless nothing is left there: then it was refunded or
    spent. One that is not told of any more is forgotten."""
    return {pack.pack_id: _merged(packs.get(pack.pack_id), pack) for pack in told}


def _merged(known: Pack | None, told: Pack) -> Pack:
    if known is None or told.tokens == 0:
        return told
    return replace(told, tokens=known.tokens)
