"""Holds in any order, often and too late: the figures stay those of a model that is obvious.

It knows one account without packs, and one limit. The model keeps one fate a rid. After every step
the account, the holds, the leases and the events on the server must say what the fates say.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.lua.script_calls import DAY_MS, GRACE_MS, LEASE_MS, NOW_MS, Lua

MONTH_MS = 30 * DAY_MS
LIMIT = 1_000
which = st.integers(0, 4)
amounts = st.integers(0, 150)
charges = st.integers(0, 600)


@dataclass
class Fate:
    """What became of a hold: open, expired, orphaned or lost (with its epoch), released, booked
    (with a mark that tells so), or ended."""

    state: str
    hold: int
    epoch: int
    period: int
    charged: int = 0


class Life(RuleBasedStateMachine):
    """One account through holds, charges, repetitions, months and lost epochs."""

    def __init__(self, lua: Lua) -> None:
        super().__init__()
        self.lua = lua
        self.lua.client.flushdb()
        self.now_ms, self.epoch = NOW_MS, 1
        self.fates: dict[str, Fate] = {}
        self.rids = (f"01a0b1c2-d3e4-7f00-8000-{number:012d}" for number in count())
        self.in_force = NOW_MS - NOW_MS % MONTH_MS  # the period the account is in
        self.bring()

    @property
    def period(self) -> int:
        return self.now_ms - self.now_ms % MONTH_MS

    def charged(self, period: int) -> int:
        return sum(fate.charged for fate in self.fates.values() if fate.period == period)

    def held(self) -> int:
        return sum(fate.hold for fate in self.fates.values() if fate.state == "open")

    def bring(self) -> None:
        """A new epoch: the account comes back from the ledger, which here is the model."""
        self.lua.open(self.epoch)
        borders = {"starts": self.period, "ends": self.period + MONTH_MS}
        token = self.lua.hydrate("begin", now=self.now_ms, **borders).token
        used = self.charged(self.period)
        assert self.lua.hydrate("finish", token=token, settled=used, now=self.now_ms).code == 3
        self.in_force = self.period

    def known(self, number: int) -> tuple[str, Fate]:
        """One of the holds; those that have not ended come first, or little would happen."""
        ranked = sorted(self.fates.items(), key=lambda item: item[1].state == "ended")
        return ranked[number % len(ranked)]

    @rule(prompt=amounts, outputs=st.tuples(amounts, amounts), choices=st.integers(1, 3))
    def reserve(self, prompt: int, outputs: tuple[int, int], choices: int) -> None:
        rid, (least, wanted) = next(self.rids), sorted(outputs)
        reply = self.lua.reserve(
            rid, prompt=prompt, wanted=wanted, least=least, choices=choices, limit=LIMIT,
            starts=self.period, ends=self.period + MONTH_MS, now=self.now_ms,
        )  # fmt: skip
        left = max(0, LIMIT - self.charged(self.period))
        room, needed = left - self.held(), prompt + least * choices
        if needed > room:
            assert reply.code == (-10 if needed > left else -11)
            return
        hold = prompt + choices * min(wanted, (room - prompt) // choices)
        assert (reply.code, reply.hold) == (1, hold)
        assert hold == 0 or reply.used + reply.held <= LIMIT  # nothing fits even where all is used
        self.in_force = self.period
        self.fates[rid] = Fate("open", hold, self.epoch, self.period)

    @precondition(lambda self: self.fates)
    @rule(number=which)
    def ask_again(self, number: int) -> None:
        rid, fate = self.known(number)
        if fate.state not in ("ended", "lost"):  # of no other it is known that it was
            assert self.lua.reserve(rid, now=self.now_ms).code == (
                2 if fate.state == "open" else -5
            )

    @precondition(lambda self: self.fates)
    @rule(number=which, charge=charges)
    def settle(self, number: int, charge: int) -> None:
        rid, fate = self.known(number)
        if fate.state == "ended" and fate.epoch < self.epoch:
            return  # its gateway had the reply; after a loss nobody else could tell
        reply = self.lua.settle(
            rid, charge=charge, epoch=fate.epoch, period=fate.period, now=self.now_ms
        )
        codes = {"open": 1, "orphaned": 1, "expired": 2, "lost": 3}
        assert reply.code == codes.get(fate.state, 0)
        if reply.code:
            over = 0 if fate.state == "lost" else max(0, charge - fate.hold)
            over -= max(0, fate.charged - fate.hold)
            assert reply.overdraft == over
            fate.charged = charge
            fate.state = "booked" if fate.epoch < self.epoch else "ended"

    @precondition(lambda self: self.fates)
    @rule(number=which)
    def release(self, number: int) -> None:
        rid, fate = self.known(number)
        changes = {"charge": 0, "epoch": fate.epoch, "period": fate.period, "now": self.now_ms}
        reply = self.lua.settle(rid, kind="release", **changes)
        assert reply.code == (2 if fate.state == "expired" else 4)
        if fate.state == "expired":
            fate.charged, fate.state = 0, "booked"
        elif fate.state != "booked":
            fate.state = "released"

    @precondition(lambda self: self.fates)
    @rule(number=which, charge=charges, early_ms=st.sampled_from([0, 1, LEASE_MS]))
    def expire(self, number: int, charge: int, early_ms: int) -> None:
        rid, fate = self.known(number)
        lease = self.lua.lease(rid) or 0
        self.now_ms = max(self.now_ms, int(lease) + GRACE_MS - early_ms)
        reply = self.lua.settle(rid, kind="expire", charge=charge, now=self.now_ms,
                                epoch=self.epoch, period=fate.period)  # fmt: skip
        over = lease + GRACE_MS <= self.now_ms
        is_open = fate.state in ("open", "orphaned")
        assert reply.code == ((1 if over else 5) if is_open else 0)
        if reply.code == 1:
            fate.state, fate.charged = "expired", charge

    @precondition(lambda self: self.fates)
    @rule(number=which, progress=amounts)
    def extend(self, number: int, progress: int) -> None:
        rid, fate = self.known(number)
        before = self.progress(rid)
        found = self.lua.extend(rid, progress=progress, lease=LEASE_MS)[0]
        assert found == (fate.state in ("open", "orphaned"))
        assert self.progress(rid) == (max(before, progress) if found else before)

    def progress(self, rid: str) -> int:
        hold = self.lua.hold(rid) or ""
        return int(hold.split(" ")[6]) if hold[:2] in ("h ", "o ") else 0

    @rule(ms=st.sampled_from([1, DAY_MS, MONTH_MS]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @precondition(lambda self: self.epoch < 4)
    @rule(with_holds=st.booleans())
    def an_epoch_is_lost(self, with_holds: bool) -> None:
        self.epoch += 1
        for rid, fate in self.fates.items():
            if fate.state in ("open", "orphaned"):
                fate.state = "lost" if with_holds else "orphaned"
                if with_holds:
                    self.lua.client.hdel(self.lua.keys.holds, rid)
                    self.lua.client.zrem(self.lua.keys.of_shard.leases, self.lua.keys.member(rid))
        self.bring()

    @invariant()
    def the_server_says_what_the_fates_say(self) -> None:
        open_rids = {rid for rid, fate in self.fates.items() if fate.state == "open"}
        used, held, holds = self.lua.account("s", "h", "n")
        assert (used, held, holds) == (self.charged(self.in_force), self.held(), len(open_rids))
        first = {"open": "h", "orphaned": "o", "expired": "x", "released": "v", "booked": "d"}
        for rid, fate in self.fates.items():
            assert (self.lua.hold(rid) or " ")[0] == first.get(fate.state, " ")
            is_leased = self.lua.lease(rid) is not None
            assert is_leased == (fate.state in ("open", "orphaned"))
            assert (self.lua.kept_until(rid) is not None) == (
                fate.state in ("expired", "released", "booked")
            )

    @invariant()
    def the_period_before_keeps_its_figures(self) -> None:
        starts, used, _ = self.lua.last_period()
        assert starts == 0 or used == self.charged(starts)

    @invariant()
    def each_charge_is_in_the_outbox_once(self) -> None:
        rows = self.lua.rows()
        booked = dict.fromkeys(self.fates, 0)
        for row in rows:
            booked[row.corrects or row.event_id] += row.charged_tokens
        assert booked == {rid: fate.charged for rid, fate in self.fates.items()}
        assert len({row.event_id for row in rows}) == len(rows)
        for epoch in range(1, self.epoch + 1):
            numbers = [row.account_seq for row in rows if row.epoch == epoch]
            assert numbers == list(range(1, len(numbers) + 1))


def test_in_any_order_the_figures_are_those_of_the_model(lua: Lua) -> None:
    class LifeHere(Life):
        def __init__(self) -> None:
            super().__init__(lua)

    run_state_machine_as_test(
        LifeHere, settings=settings(max_examples=50, stateful_step_count=40, deadline=None)
    )
