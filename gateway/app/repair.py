"""`ledger repair`: where Redis differs from the ledger, and making both say the same again.

Looks for some seconds before it calls anything a difference, and compares again after each repair.
Without being told to apply it, nothing is changed; with a reason, it is the ledger that changes.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

from gateway.app.stores import Stores
from gateway.core.identity import Identity
from gateway.flow.agreement import Difference
from gateway.flow.repair import Record, Repair, can_book, can_repair
from gateway.ports.ledger import Conflict, Unknown

_AUTHOR = "cli:repair"


@dataclass(frozen=True, slots=True)
class RepairLine:
    """One account that differs: by how much Redis has too much, and what becomes of that."""

    account: str
    settled_tokens: int
    adjusted_tokens: int
    from_packs: int
    packs_tokens: int
    cost_nano_gbp: int
    words: str
    is_repaired: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """`only`: one account. `book_reason`: why the ledger lacks what Redis has; None: the ledger is
    right."""

    only: str | None = None
    apply: bool = False
    book_reason: str | None = None


async def repair(stores: Stores, wanted: Wanted) -> list[RepairLine]:
    """All accounts that differ; with `apply`, after they were repaired. Unknown: there is no such
    account. Conflict: others are repairing, or the reason says nothing."""
    if wanted.book_reason is not None and not wanted.book_reason.strip():
        raise Conflict("a reason is needed: it goes into the ledger")
    async with stores.corrections.alone() if wanted.apply else nullcontext():
        return await _repair(stores, wanted)


async def _repair(stores: Stores, wanted: Wanted) -> list[RepairLine]:
    payers = {each.user_id: each for each in await stores.directory.users() if _pays(each)}
    if wanted.only is not None and wanted.only not in payers:
        raise Unknown(f"there is no user {wanted.only} who pays for itself, and no such team")
    asked = list(payers) if wanted.only is None else [wanted.only]
    found = await stores.agreement.lasting(asked)
    record = Record(stores.operators, stores.corrections, _AUTHOR)
    mending = Repair(stores.store, stores.directory, record, stores.clock)
    is_booked = wanted.book_reason is not None
    done, lines = "booked in the ledger" if is_booked else "repaired", []
    for payer, off in sorted(found.items()):
        if off is None:
            lines.append(_line(payer, Difference(), "cannot be compared: the drain does not run"))
        elif why_not := _why_not(off, is_booked):
            lines.append(_line(payer, off, f"{why_not}: {_told(off)}"))
        elif not wanted.apply:
            lines.append(_line(payer, off, f"would be {done}: {_told(off)}"))
        else:
            if wanted.book_reason is None:
                await mending.repair(payers[payer], off)
            else:
                await mending.book(payers[payer], off, wanted.book_reason)
            is_well = payer not in await stores.agreement.lasting([payer])
            words = done if is_well else "STILL DIFFERENT after the repair"
            lines.append(_line(payer, off, f"{words}: {_told(off)}", is_well))
    return lines


def _why_not(off: Difference, is_booked: bool) -> str:
    """In words, or '' where it can be done."""
    if not can_repair(off):
        return "packs and what they paid do not fit together, see docs/ledger.md"
    if is_booked and not can_book(off):
        return "not booked, for the ledger lacks nothing here (repair it without --book)"
    return ""


def _pays(identity: Identity) -> bool:
    return identity.user_id == identity.payer


def _line(account: str, off: Difference, words: str, is_repaired: bool = False) -> RepairLine:
    return RepairLine(
        account,
        off.settled_tokens,
        off.adjusted_tokens,
        off.from_packs,
        off.packs_tokens,
        off.cost_nano_gbp,
        words,
        is_repaired,
    )


def _told(off: Difference) -> str:
    parts = {
        "used tokens": off.settled_tokens,
        "adjusted tokens": off.adjusted_tokens,
        "tokens left of packs": sum(off.packs.values()),
    }
    told = [f"{tokens:+,} {what}" for what, tokens in parts.items() if tokens]
    return f"Redis had {', '.join(told)} against the ledger"
