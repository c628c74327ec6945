"""The rules of quota as one object with the store's methods: one shard, several payers, members.

It promises what the scripts promise, in the words of the port, so that a history can be told to
both and their answers compared. The time comes with each call, and so does the id of an event,
which only a server can give. It refuses to know Redis: that a step is one step, that memory is
full and that keys have names is the scripts' business.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.core.quota.admission import reserve
from gateway.core.quota.charging import correct, settle
from gateway.core.quota.entitle import (
    Entitlement,
    EntitleReply,
    FinishCode,
    Hydration,
    LedgerSums,
    Snapshot,
)
from gateway.core.quota.packs import by_end
from gateway.core.quota.projection import (
    Quiet,
    caught_up,
    entitle,
    forget,
    hydrate_begin,
    hydrate_finish,
    open_shard,
)
from gateway.core.quota.reassert import OpenCall, ReassertCode, reassert
from gateway.core.quota.reserve import ReserveAsk, ReserveReply
from gateway.core.quota.settle import Correction, Settlement, SettleReply
from gateway.core.quota.shard import Shard
from gateway.core.quota.shares import ShareAsk, ShareReply, share


class QuotaModel:
    """One shard by the rules. A new one is a server that has lost everything."""

    def __init__(self) -> None:
        self.shard = Shard()

    def open_shard(self, epoch: int, cursor: str, quiet: Quiet) -> int:
        return open_shard(self.shard, epoch, cursor, quiet)

    def caught_up(self, epoch: int, gateway_id: str) -> None:
        caught_up(self.shard, epoch, gateway_id)

    def reserve(self, ask: ReserveAsk, now_ms: int) -> ReserveReply:
        return reserve(self.shard, ask, now_ms)

    def reassert(self, told: OpenCall, now_ms: int) -> ReassertCode:
        return reassert(self.shard, told, now_ms)

    def extend(self, call: tuple[str, str], progress_tokens: int, until_ms: int) -> bool:
        """Note how far an answer has come, which never falls, and let its lease run longer."""
        hold = self.shard.open_hold(call)
        if hold is None:
            return False
        progress = max(progress_tokens, hold.progress_tokens)
        self.shard.kept[call] = replace(hold, progress_tokens=progress)
        self.shard.leases[call] = until_ms
        return True

    def settle(self, settlement: Settlement, now_ms: int, stream_id: str) -> SettleReply:
        """`stream_id` is what the server calls the event, where it wrote one."""
        return settle(self.shard, settlement, now_ms, stream_id)

    def correct(self, correction: Correction, now_ms: int) -> bool:
        return correct(self.shard, correction, now_ms)

    def entitle(self, told: Entitlement, period_end_ms: int, now_ms: int) -> EntitleReply:
        return entitle(self.shard, told, period_end_ms, now_ms)

    def hydrate_begin(
        self, payer: str, member: str | None, period_ms: tuple[int, int], now_ms: int
    ) -> Hydration | None:
        """`period_ms` are the borders of the caller's period."""
        return hydrate_begin(self.shard, (payer, member), period_ms, now_ms)

    def hydrate_finish(
        self, payer: str, member: str | None, token: str, sums: LedgerSums
    ) -> FinishCode:
        return hydrate_finish(self.shard, (payer, member), token, sums)

    def forget(self, payer: str, member: str | None, now_ms: int) -> bool:
        return forget(self.shard, (payer, member), now_ms)

    def forget_endings(self, now_ms: int) -> None:
        self.shard.forget_endings(now_ms)

    def share(self, ask: ShareAsk, now_ms: int, stream_id: str) -> ShareReply:
        """`stream_id` is the server's word for its newest event."""
        return share(self.shard, ask, now_ms, stream_id)

    def snapshot(self, payer: str, member: str | None = None) -> Snapshot | None:
        account = self.shard.usable(payer, member)
        if account is None:
            return None
        return Snapshot(
            settled_tokens=account.settled,
            from_packs=account.from_packs,
            adjusted_tokens=account.adjusted,
            held_tokens=account.held,
            open_holds=account.open_holds,
            cost_nano_gbp=account.spent_nano_gbp,
            period_start_ms=account.starts_ms,
            period_end_ms=account.ends_ms,
            rev=account.rev,
            epoch=account.epoch,
            stream_id=self.shard.newest_id,
            packs=tuple(by_end(account.packs)),
        )
