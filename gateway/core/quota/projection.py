"""What comes from the ledger: entitlements, and accounts that have to be brought back.

It promises that revisions only rise, and that each charge counts once: the ledger's sums up to the
event at which bringing back began, and here everything after it. An account that nobody uses may
go, because it can come back. It refuses to know how the ledger keeps its sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.core.quota.account import Account
from gateway.core.quota.endings import OpenHold
from gateway.core.quota.entitle import (
    EntitleCode,
    Entitlement,
    EntitleReply,
    FinishCode,
    Hydration,
    LedgerSums,
)
from gateway.core.quota.packs import merge
from gateway.core.quota.shard import Name, Shard, is_past


@dataclass(frozen=True, slots=True)
class Quiet:
    """A time in which nothing is reserved: until `until_ms` at most, or until each gateway that is
    awaited has brought back what it knows."""

    until_ms: int = 0
    awaited: tuple[str, ...] = ()


def open_shard(shard: Shard, epoch: int, cursor: str, quiet: Quiet) -> int:
    """Open the shard, or raise its epoch: the epoch in force. It never falls.

    The events go on past everything that the ledger has seen, so its cursor stays true.
    """
    if shard.epoch >= epoch:
        return shard.epoch
    if is_past(cursor, shard.newest_id):
        shard.newest_id = cursor
    shard.epoch, shard.quiet_until_ms, shard.awaited = epoch, quiet.until_ms, quiet.awaited
    return epoch


def caught_up(shard: Shard, epoch: int, gateway_id: str) -> None:
    """One gateway is awaited no longer; after the last of them there is no quiet time."""
    if shard.epoch != epoch:
        return
    shard.awaited = tuple(each for each in shard.awaited if each != gateway_id)
    if not shard.awaited:
        shard.quiet_until_ms = 0


def entitle(shard: Shard, told: Entitlement, period_end_ms: int, now_ms: int) -> EntitleReply:
    """Take over what the ledger says of an account at a revision."""

    def reply(code: EntitleCode) -> EntitleReply:
        return EntitleReply(code, now_ms)

    if shard.epoch == 0:
        return reply(EntitleCode.NOT_READY)
    account = shard.in_force(told.payer, told.member)
    if account is None:
        return reply(EntitleCode.ABSENT)
    if told.rev <= account.rev:
        return reply(EntitleCode.OLDER)
    if account.token is not None:
        # The sums are still being read: they must not be older than this revision.
        account.rev = told.rev
        return reply(EntitleCode.PROJECTED)
    if told.period_start_ms > now_ms:
        # Adjustments of a period to come cannot be taken yet, and must not be passed by.
        return reply(EntitleCode.PERIOD)
    if now_ms < period_end_ms:
        account.roll(now_ms, told.period_start_ms, period_end_ms)
    if account.starts_ms == told.period_start_ms:
        account.adjusted = told.adjusted_tokens
    account.packs = merge(account.packs, told.packs)
    account.rev = told.rev
    return reply(EntitleCode.PROJECTED)


def hydrate_begin(
    shard: Shard, name: Name, period_ms: tuple[int, int], now_ms: int
) -> Hydration | None:
    """Begin to bring an account back, or join who began. None: the shard is not open.

    Until it is finished nothing is held by the account, and what is charged to it is counted.
    """
    if shard.epoch == 0:
        return None
    account = shard.in_force(*name)
    if account is None:
        account = _begun(shard, name, period_ms, now_ms)
    if account.token is None:
        return Hydration(True, "", "", shard.epoch, account.starts_ms)
    return Hydration(False, account.token, account.since_id, shard.epoch, account.starts_ms)


def _begun(shard: Shard, name: Name, period_ms: tuple[int, int], now_ms: int) -> Account:
    """An account that has counted nothing yet. Endings stay kept, or a repeated settlement would
    count again."""
    payer, member = name
    if member is None:
        for call, kept in shard.kept.items():
            if call[0] == payer and isinstance(kept, OpenHold):
                shard.kept[call] = replace(kept, is_orphan=True)
    token = f"{shard.epoch}:{now_ms}:{shard.newest_id}"
    account = Account(shard.epoch, *period_ms, since_id=shard.newest_id, token=token)
    shard.accounts[name] = account
    return account


def hydrate_finish(shard: Shard, name: Name, token: str, sums: LedgerSums) -> FinishCode:
    """Add the ledger's sums, once: of several who read them, the first."""
    if shard.epoch == 0:
        return FinishCode.NOT_READY
    account = shard.in_force(*name)
    if account is None or account.token is None or account.token != token:
        return FinishCode.GONE
    if account.rev > sums.rev:
        return FinishCode.OLDER
    account.settled += sums.settled_tokens
    account.from_packs += sums.from_packs
    account.spent_nano_gbp += sums.cost_nano_gbp
    account.adjusted, account.rev = sums.adjusted_tokens, sums.rev
    account.packs = merge({}, sums.packs)
    account.token = None
    return FinishCode.FINISHED


def forget(shard: Shard, name: Name, now_ms: int) -> bool:
    """Remove an account whose period has been over for as long as it lasted, and that holds
    nothing. What it had counted is in the ledger, or will be before it is brought back. What one
    of a lost epoch holds is nothing: its holds are orphans once it is brought back."""
    account = shard.accounts.get(name)
    if shard.epoch == 0 or account is None or account.token is not None:
        return False
    idle_from_ms = account.ends_ms + (account.ends_ms - account.starts_ms)
    is_holding = account.open_holds > 0 and account.epoch == shard.epoch
    if is_holding or now_ms < idle_from_ms:
        return False
    del shard.accounts[name]
    return True
