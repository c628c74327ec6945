"""What one shard knows: its epoch, its accounts, the calls under way, and the events it wrote.

The rules read and change it; it promises only what follows from its own words: which account is in
force, and that nothing counts in an account that is not. It refuses to know the rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.event import ScriptPart, stream_position
from gateway.core.quota.account import Account
from gateway.core.quota.endings import Kept, OpenHold
from gateway.core.quota.limits import TierShare

FIRST_ID = "0-0"

Name = tuple[str, str | None]
"""An account: its payer, and the member of it, or None for the payer's own."""
Call = tuple[str, str]
"""A call: its payer and its rid."""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the outbox: what the gateway told, and what only this side knew."""

    stream_id: str
    event_json: bytes
    part: ScriptPart


@dataclass(slots=True)
class Shard:
    """`epoch` 0 means that it is not open: nothing here can be trusted. `newest_id` is the id of
    the newest event, those included that were removed since. Until `quiet_until_ms` nothing is
    reserved, as long as gateways are `awaited` who have not brought back what they know."""

    epoch: int = 0
    quiet_until_ms: int = 0
    awaited: tuple[str, ...] = ()
    newest_id: str = FIRST_ID
    accounts: dict[Name, Account] = field(default_factory=dict)
    kept: dict[Call, Kept] = field(default_factory=dict)
    leases: dict[Call, int] = field(default_factory=dict)
    forget_at: dict[Call, int] = field(default_factory=dict)
    tiers: dict[str, TierShare] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def in_force(self, payer: str, member: str | None) -> Account | None:
        """The account if it is of this epoch; older ones were made before data was lost. It may
        still wait for the ledger's sums: what it counts meanwhile is added to them."""
        account = self.accounts.get((payer, member))
        return account if account is not None and account.epoch == self.epoch else None

    def usable(self, payer: str, member: str | None) -> Account | None:
        """The account if it knows all that was used of it, so that limits can be held to it."""
        account = self.in_force(payer, member)
        return account if account is not None and account.token is None else None

    def member_in_force(self, payer: str, member: str | None) -> Account | None:
        """The account of the member who calls; None also where the payer calls."""
        return None if member is None else self.in_force(payer, member)

    def share(self, tier: str, period_ms: int | None) -> TierShare | None:
        """The share of a capped tier, to be kept by whoever changes it; None of one that is not
        capped. What was handed out and counted in a lost epoch counts no more."""
        if period_ms is None:
            return None
        found = self.tiers.get(tier)
        if found is not None and found.epoch == self.epoch:
            return found
        round_number, free = (found.round, found.free) if found else (0, 0)
        return TierShare(self.epoch, period_ms, 0, round=round_number, free=free)

    def count_in_tier(self, tier: str, period_ms: int | None, settled: int, held: int) -> None:
        """Count a call of a tier, if that is capped."""
        share = self.share(tier, period_ms)
        if share is not None and period_ms is not None:
            share.count(period_ms, settled, held)
            self.tiers[tier] = share

    def keep(self, call: Call, ending: Kept, until_ms: int) -> None:
        """Keep how a call ended until that time."""
        self.kept[call] = ending
        self.forget_at[call] = until_ms

    def forget_endings(self, now_ms: int) -> None:
        """Forget the endings whose time is over."""
        for call in [call for call, at_ms in self.forget_at.items() if at_ms <= now_ms]:
            del self.forget_at[call]
            self.kept.pop(call, None)

    def open_hold(self, call: Call) -> OpenHold | None:
        found = self.kept.get(call)
        return found if isinstance(found, OpenHold) else None


def is_past(stream_id: str, other: str) -> bool:
    """True for an id given out after the other: they are "ms-seq", in the order of the server."""
    return stream_position(stream_id) > stream_position(other)
