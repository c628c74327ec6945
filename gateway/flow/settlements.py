"""Ends of holds, kept until the store has confirmed them, and then until they are old.

A settlement's bytes are in the kernel's hands before the last bytes of the answer are; its reply is
not waited for. Without a reply it is sent again under the same rid, which changes nothing if the
first one arrived, until one is confirmed (promises I2, I4, I6).
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from gateway.core.event import UsageEvent, encode_event
from gateway.core.hold import NOTHING_USED, Ending, Hold, line_of_ending, usage_event
from gateway.core.quota.settle import SettleCode, SettleKind, Settlement, SettleReply
from gateway.flow.recent import RecentSettlements
from gateway.flow.room import Rooms
from gateway.flow.shards import Shards
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.metrics import Metrics
from gateway.ports.quota_store import (
    QuotaStore,
    ShardState,
    StoreRejected,
    StoreUnavailable,
)
from gateway.ports.tasks import spawn

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_KIND_NAMES = {
    SettleCode.SETTLED: "settled",
    SettleCode.CORRECTED: "corrected",
    SettleCode.LATE: "late",
    SettleCode.RELEASED: "released",
    SettleCode.NOTHING_OPEN: "nothing_open",
    SettleCode.LEASE_RUNS: "nothing_open",
}
_log = logging.getLogger("gateway.settlements")


# What a release would book if it turned out that the hold has expired meanwhile.
_RELEASED = Ending(usage=NOTHING_USED, quality="measured", outcome="upstream_error", status=0)


class Settlements:
    """Every settlement that is under way; `confirmed` waits for all of them (shutdown).

    `rooms`: what replies say that payers have left; admission notes its own there.
    """

    def __init__(
        self,
        store: QuotaStore,
        shards: Shards,
        recent: RecentSettlements,
        thresholds_percent: tuple[int, ...],
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._shards = shards
        self._recent = recent
        self._thresholds_percent = thresholds_percent
        self._metrics = metrics
        self.rooms = Rooms()
        self._unconfirmed: set[asyncio.Future[Any]] = set()

    @property
    def unconfirmed(self) -> int:
        """How many endings no reply has confirmed yet."""
        return len(self._unconfirmed)

    async def settle(self, hold: Hold, ending: Ending) -> int:
        """End a hold with a row in the ledger; the tokens charged. Never raises."""
        line = line_of_ending(hold, ending)
        event = usage_event(hold, ending, line)
        await self._begin(self._settlement(hold, "settle", event))
        self._metrics.charged(event, hold.hold_tokens)
        was_counted = hold.prompt_tokens > 0 and not hold.prompt_is_bound
        if ending.quality == "measured" and was_counted:
            self._metrics.prompt_measured(hold.model, hold.prompt_tokens, event.prompt_tokens)
        if line.is_default:
            self._metrics.unpriced(hold.model)
        return event.charged_tokens

    async def release(self, hold: Hold) -> None:
        """End a hold that cost nothing, seen by the store or not. Never raises."""
        await self._begin(self._settlement(hold, "release", usage_event(hold, _RELEASED)))

    async def confirmed(self) -> None:
        """Returns once nothing is unconfirmed."""
        while self._unconfirmed:
            await asyncio.wait(list(self._unconfirmed))

    async def _begin(self, settlement: Settlement) -> None:
        try:
            reply = await self._store.settle(settlement)
        except StoreUnavailable:
            self._repeat(settlement)
        except BaseException:  # cancelled just then: nobody else would end its hold
            self._repeat(settlement)
            raise
        else:
            self._unconfirmed.add(reply)
            reply.add_done_callback(partial(self._answered, settlement))

    def _answered(self, settlement: Settlement, reply: asyncio.Future[SettleReply]) -> None:
        """No task where none is needed: nearly every settlement is confirmed at once."""
        self._unconfirmed.discard(reply)
        if reply.cancelled():
            return  # the loop is ending, and with it every task; the hold's lease will tell
        if reply.exception() is None:
            answer = reply.result()
            if answer.code is not SettleCode.NOT_READY:
                self._confirmed(settlement, answer)
                return
        self._repeat(settlement, reply)

    def _repeat(
        self, settlement: Settlement, reply: asyncio.Future[SettleReply] | None = None
    ) -> None:
        task = spawn(self._confirm(settlement, reply), f"settle {settlement.rid}")
        self._unconfirmed.add(task)
        task.add_done_callback(self._unconfirmed.discard)

    async def _confirm(
        self, settlement: Settlement, reply: asyncio.Future[SettleReply] | None
    ) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                answer = await (reply or await self._store.settle(settlement))
                if answer.code is not SettleCode.NOT_READY:
                    self._confirmed(settlement, answer)
                    return
                await self._shards.open(self._shards.of(settlement.payer))
            except StoreRejected as error:
                _log.error("settlement %s was rejected: %s", settlement.rid, error)
                self._metrics.hold_ended("rejected")
                return
            except (StoreUnavailable, LedgerUnavailable) as error:
                _log.warning("settlement %s is not confirmed yet: %s", settlement.rid, error)
            reply = None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _confirmed(self, settlement: Settlement, reply: SettleReply) -> None:
        self._metrics.hold_ended(_KIND_NAMES[reply.code])
        self.rooms.settled(settlement.payer, reply)
        shard = self._shards.of(settlement.payer)
        if reply.stream_id:
            place = ShardState(reply.epoch, reply.stream_id)
            self._recent.keep(settlement, shard, place)
            self._shards.noted(shard, place)
        elif reply.code is SettleCode.NOTHING_OPEN and settlement.kind == "settle":
            # It was sent before, and that reply was lost.
            self._recent.keep_unplaced(settlement, shard, reply.epoch)

    def _settlement(self, hold: Hold, kind: SettleKind, event: UsageEvent) -> Settlement:
        caller = hold.caller
        return Settlement(  # by place: names would take half as long again
            hold.rid, caller.payer, kind, hold.epoch, hold.period_start_ms, event.charged_tokens,
            event.cost_nano_gbp, encode_event(event), caller.tier, caller.member,
            hold.tier_period_start_ms, hold.limit_tokens, self._thresholds_percent,
        )  # fmt: skip
