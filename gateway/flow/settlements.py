"""Ends of holds, kept until the store has confirmed them, and then until they are old.

A settlement's bytes are in the kernel's hands before the last bytes of the answer are; its reply is
not waited for. Without a reply it is written to the spill and sent again under the same rid, which
changes nothing if the first one arrived, until one is confirmed (promises I2, I4, I6).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from msgspec.structs import replace

from gateway.core.event import UsageEvent, encode_event
from gateway.core.hold import NOTHING_USED, Ending, Hold, line_of_ending, usage_event
from gateway.core.quota.settle import SettleCode, SettleKind, Settlement, SettleReply
from gateway.flow.outage import Spending
from gateway.flow.pauses import Pauses
from gateway.flow.recent import RecentSettlements
from gateway.flow.room import Rooms
from gateway.flow.shards import Shards
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.metrics import Metrics
from gateway.ports.quota_store import (
    QuotaStore,
    ShardState,
    StoreNotAsked,
    StoreRejected,
    StoreUnavailable,
)
from gateway.ports.spill import Spill
from gateway.ports.tasks import spawn

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
# By all of them together: after a minute without Redis they would take a processor otherwise.
_REPEATS_A_SECOND = 1000
# When the store is back all try again; more than these would not fit onto its connection.
_REPEATED_AT_ONCE = 1000
# Of those that died processes left: enough to be through with a thousand in a second.
_LEFT_AT_ONCE = 32
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

    `kept`: where the confirmed ones stay, and the others. `rooms`: what replies say that payers
    have left; admission notes its own there. `spending`: what calls took that nothing was held for.
    `pauses`: those between attempts, to be ended when the store is back. `ending` is called with
    the rid of every hold before its end is sent.
    """

    def __init__(
        self,
        store: QuotaStore,
        shards: Shards,
        kept: tuple[RecentSettlements, Spill],
        thresholds_percent: tuple[int, ...],
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._shards = shards
        self._recent, self.spill = kept
        self._thresholds_percent = thresholds_percent
        self._metrics = metrics
        self.rooms = Rooms()
        self.spending = Spending()
        self.ending: Callable[[str], None] = lambda rid: None
        self.pauses = Pauses()
        self._turns = asyncio.Semaphore(_REPEATED_AT_ONCE)
        self._unconfirmed: set[asyncio.Future[Any]] = set()

    def take(self, thresholds_percent: tuple[int, ...]) -> None:
        """Crossings are looked for at these thresholds from now on."""
        self._thresholds_percent = thresholds_percent

    @property
    def unconfirmed(self) -> int:
        """How many endings no reply has confirmed yet."""
        return len(self._unconfirmed)

    async def settle(self, hold: Hold, ending: Ending) -> int:
        """End a hold with a row in the ledger; the tokens charged. Never raises."""
        line = line_of_ending(hold, ending)
        event = usage_event(hold, ending, line)
        if hold.in_outage:
            self.spending.ended(hold.rid, event.charged_tokens)
        await self.book(hold, event)
        was_counted = hold.prompt_tokens > 0 and not hold.prompt_is_bound
        if ending.quality == "measured" and was_counted:
            self._metrics.prompt_measured(hold.model, hold.prompt_tokens, event.prompt_tokens)
        if line.is_default:
            self._metrics.unpriced(hold.model)
        return event.charged_tokens

    async def book(self, hold: Hold, event: UsageEvent, is_new: bool = True) -> None:
        """End a hold with that very row. `is_new` False: it may have been booked before, so the
        metrics do not count it. Never raises."""
        await self._begin(settlement_of(hold, "settle", event, self._thresholds_percent))
        if is_new:
            self._metrics.charged(event, hold.hold_tokens)

    async def release(self, hold: Hold) -> None:
        """End a hold that cost nothing, seen by the store or not. Never raises."""
        if hold.in_outage:  # there is none
            self.ending(hold.rid)
            self.spending.ended(hold.rid, 0)
            self.spill.done(hold.rid)
            return
        event = usage_event(hold, _RELEASED)
        await self._begin(settlement_of(hold, "release", event, self._thresholds_percent))

    def take_over(self) -> None:
        """Begin to send what processes that died had not sent, or had no reply to."""
        left = self.spill.left()
        for _ in range(_LEFT_AT_ONCE):
            self._until_done(self._confirm_all(left), "settle what was left")

    def release_later(self, hold: Hold) -> None:
        """The same, and nobody waits for it: who asks has waited long enough for the store."""
        event = usage_event(hold, _RELEASED)
        settlement = settlement_of(hold, "release", event, self._thresholds_percent)
        self._repeat(settlement, self._shards.met)

    async def confirmed(self) -> None:
        """Returns once nothing is unconfirmed."""
        while self._unconfirmed:
            await asyncio.wait(list(self._unconfirmed))

    async def _begin(self, settlement: Settlement) -> None:
        self.ending(settlement.rid)
        met = self._shards.met
        try:
            reply = await self._store.settle(settlement)
        except StoreUnavailable:
            self._repeat(settlement, met)
        except BaseException:  # cancelled just then: nobody else would end its hold
            self._repeat(settlement, met)
            raise
        else:
            self._unconfirmed.add(reply)
            reply.add_done_callback(partial(self._answered, settlement, met))

    def _answered(
        self, settlement: Settlement, met: int, reply: asyncio.Future[SettleReply]
    ) -> None:
        """No task where none is needed: nearly every settlement is confirmed at once."""
        self._unconfirmed.discard(reply)
        if reply.cancelled():
            self.spill.keep(settlement)  # the loop is ending, and with it every task
            return
        if reply.exception() is None:
            answer = reply.result()
            if _may_be_lost(settlement, answer):
                self._repeat(replace(settlement, epoch=answer.epoch - 1), met)
                return
            if answer.code is not SettleCode.NOT_READY:
                self._confirmed(settlement, answer)
                return
        self._repeat(settlement, met, reply)

    def _repeat(
        self, settlement: Settlement, met: int, reply: asyncio.Future[SettleReply] | None = None
    ) -> None:
        self.spill.keep(settlement)
        self._until_done(self._confirm(settlement, met, reply), f"settle {settlement.rid}")

    def _until_done(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = spawn(work, name)
        self._unconfirmed.add(task)
        task.add_done_callback(self._unconfirmed.discard)

    async def _confirm_all(self, settlements: Iterator[Settlement]) -> None:
        """Several of these share one iterator: who is done with one takes the next."""
        for settlement in settlements:
            await self._confirm(settlement, None, None)

    async def _confirm(
        self, settlement: Settlement, met: int | None, reply: asyncio.Future[SettleReply] | None
    ) -> None:
        """`met`: how many servers had been met when it was first sent; None: it was sent, or not,
        by a process that died."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                answer = await (reply or self._again(settlement))
                met = self._shards.met if met is None else met
                if self._shards.met != met and _may_be_lost(settlement, answer):
                    settlement = replace(settlement, epoch=answer.epoch - 1)
                    self.spill.keep(settlement)
                    reply = None
                    continue
                if answer.code is not SettleCode.NOT_READY:
                    self._confirmed(settlement, answer)
                    return
                await self._shards.open(self._shards.of(settlement.payer))
            except StoreRejected as error:
                _log.error("settlement %s was rejected: %s", settlement.rid, error)
                self._metrics.hold_ended("rejected")
                self.spill.done(settlement.rid)
                return
            except StoreNotAsked:
                pass  # said once, where it is known
            except (StoreUnavailable, LedgerUnavailable) as error:
                _log.warning("settlement %s is not confirmed yet: %s", settlement.rid, error)
            reply = None
            is_back = await self.pauses.rest(pause_s)
            longest_s = max(_LONGEST_PAUSE_S, len(self._unconfirmed) / _REPEATS_A_SECOND)
            pause_s = _FIRST_PAUSE_S if is_back else min(2 * pause_s, longest_s)

    async def _again(self, settlement: Settlement) -> SettleReply:
        async with self._turns:
            return await (await self._store.settle(settlement))

    def _confirmed(self, settlement: Settlement, reply: SettleReply) -> None:
        self.spill.done(settlement.rid)
        self._metrics.hold_ended(_KIND_NAMES[reply.code])
        self.rooms.settled(settlement.payer, reply)
        self.spending.booked(settlement.rid)
        shard = self._shards.of(settlement.payer)
        if reply.stream_id:
            place = ShardState(reply.epoch, reply.stream_id)
            self._recent.keep(settlement, shard, place)
            self._shards.noted(shard, place)
        elif reply.code is SettleCode.NOTHING_OPEN and settlement.kind == "settle":
            # It was sent before, and that reply was lost.
            self._recent.keep_unplaced(settlement, shard, reply.epoch)


def settlement_of(
    hold: Hold, kind: SettleKind, event: UsageEvent, thresholds_percent: tuple[int, ...]
) -> Settlement:
    """The settlement that ends `hold` with `event`."""
    caller = hold.caller
    return Settlement(  # by place: names would take half as long again
        hold.rid, caller.payer, kind, hold.epoch, hold.period_start_ms, event.charged_tokens,
        event.cost_nano_gbp, encode_event(event), caller.tier, caller.member,
        hold.tier_period_start_ms, hold.limit_tokens, thresholds_percent,
        0, hold.period_end_ms,
    )  # fmt: skip


def _may_be_lost(settlement: Settlement, reply: SettleReply) -> bool:
    """Whether Redis may have gone back to before the hold was made, and lost no event by which
    anybody could tell: this process alone ends its holds without a trace. So at its first attempt
    it is lost; at a later one, on a server that was not met before, it may also be booked, with
    the reply lost. As of an older epoch it is booked, once: if it was before, the drain takes that
    back."""
    is_gone = settlement.kind == "settle" and reply.code is SettleCode.NOTHING_OPEN
    return is_gone and settlement.epoch == reply.epoch
