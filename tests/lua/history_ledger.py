"""A ledger for histories: rows booked once, entitlements at a revision, sums up to an event.

It is what Postgres is for the product, in a few dictionaries: the record that accounts are brought
back from, and what figures in Redis must agree with. What is told twice is not booked twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gateway.core.event import LedgerRow
from gateway.core.quota.entitle import Entitlement, LedgerSums, Pack
from gateway.core.quota.shard import FIRST_ID, Name, is_past
from tests.fakes.doubles import counted_twice

DAY_MS = 86_400_000


@dataclass
class Grant:
    """A pack as it was paid for."""

    tokens: int
    ends_ms: int
    is_refunded: bool = False


@dataclass
class HistoryLedger:
    """The record of one shard. `epoch` rises before the shard is opened at it."""

    epoch: int = 0
    cursor: str = FIRST_ID
    rows: dict[tuple[str, int], LedgerRow] = field(default_factory=dict)
    revs: dict[Name, int] = field(default_factory=dict)
    adjusted: dict[tuple[Name, int], int] = field(default_factory=dict)
    grants: dict[str, dict[str, Grant]] = field(default_factory=dict)

    def book(self, rows: Sequence[LedgerRow]) -> list[LedgerRow]:
        """Book what is new; what Redis had counted twice."""
        corrections, too_much = counted_twice(self.rows, rows)
        for row in (*rows, *corrections):
            self.rows.setdefault((row.event_id, row.period_ms), row)
        if rows:
            self.cursor = rows[-1].stream_id
        return too_much

    def change(self, name: Name) -> None:
        """Whatever is entitled has changed: a new revision."""
        self.revs[name] = self.revs.get(name, 0) + 1

    def rev(self, name: Name) -> int:
        return self.revs.get(name, 0)

    def adjust(self, name: Name, period_ms: int, tokens: int) -> None:
        before = self.adjusted.get((name, period_ms), 0)
        self.adjusted[(name, period_ms)] = before + tokens
        self.change(name)

    def grant(self, payer: str, tokens: int, ends_ms: int) -> None:
        granted = self.grants.setdefault(payer, {})
        granted[f"p-{len(granted)}"] = Grant(tokens, ends_ms)
        self.change((payer, None))

    def refund(self, payer: str, number: int) -> None:
        granted = list(self.grants.get(payer, {}).values())
        if granted:
            granted[number % len(granted)].is_refunded = True
            self.change((payer, None))

    def packs(self, name: Name, now_ms: int) -> tuple[Pack, ...]:
        """What is left by the record, of those that have not ended more than a day ago."""
        payer, member = name
        spent = spent_of_packs(row for row in self.rows.values() if row.event.payer == payer)
        told = [
            Pack(pack_id, 0 if grant.is_refunded else grant.tokens - spent.get(pack_id, 0),
                 grant.ends_ms)
            for pack_id, grant in self.grants.get(payer, {}).items()
            if member is None and grant.ends_ms > now_ms - DAY_MS
        ]  # fmt: skip
        return tuple(sorted(told, key=lambda pack: pack.ends_ms))

    def entitlement(self, name: Name, period_ms: int, now_ms: int) -> Entitlement:
        payer, member = name
        return Entitlement(
            payer, self.rev(name), period_ms, self.adjusted.get((name, period_ms), 0),
            self.packs(name, now_ms), member,
        )  # fmt: skip

    def sums(self, name: Name, period_ms: int, up_to: str, now_ms: int) -> LedgerSums:
        """Everything of the account's period in the events up to `up_to`."""
        rows = [
            row for row in self.rows.values()
            if belongs(row, name, period_ms) and not is_past(row.stream_id, up_to)
        ]  # fmt: skip
        settled, from_packs, nano_gbp = figures(rows, name)
        return LedgerSums(
            settled, from_packs, self.adjusted.get((name, period_ms), 0), nano_gbp,
            self.rev(name), self.packs(name, now_ms),
        )  # fmt: skip

    def settled_before(self, epoch: int, tier_period_ms: int) -> int:
        """What earlier epochs settled in a capped tier's period."""
        return sum(
            row.charged_tokens for row in self.rows.values()
            if row.epoch < epoch and row.tier_period_start_ms == tier_period_ms
        )  # fmt: skip


def belongs(row: LedgerRow, name: Name, period_ms: int) -> bool:
    payer, member = name
    is_its = row.event.payer == payer and (member is None or row.member == member)
    return is_its and row.period_ms == period_ms


def figures(rows: Iterable[LedgerRow], name: Name) -> tuple[int, int, int]:
    """Tokens charged, of these what packs paid, and cost. A member has no packs."""
    rows = list(rows)
    from_packs = sum(row.from_packs for row in rows) if name[1] is None else 0
    charged = sum(row.charged_tokens for row in rows)
    return charged, from_packs, sum(row.cost_nano_gbp for row in rows)


def spent_of_packs(rows: Iterable[LedgerRow]) -> dict[str, int]:
    spent: dict[str, int] = {}
    for row in rows:
        for pack_id, tokens in row.pack_split:
            spent[pack_id] = spent.get(pack_id, 0) + tokens
    return spent
