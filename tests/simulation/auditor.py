"""Watches what happens at the stores and says what must not be: promises I1, I4, I5 and I9 as calls
come, the others once the world is at rest.

Its own books are kept from what scripts answered, call by call; it reads no counter that it judges.
What Redis has lost counts on as long as anybody alive remembers it, or the ledger has it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.core.event import LedgerRow, ledger_row
from gateway.core.identity import shard_of
from gateway.core.quota.endings import OpenHold
from gateway.core.quota.reserve import ReserveAsk, ReserveCode, ReserveReply
from gateway.core.quota.settle import SettleCode, Settlement, SettleReply
from gateway.core.quota.shard import Shard
from tests.simulation.loop import Process
from tests.simulation.record import Record
from tests.simulation.server import SHARDS, SimServer, script_part

Key = tuple[str, int]


@dataclass
class Held:
    """A hold as it was granted."""

    ask: ReserveAsk
    tokens: int
    epoch: int
    period_ms: int


@dataclass
class Auditor:
    """`broken` has everything that must not be, in words; `excused` what was granted after Redis
    went back and before who had seen the most of it could compare, or the ledger raise its epoch.

    Until then others, who have seen less, find it in order. In the end every figure must be right.
    """

    server: SimServer
    record: Record
    note: Callable[..., None]
    broken: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    granted: dict[str, Held] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    until_ms: dict[str, int] = field(default_factory=dict)
    counted: dict[str, dict[Key, LedgerRow]] = field(default_factory=dict)
    confirmed_to: dict[str, Process | None] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    lost: set[Key] = field(default_factory=set)
    ever_lost: set[str] = field(default_factory=set)
    gone_back: dict[int, int] = field(default_factory=dict)

    def breach(self, what: str, is_excused: bool = False) -> None:
        """Something must not be."""
        (self.excused if is_excused else self.broken).append(what)
        self.note("excused" if is_excused else "BREACH", what)

    def _is_unnoticed(self, payer: str) -> bool:
        """The payer's shard has lost something, and is in the epoch in which it lost that."""
        number = shard_of(payer, SHARDS)
        return self.gone_back.get(number) == self.server.models[number].shard.epoch

    # --- at the server --------------------------------------------------------------------------

    def reserved(self, ask: ReserveAsk, reply: ReserveReply) -> None:
        """A reserve was answered."""
        if reply.code is ReserveCode.HELD:
            held = Held(ask, reply.hold_tokens, reply.epoch, reply.period_start_ms)
            before = self.granted.setdefault(ask.rid, held)
            if before is not held and before.epoch == held.epoch:
                self.breach(f"I4: {ask.rid} is held a second time")
            self.granted[ask.rid] = held
            self.open.add(ask.rid)
            self.until_ms[ask.rid] = self.server.now_ms() + ask.lease_ms
            self._keeps_the_limit(ask, reply)

    def extended(self, rid: str, until_ms: int) -> None:
        """A lease runs longer."""
        self.until_ms[rid] = until_ms

    def held_again(self, rid: str, until_ms: int) -> None:
        """What was open before a loss is open after it."""
        self.open.add(rid)
        self.until_ms[rid] = until_ms

    def settled(self, end: Settlement, reply: SettleReply) -> None:
        """A settlement of any kind was answered."""
        if reply.code in (SettleCode.SETTLED, SettleCode.RELEASED):
            was_open = end.rid in self.open
            self.open.discard(end.rid)
            if reply.code is SettleCode.SETTLED and not was_open:
                self.breach(f"I4: the hold {end.rid} has ended twice")
            over_ms = self.until_ms.get(end.rid, 0) + end.grace_ms
            if end.kind == "expire" and self.server.now_ms() < over_ms:
                self.breach(f"I5: the hold {end.rid} was ended while its lease ran")
        if end.kind != "expire" and (reply.stream_id or reply.code is SettleCode.RELEASED):
            self.told[end.rid] = end.charged_tokens
        if reply.stream_id:
            self._count(end, reply.stream_id)

    def confirmed(
        self, end: Settlement, reply: asyncio.Future[SettleReply], process: Process | None
    ) -> None:
        """A gateway has heard that its settlement is booked, or was."""
        if reply.cancelled() or reply.exception() is not None:
            return
        if reply.result().code is not SettleCode.NOT_READY:
            self.confirmed_to[end.rid] = process

    def restarted(self, before: Sequence[Shard]) -> None:
        """The server has what it has now; all else that only it knew `before` is lost."""
        for number, model in enumerate(self.server.models):
            if model.shard != before[number]:
                self.gone_back[number] = model.shard.epoch
        here: set[str] = set()
        kept: set[Key] = set()
        for number, model in enumerate(self.server.models):
            shard = model.shard
            here |= {rid for (_, rid), each in shard.kept.items() if isinstance(each, OpenHold)}
            for event in shard.events:
                row = ledger_row(number, event.stream_id, event.event_json, script_part(event.part))
                kept.add((row.event_id, row.period_ms))
            self.until_ms |= {rid: at_ms for (_, rid), at_ms in shard.leases.items()}
        self.ever_lost |= self.open - here
        self.open = here
        for of_payer in self.counted.values():
            for key, row in of_payer.items():
                if key not in kept and key not in self.record.rows:
                    self.lost.add(key)
                    self.ever_lost.add(row.event.event_id)

    def _count(self, end: Settlement, stream_id: str) -> None:
        number = shard_of(end.payer, SHARDS)
        event = self.server.models[number].shard.events[-1]
        row = ledger_row(number, stream_id, event.event_json, script_part(event.part))
        key = (row.event_id, row.period_ms)
        if key not in self.record.rows:
            self.counted.setdefault(end.payer, {})[key] = row
        self.lost.discard(key)

    def _keeps_the_limit(self, ask: ReserveAsk, reply: ReserveReply) -> None:
        """I1, from events and grants alone."""
        account = self.server.of(ask.payer).shard.accounts[(ask.payer, None)]
        charged, spent = account.adjusted, Counter[str]()
        for key, row in self.counted.get(ask.payer, {}).items():
            row = self.record.rows.get(key, row)
            if key in self.lost and not self._is_remembered(row.event.event_id):
                continue
            for pack_id, tokens in row.pack_split:
                spent[pack_id] += tokens
            if row.period_ms == reply.period_start_ms:
                charged += row.charged_tokens - row.from_packs
        held = sum(
            each.tokens
            for each in (self.granted[rid] for rid in self.open if rid in self.granted)
            if each.ask.payer == ask.payer and each.epoch == reply.epoch
        )
        credits = self.record.directory.credits.values()
        packs = sum(
            each.tokens - spent[each.pack_id] for each in credits if each.pack_id in account.packs
        )
        room = max(0, ask.limits.tokens - charged) + packs
        if held > room:
            self.breach(
                f"I1: {ask.rid} was granted {reply.hold_tokens} tokens; {ask.payer} holds {held} "
                f"with room for {room} ({charged} of {ask.limits.tokens} used, {packs} in packs)",
                self._is_unnoticed(ask.payer),
            )

    def _is_remembered(self, rid: str) -> bool:
        process = self.confirmed_to.get(rid)
        return process is not None and not process.dead
