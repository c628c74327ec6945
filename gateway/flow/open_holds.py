"""Holds that are open in this process, and the heartbeat that keeps their leases running.

A call may take longer than a lease. While it runs, its lease is lengthened and its progress noted,
in the spill while the store is away, so that if this process dies another one can book what the
client has read. A hold that ended meanwhile, or a stream that runs too long, is marked as over; its
relay then ends it politely. What a store has lost is held again in its new epoch, before anybody is
admitted into that room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from gateway.core.event import encode_tail
from gateway.core.hold import Hold, expiry_event, tail_of
from gateway.core.pricing import held_nano_gbp
from gateway.core.quota.reassert import OpenCall, ReassertCode
from gateway.flow.settlements import Settlements, settlement_of
from gateway.flow.shards import Shards
from gateway.flow.terms import Terms
from gateway.ports.clock import Clock
from gateway.ports.quota_store import QuotaStore, StoreRejected, StoreUnavailable

_SAID_AT_ONCE = 32
_ASKS_MAX = 3  # one begins the account, one joins who just did
_log = logging.getLogger("gateway.holds")


@dataclass(slots=True)
class OpenHold:
    """One call under way. `progress` counts the output tokens relayed so far."""

    hold: Hold
    opened_s: float
    progress: Callable[[], int]
    over: bool = False


class OpenHolds:
    """All calls under way in this process whose end has not been sent."""

    def __init__(
        self,
        store: QuotaStore,
        shards: Shards,
        settlements: Settlements,
        terms: Terms,
        clock: Clock,
    ) -> None:
        self._store = store
        self._shards = shards
        self._terms = terms
        self._clock = clock
        self._spill = settlements.spill
        self._open: dict[str, OpenHold] = {}
        settlements.ending = self._ending
        shards.keep_open(self)

    def __len__(self) -> int:
        return len(self._open)

    def take(self, terms: Terms) -> None:
        """Go on under these terms."""
        self._terms = terms

    def add(self, hold: Hold) -> OpenHold:
        """Keep this hold's lease running from now on."""
        entry = OpenHold(hold, self._clock.monotonic_s(), progress=lambda: 0)
        self._open[hold.rid] = entry
        if hold.in_outage and hold.stream:  # no lease will tell of it
            self._spill_seen(entry)
        return entry

    def remove(self, entry: OpenHold) -> None:
        """Its call is over."""
        self._ending(entry.hold.rid)

    def _ending(self, rid: str) -> None:
        """Its end is about to be sent. From here on nothing may hold it again: where its end had
        arrived before a loss, and was booked, nothing in the store would tell."""
        self._open.pop(rid, None)

    async def beat_forever(self) -> None:
        """One beat every `heartbeat_ms`, until cancelled."""
        while True:
            await asyncio.sleep(self._terms.heartbeat_ms / 1000)
            await self.beat()

    async def beat(self) -> None:
        """Lengthen the lease of every hold that has been open for a heartbeat or longer."""
        now_s = self._clock.monotonic_s()
        for entry in list(self._open.values()):
            age_s = now_s - entry.opened_s
            if age_s > self._terms.stream_max_s:
                entry.over = True
            elif age_s * 1000 < self._terms.heartbeat_ms:
                continue
            elif entry.hold.in_outage:
                await self._spill_progress(entry)
            else:
                await self._extend(entry)

    async def say_again(self, store: QuotaStore, shard: int, epoch: int) -> int:
        """Hold in the shard's `epoch` what is open here and was made in an older one: how many.

        StoreUnavailable: some of it may not be held; to be asked again.
        """
        lost = [entry for entry in self._open_in(shard) if entry.hold.epoch < epoch]
        for first in range(0, len(lost), _SAID_AT_ONCE):
            batch = lost[first : first + _SAID_AT_ONCE]
            await asyncio.gather(*(self._say(store, entry) for entry in batch))
        return len(lost)

    async def are_known(self, store: QuotaStore, shard: int, epoch: int) -> bool:
        """Whether the store has every hold of the shard's `epoch` that is open here: it may have
        lost one without an event that tells."""
        held = [entry.hold for entry in self._open_in(shard) if entry.hold.epoch == epoch]
        known = await store.known([(hold.caller.payer, hold.rid) for hold in held])
        # Those that were ended meanwhile may be gone.
        return all(
            is_known or hold.rid not in self._open
            for hold, is_known in zip(held, known, strict=True)
        )

    def _open_in(self, shard: int) -> list[OpenHold]:
        return [
            entry
            for entry in self._open.values()
            if self._shards.of(entry.hold.caller.payer) == shard
            and not entry.hold.in_outage  # it never held anything
        ]

    async def _extend(self, entry: OpenHold) -> None:
        hold = entry.hold
        try:
            alive = await self._store.extend(
                hold.caller.payer, hold.rid, entry.progress(), self._terms.lease_ms
            )
            if not alive:  # it has ended, or the store has lost it and this beat comes first
                await self._say(self._store, entry)
            elif hold.rid in self._open:
                self._spill.done(hold.rid)  # the store knows more
        except StoreUnavailable:  # the lease has two more beats and a grace before it ends
            await self._spill_progress(entry)
        except StoreRejected as error:
            _log.error("hold %s cannot be extended: %s", hold.rid, error)

    async def _say(self, store: QuotaStore, entry: OpenHold) -> None:
        """Hold it again unless it has ended; then its call is over."""
        rid = entry.hold.rid
        for _ in range(_ASKS_MAX):
            if rid not in self._open:
                return
            try:
                reply = await store.reassert(self._open_call(entry))
            except StoreRejected as error:
                _log.error("hold %s cannot be held again: %s", rid, error)
                return
            if reply.code is ReassertCode.HYDRATE:
                await self._begin(store, entry.hold, reply.now_ms)
            elif reply.code is ReassertCode.NOT_READY:
                break
            else:
                is_over = reply.code is ReassertCode.ENDED and rid in self._open
                entry.over = entry.over or is_over
                return
        raise StoreUnavailable(f"hold {rid} is not held again yet")

    async def _begin(self, store: QuotaStore, hold: Hold, now_ms: int) -> None:
        """An account that holds something must be there, if only begun: whoever calls next brings
        it back, and waits for the ledger."""
        caller = hold.caller
        period = caller.calendar.period_at(now_ms)
        borders_ms = period.start_ms, period.end_ms
        await store.hydrate_begin(caller.payer, None, *borders_ms)
        if caller.member is not None:
            await store.hydrate_begin(caller.payer, caller.member, *borders_ms)

    def _open_call(self, entry: OpenHold) -> OpenCall:
        hold, caller = entry.hold, entry.hold.caller
        prompt_nano_gbp, output_nano_gbp = held_nano_gbp(
            hold.price, hold.prompt_tokens, hold.service_tier
        )
        return OpenCall(
            rid=hold.rid,
            payer=caller.payer,
            tier=caller.tier,
            epoch=hold.epoch,
            period_start_ms=hold.period_start_ms,
            output_tokens=hold.output_tokens,
            hold_tokens=hold.hold_tokens,
            hold_nano_gbp=prompt_nano_gbp + hold.output_tokens * hold.choices * output_nano_gbp,
            progress_tokens=entry.progress(),
            lease_ms=self._terms.lease_ms,
            tail=encode_tail(tail_of(hold)),
            member=caller.member,
            tier_period_start_ms=hold.tier_period_start_ms,
        )

    async def _spill_progress(self, entry: OpenHold) -> None:
        """Never in place of its settlement. Whoever settles it, or notes its progress in the store,
        is done with that."""
        if entry.hold.stream and entry.hold.rid in self._open:
            self._spill_seen(entry)
            await asyncio.sleep(0)  # thousands in one go would hold up their own chunks

    def _spill_seen(self, entry: OpenHold) -> None:
        """Keep how the stream would be settled if this process died now."""
        hold = entry.hold
        seen = expiry_event(hold.rid, tail_of(hold), hold.price, hold.hold_tokens, entry.progress())
        if hold.in_outage:
            seen = replace(seen, outcome="outage")
        thresholds = self._terms.plan.thresholds_percent
        self._spill.keep(settlement_of(hold, "settle", seen, thresholds))
