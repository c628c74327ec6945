"""Shards and their epochs: what Redis does not know, or no longer knows, the ledger decides.

A shard without meta is new, or its server was emptied; a shard whose newest event is older than one
that was seen has gone back in time. In both cases the ledger grants a higher epoch, which makes
every older account in Redis ask for hydration instead of counting as zero (promise I8). Then there
is a quiet time in which every gateway that is alive first sends again what the ledger has not
booked yet, and says what it has open, so that nobody is admitted into the room of calls under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

from gateway.core.event import stream_position
from gateway.core.identity import shard_of
from gateway.core.quota.settle import SettleCode, Settlement
from gateway.flow.recent import RecentSettlements
from gateway.flow.whole import UNKNOWN, NoCalls, OpenCalls, has_events
from gateway.ports.ledger import GATEWAY_ALIVE_S, Cursor, Ledger, LedgerUnavailable
from gateway.ports.quota_store import (
    QuotaStore,
    ShardState,
    StoreNotReady,
    StoreRejected,
    StoreUnavailable,
)
from gateway.ports.tasks import spawn

# At most: it ends when the last gateway has sent; one that died a moment ago is waited for in vain.
QUIET_MS = 15_000
_LOOK_EVERY_S = 0.5
_PATIENCE_MS, _LOOK_AGAIN_S = 5_000, 0.05  # of a caller, and of the one who looks for all
_SAY_EVERY_S = GATEWAY_ALIVE_S / 3
_SENT_AT_ONCE = 32
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_PAYERS_KEPT = 8192
_log = logging.getLogger("gateway.shards")

T = TypeVar("T")


class Shards:
    """Opens shards and raises epochs; every step may be repeated, also by several gateways."""

    def __init__(
        self, store: QuotaStore, ledger: Ledger, shards: int, recent: RecentSettlements
    ) -> None:
        """Of a process that settles nothing, until it joins."""
        self._store = store
        self._ledger = ledger
        self._shards = shards
        self._recent = recent
        self._known: dict[int, ShardState] = {}
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._opening: dict[int, asyncio.Task[int]] = {}
        self._waiting: dict[int, asyncio.Task[None]] = {}
        self._me: str | None = None
        self._open_calls: OpenCalls = NoCalls()
        self.met = 0  # how often a server had to be compared
        # The shard of a payer; kept, because a digest takes longer than all else that is noted.
        self.of: Callable[[str], int] = lru_cache(_PAYERS_KEPT)(partial(shard_of, shards=shards))

    async def open_all(self) -> None:
        """Compare every shard, before traffic."""
        await self.compare(range(self._shards))

    async def compare(self, shards: Iterable[int]) -> None:
        """Compare these shards with what this process and the ledger have seen of them, and open
        each, or raise its epoch, where Redis has less: whenever the server that has them changed.

        While the ledger is away, what this process has seen must do.
        """
        self.met += 1
        cursors: dict[int, Cursor] = {}
        try:
            cursors = await self._ledger.cursors()
        except LedgerUnavailable as error:
            _log.warning("shards are compared without the ledger: %s", error)
        for shard in shards:
            await self._compare(shard, cursors.get(shard))

    async def open(self, shard: int) -> int:
        """Open a shard that Redis does not know; the epoch in force. Callers at the same time share
        one attempt."""
        return await self._shared(self._opening, shard, self._open)

    async def ready(self, shard: int, wait_ms: int) -> None:
        """Returns when it is worth reserving again after a refusal that told this wait: the shard
        is open, and the gateways awaited have sent what they know, or the wait is over.

        StoreNotReady: they have not, in the time that a caller waits.
        """

        async def wait(shard: int) -> None:
            until_s = asyncio.get_running_loop().time() + min(wait_ms, _PATIENCE_MS) / 1000
            await self.open(shard)
            while asyncio.get_running_loop().time() < until_s:
                if not (await self._store.shard_state(shard)).is_quiet:
                    return
                await asyncio.sleep(_LOOK_AGAIN_S)
            if wait_ms > _PATIENCE_MS:
                raise StoreNotReady(f"shard {shard} waits for what other gateways know of it")

        await self._shared(self._waiting, shard, wait)

    async def _open(self, shard: int) -> int:
        cursors = {} if shard in self._known else await self._ledger.cursors()
        return await self._compare(shard, cursors.get(shard))

    async def _shared(
        self,
        flights: dict[int, asyncio.Task[T]],
        shard: int,
        fly: Callable[[int], Coroutine[Any, Any, T]],
    ) -> T:
        """One flight a shard: an emptied Redis has everybody ask for the same."""
        flight = flights.get(shard)
        if flight is None:
            flight = spawn(fly(shard), f"open shard {shard}", awaited=True)
            flights[shard] = flight
            flight.add_done_callback(lambda _: flights.pop(shard, None))
        return await asyncio.shield(flight)

    def noted(self, shard: int, place: ShardState) -> None:
        """Redis has confirmed this event: a server that knows less has gone back in time."""
        known = self._known.get(shard, UNKNOWN)
        if place.epoch > known.epoch:
            self._adopt(shard, place)
        elif place.epoch == known.epoch:
            new, old = place.stream_id, known.stream_id
            if len(new) == len(old) and new.find("-") == old.find("-"):
                is_later = new > old  # Redis's order is that of texts where digits are as many
            else:
                is_later = stream_position(new) > stream_position(old)
            if is_later:
                self._known[shard] = place

    async def caught_up(self, shard: int) -> None:
        """Returns once everything this process had to send again to the shard is there."""
        while sending := self._sending.get(shard):
            await asyncio.wait([sending])  # it may give way to that of a newer epoch

    async def join(self, gateway_id: str) -> None:
        """Be waited for after a loss: this process settles, and remembers what it settled."""
        self._me = gateway_id
        await self._ledger.alive_gateways(gateway_id)

    def keep_open(self, calls: OpenCalls) -> None:
        """What a server must have, and is told again after a loss before anybody may reserve."""
        self._open_calls = calls

    def has_lost(self, payer: str, epoch: int) -> bool:
        """Whether the payer's shard has begun a newer epoch since a hold was made in this one."""
        return self._known.get(self.of(payer), UNKNOWN).epoch > epoch

    async def watch_forever(self, traffic: QuotaStore) -> None:
        """Say that this gateway is alive, and notice epochs that others raised, until cancelled.

        By the store of the traffic: so a new server is met, and compared, though nobody calls.
        """
        loop = asyncio.get_running_loop()
        say_at_s = loop.time()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if loop.time() >= say_at_s:
                say_at_s = loop.time() + _SAY_EVERY_S
                spawn(self._say_alive(), "say alive")
            try:
                await self.look(traffic)
            except (StoreUnavailable, LedgerUnavailable) as error:
                _log.info("shards cannot be looked at: %s", error)

    async def _say_alive(self) -> None:
        try:
            await self._ledger.alive_gateways(self._me)
        except LedgerUnavailable as error:
            _log.info("the ledger was not told that this gateway is alive: %s", error)

    async def look(self, traffic: QuotaStore) -> None:
        """Learn every shard's epoch; open those that Redis does not know."""
        for shard, epoch in (await traffic.epochs()).items():
            if not epoch:
                await self.open(shard)
            elif epoch > self._known.get(shard, UNKNOWN).epoch:
                self._adopt(shard, await self._store.shard_state(shard))

    async def _compare(self, shard: int, cursor: Cursor | None) -> int:
        # In this order: what is confirmed while the state is read must not look lost.
        seen = self._known.get(shard, UNKNOWN)
        state = await self._store.shard_state(shard)
        is_whole = await has_events(self._store, shard, state, seen, cursor)
        if is_whole and await self._open_calls.are_known(self._store, shard, state.epoch):
            self._adopt(shard, state)
            return await self._store.open_shard(shard, state.epoch, "0-0", 0, ())
        # By the ledger only where this process has seen nothing: another may just be raising it.
        before = max(state.epoch, seen.epoch or (cursor.epoch if cursor else 0))
        granted, booked_to = await self._ledger.raise_epoch(shard, before)
        # The first epoch ever has nothing to be brought back.
        awaited = await self._ledger.alive_gateways(self._me) if granted > 1 else ()
        epoch = await self._store.open_shard(shard, granted, booked_to, QUIET_MS, awaited)
        if granted > 1:
            _log.warning(
                "shard %d begins epoch %d: its accounts come back from the ledger", shard, epoch
            )
        self._adopt(shard, await self._store.shard_state(shard))
        return epoch

    def _adopt(self, shard: int, state: ShardState) -> None:
        known = self._known.get(shard)
        if known is None or state.epoch > known.epoch:
            self._known[shard] = state
            if known is not None:
                self._begin_sending(shard, state.epoch)

    def _begin_sending(self, shard: int, epoch: int) -> None:
        before = self._sending.get(shard)
        if before is not None:
            before.cancel()
        task = spawn(self._send_again(shard, epoch), f"send shard {shard} again")
        self._sending[shard] = task
        task.add_done_callback(lambda done: self._sent(shard, done))

    def _sent(self, shard: int, task: asyncio.Task[None]) -> None:
        if self._sending.get(shard) is task:
            del self._sending[shard]

    async def _send_again(self, shard: int, epoch: int) -> None:
        """Send what the ledger has not booked, and then what is open, until all of it is confirmed;
        then say so."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                cursor = (await self._ledger.cursors()).get(shard)
                lost = await self._lost(shard, epoch, cursor.raised_at if cursor else "0-0")
                for first in range(0, len(lost), _SENT_AT_ONCE):
                    if (await self._store.shard_state(shard)).epoch < epoch:
                        # Lost again: this epoch must not begin a second time.
                        raise StoreUnavailable(f"shard {shard} is not open")
                    batch = lost[first : first + _SENT_AT_ONCE]
                    await asyncio.gather(*(self._settle(shard, each) for each in batch))
                held = await self._open_calls.say_again(self._store, shard, epoch)
                if self._me is not None:
                    await self._store.caught_up(shard, epoch, self._me)
                if lost or held:
                    _log.warning(
                        "shard %d: %d settlements were sent again, %d open holds are held again",
                        shard,
                        len(lost),
                        held,
                    )
                return
            except (StoreUnavailable, LedgerUnavailable) as error:
                _log.warning("shard %d: what it has lost waits to be sent: %s", shard, error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _lost(self, shard: int, epoch: int, raised_at: str) -> Sequence[Settlement]:
        """Usually what came after `raised_at`. If even one before it is missing, others wrote on,
        and the ledger booked, past what was lost before anybody noticed: then all of them."""
        newest = self._recent.newest(shard, epoch - 1, raised_at)
        if newest and not await self._store.has_event(shard, newest, is_booked=True):
            raised_at = UNKNOWN.stream_id
        return self._recent.lost(shard, epoch, raised_at)

    async def _settle(self, shard: int, settlement: Settlement) -> None:
        try:
            reply = await (await self._store.settle(settlement))
        except StoreRejected as error:
            _log.error("settlement %s was rejected: %s", settlement.rid, error)
            return
        if reply.code is SettleCode.NOT_READY:
            raise StoreUnavailable(f"shard {shard} is not open")
        if reply.stream_id:
            place = ShardState(reply.epoch, reply.stream_id)
            self._recent.keep(settlement, shard, place)
            self.noted(shard, place)
