"""The simulated Redis: the rules of quota in memory, with a clock, a disk and troubles.

What a script does is `core.quota.model`, which other tests hold to the real scripts; every method
here is one step that nothing comes between. It refuses to know who asks and how the answer travels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.core.event import ScriptPart, format_split, stream_position
from gateway.core.identity import shard_of
from gateway.core.quota.endings import OpenHold
from gateway.core.quota.model import QuotaModel
from gateway.core.quota.projection import Quiet
from gateway.core.quota.settle import LapsedHold
from gateway.core.quota.shard import FIRST_ID, Event, Shard, is_past
from gateway.ports.outbox import OutboxEntry
from gateway.ports.quota_store import ShardState, StoreUnavailable
from tests.simulation.network import Place

SHARDS = 2
Saved = list[Shard]


class SimServer(Place):
    """All shards on one server. `skew_ms`: what its clock is ahead of everybody's."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__(StoreUnavailable, "server-1")
        self._now_ms = now_ms
        self._servers = 1
        self.skew_ms = 0
        self._readers: list[asyncio.Future[None]] = []
        self.models = [QuotaModel() for _ in range(SHARDS)]
        self._skipped: dict[int, str] = {}  # a stream id that no event ever had
        self._trimmed: set[int] = set()

    def now_ms(self) -> int:
        """The server's time, by which leases and periods are judged."""
        return self._now_ms() + self.skew_ms

    def of(self, payer: str) -> QuotaModel:
        return self.models[shard_of(payer, SHARDS)]

    def next_id(self, model: QuotaModel) -> str:
        """The id that the next event gets, as XADD gives it."""
        ms, number = stream_position(model.shard.newest_id)
        now_ms = self.now_ms()
        return f"{now_ms}-0" if now_ms > ms else f"{ms}-{number + 1}"

    async def next_event(self, wait_s: float) -> None:
        """Returns when an event comes, or `wait_s` are over. Where nobody should be told, because
        the server is in trouble, it is the latter."""
        loop = asyncio.get_running_loop()
        comes: asyncio.Future[None] = loop.create_future()
        self._readers.append(comes)
        timer = loop.call_later(wait_s, _come, comes)
        await comes
        timer.cancel()

    def tell_readers(self) -> None:
        """An event has come."""
        readers, self._readers = self._readers, []
        for comes in readers:
            _come(comes)

    # --- what befalls a server ------------------------------------------------------------------

    def saved(self) -> Saved:
        """All that is on its disk now."""
        return [_copy(model.shard) for model in self.models]

    def restart(self, saved: Saved | None, skew_ms: int) -> None:
        """Another process takes over: with everything (None), or with what was saved. What waited
        in the sockets of the old one is lost."""
        self._servers += 1
        self.server_id = f"server-{self._servers}"
        self.skew_ms = skew_ms
        self.frozen = False
        self.waiting.clear()
        if saved is not None:
            for model, shard in zip(self.models, saved, strict=True):
                model.shard = _copy(shard)

    # --- what is read without a script ----------------------------------------------------------

    def state(self, shard: int) -> ShardState:
        found = self.models[shard].shard
        return ShardState(found.epoch, found.newest_id)

    def open_shard(
        self, shard: int, epoch: int, cursor: str, quiet_ms: int, awaited: Sequence[str]
    ) -> int:
        quiet = Quiet(self.now_ms() + quiet_ms, tuple(awaited)) if awaited else Quiet()
        found = self.models[shard].shard
        before = found.newest_id
        in_force = self.models[shard].open_shard(epoch, cursor, quiet)
        if found.newest_id != before:
            self._skipped[shard] = cursor
        return in_force

    def has_event(self, shard: int, stream_id: str, is_booked: bool) -> bool:
        """Or had it, until it was trimmed, or went past it when an epoch began."""
        ids = [event.stream_id for event in self.models[shard].shard.events]
        if stream_id in ids or not is_booked:
            return stream_id in ids
        if not is_past(stream_id, self._skipped.get(shard, FIRST_ID)):
            return True
        return shard in self._trimmed and (not ids or is_past(ids[0], stream_id))

    def known(self, calls: Sequence[tuple[str, str]]) -> list[bool]:
        return [call in self.of(call[0]).shard.kept for call in calls]

    def read(self, cursors: dict[int, str], rows_max: int) -> list[OutboxEntry]:
        found: list[OutboxEntry] = []
        for number, cursor in cursors.items():
            shard = self.models[number].shard
            if shard.events and is_past(shard.events[-1].stream_id, cursor):
                past = [each for each in shard.events if is_past(each.stream_id, cursor)]
                found += [_entry(number, each) for each in past[:rows_max]]
        return found

    def at(self, cursors: dict[int, str]) -> list[OutboxEntry]:
        return [
            _entry(number, each)
            for number, cursor in cursors.items()
            for each in self.models[number].shard.events
            if each.stream_id == cursor
        ]

    def trim(self, shard: int, before_id: str, cursor: str) -> None:
        oldest = min(before_id, cursor, key=stream_position)
        found = self.models[shard].shard
        kept = [each for each in found.events if not is_past(oldest, each.stream_id)]
        if len(kept) < len(found.events):
            self._trimmed.add(shard)
        found.events = kept

    def lapsed(self, number: int, grace_ms: int, rows_max: int) -> list[LapsedHold]:
        """Holds whose lease and grace are over. An account goes by its payer's name here."""
        model, now_ms = self.models[number], self.now_ms()
        model.forget_endings(now_ms)
        shard = model.shard
        due = [call for call, at_ms in shard.leases.items() if at_ms <= now_ms - grace_ms]
        found = []
        for payer, rid in sorted(due, key=lambda call: (shard.leases[call], call))[:rows_max]:
            hold = shard.kept.get((payer, rid))
            if not isinstance(hold, OpenHold):
                raise AssertionError(f"a lease without a hold: {rid} is {hold}")
            found.append(
                LapsedHold(
                    rid, payer, number, shard.epoch, hold.tokens, hold.progress_tokens,
                    hold.period_ms, hold.tail,
                )
            )  # fmt: skip
        return found


def _come(comes: asyncio.Future[None]) -> None:
    if not comes.done():
        comes.set_result(None)


def _entry(shard: int, event: Event) -> OutboxEntry:
    return OutboxEntry(shard, event.stream_id, event.event_json, script_part(event.part))


def script_part(part: ScriptPart) -> bytes:
    """Field `b` of an outbox entry, as the script writes it."""
    numbers = (
        part.epoch, part.account_seq, part.period_ms, part.held_tokens, part.from_allowance,
        part.from_packs, part.overdraft_tokens, part.booked_tokens, part.booked_nano_gbp,
        part.is_correction, part.tier_period_start_ms, part.crossed_percent,
    )  # fmt: skip
    return " ".join([*map(str, numbers), format_split(part.pack_split)]).encode()


def _copy(shard: Shard) -> Shard:
    """A shard of its own: only accounts and containers ever change in place."""
    return replace(
        shard,
        accounts={
            name: replace(account, packs=dict(account.packs))
            for name, account in shard.accounts.items()
        },
        kept=dict(shard.kept),
        leases=dict(shard.leases),
        forget_at=dict(shard.forget_at),
        events=list(shard.events),
    )
