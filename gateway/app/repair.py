"""`ledger repair`: where Redis differs from the ledger, and making it say the same again.

Looks for some seconds before it calls anything a difference, and compares again after each repair.
Without being told to apply it, nothing is changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.app.stores import Stores
from gateway.core.identity import Identity
from gateway.flow.agreement import Difference
from gateway.flow.repair import Record, Repair, can_repair
from gateway.ports.ledger import Unknown

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


async def repair(stores: Stores, only: str | None, apply: bool) -> list[RepairLine]:
    """All accounts that differ; with `apply`, after they were repaired. Unknown: there is no such
    account."""
    payers = {each.user_id: each for each in await stores.directory.users() if _pays(each)}
    if only is not None and only not in payers:
        raise Unknown(f"there is no user {only} who pays for itself, and no such team")
    found = await stores.agreement.lasting([only] if only is not None else list(payers))
    mending = Repair(
        stores.store, stores.directory, Record(stores.operators, _AUTHOR), stores.clock
    )
    lines = []
    for payer, off in sorted(found.items()):
        if off is None:
            lines.append(_line(payer, Difference(), "cannot be compared: the drain does not run"))
        elif not can_repair(off):
            words = "packs and what they paid do not fit together: see docs/ledger.md"
            lines.append(_line(payer, off, words))
        elif not apply:
            lines.append(_line(payer, off, f"would be repaired: {_told(off)}"))
        else:
            await mending.repair(payers[payer], off)
            is_well = payer not in await stores.agreement.lasting([payer])
            words = "repaired" if is_well else "STILL DIFFERENT after the repair"
            lines.append(_line(payer, off, f"{words}: {_told(off)}", is_well))
    return lines


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
