"""Random histories: each step is told to the scripts and to the model, and both must agree.

After every step everything that the server keeps is what the model keeps, and sums that neither of
them makes hold: what is held is the sum of the open holds, figures are the sums of events, packs
have what was granted less what they paid. A run is the same each time; QUOTA_HISTORIES=5000 runs
that many others, and a failure prints its steps.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from msgspec import structs

from gateway.adapters.redis_store.scripts import lua_folder
from gateway.core.event import LedgerRow
from gateway.core.quota.endings import OpenHold
from gateway.core.quota.entitle import EntitleCode, Entitlement, FinishCode, Hydration, LedgerSums
from gateway.core.quota.model import QuotaModel
from gateway.core.quota.packs import left_in
from gateway.core.quota.projection import Quiet
from gateway.core.quota.reassert import OpenCall, ReassertCode
from gateway.core.quota.reserve import Limits, ReserveAsk, ReserveCode
from gateway.core.quota.settle import (
    SettleCode,
    SettleKind,
    Settlement,
    SettleReply,
    correction_of,
)
from gateway.core.quota.shard import Call, Name, Shard
from gateway.core.quota.shares import ShareAsk, ShareReply
from tests.lua import history_limits as rules
from tests.lua.history_ledger import DAY_MS, HistoryLedger, belongs, figures, spent_of_packs
from tests.lua.history_server import HistoryServer, at_once
from tests.lua.history_steps import (
    BEGIN_MS,
    GRACE_MS,
    LEASE_MS,
    MONTH_MS,
    NAMES,
    OPEN_PICKS,
    QUIET_MS,
    TIER,
    Amounts,
    Known,
    Step,
    event_json,
    steps,
)


class Histories(RuleBasedStateMachine):
    """Payers, a team and its members through calls, months, losses and late calls."""

    def __init__(self, server: HistoryServer) -> None:
        super().__init__()
        self.server, self.model, self.ledger = server, QuotaModel(), HistoryLedger()
        self.latest_ms = server.now_ms = BEGIN_MS
        server.lose_everything()
        self.numbers, self.rounds = count(1), 2
        self.calls: list[Known] = []
        self.open: dict[Call, Known] = {}
        self.hydrations: list[tuple[Name, Hydration, LedgerSums]] = []
        self.told: list[tuple[Entitlement, int]] = []
        self.doubles: list[tuple[LedgerRow, bool]] = []  # and whether it was taken back
        self.granted: ReserveAsk | None = None
        self.calendar_moved = False
        self.taken_from: set[tuple[str, str]] = set()  # packs that lost what was left of them

    @property
    def now_ms(self) -> int:
        return self.server.now_ms

    @property
    def shard(self) -> Shard:
        return self.model.shard

    def period(self, months: int = 0, moved_ms: int = 0) -> tuple[int, int]:
        """The borders of the running period by the gateways' clock, which never goes back."""
        starts = self.latest_ms - (self.latest_ms - moved_ms) % MONTH_MS + months * MONTH_MS
        return starts, starts + MONTH_MS

    def known(self, pick: int) -> Known:
        """One of the calls: mostly one that is open, or little would happen."""
        calls = self.calls if pick > OPEN_PICKS or not self.open else [*self.open.values()]
        return calls[-1 - pick % len(calls)]

    @initialize()
    def all_is_there(self) -> None:
        self.opens([])
        for payer in ("ann", "team"):
            self.ledger.grant(payer, 6, self.now_ms + 20 * DAY_MS)
            self.ledger.grant(payer, 30, self.now_ms + 50 * DAY_MS)
        self.brings(NAMES)

    @rule(step=steps)
    def happens(self, step: Step) -> None:
        """One rule with weights: calls are what there is most of."""
        name, arguments = step
        getattr(self, name)(**arguments)

    # --- calls ----------------------------------------------------------------------------------

    def reserves(self, name: Name, wants: Amounts, limits: Limits, wrong: str) -> None:
        self.asks(self.ask(name, wants, limits, wrong))

    def only_asks(self, name: Name, wants: Amounts, limits: Limits) -> None:
        ask = structs.replace(self.ask(name, wants, limits, ""), lease_ms=0)
        assert at_once(self.server.store.reserve(ask)) == self.model.reserve(ask, self.now_ms)

    def ask(self, name: Name, wants: Amounts, limits: Limits, wrong: str) -> ReserveAsk:
        payer, member = name
        least, wanted = sorted(wants.outputs)
        starts, ends = self.period(
            {"last": -1, "next": 1}.get(wrong, 0), MONTH_MS // 2 if wrong == "moved" else 0
        )
        rid = f"01a0b1c2-d3e4-7f00-8000-{next(self.numbers):012d}"
        rev = self.ledger.rev(name) - (wrong == "rev")
        ask = ReserveAsk(
            rid=rid, payer=payer, tier=TIER, rev=max(0, self.ledger.rev((payer, None))),
            period_start_ms=starts, period_end_ms=ends,
            limits=limits, prompt_tokens=wants.prompt, output_wanted=wanted, output_least=least,
            choices=wants.choices, lease_ms=LEASE_MS, tail=b'{"note":"with spaces"}',
            prompt_nano_gbp=wants.prices[0], output_nano_gbp=wants.prices[1],
            member=member, member_rev=max(0, rev),
        )  # fmt: skip
        if member is None:
            ask = structs.replace(ask, rev=max(0, rev), member_rev=0)
        return ask

    def asks(self, ask: ReserveAsk) -> None:
        reply = at_once(self.server.store.reserve(ask))
        assert reply == self.model.reserve(ask, self.now_ms)
        known = Known(ask, reply.epoch, self.oldest_period(ask))
        if reply.code is ReserveCode.HELD:
            known = replace(known, period_ms=reply.period_start_ms, held_epoch=reply.epoch)
            self.granted, self.open[known.call] = ask, known
            self.calendar_moved |= (reply.period_start_ms - BEGIN_MS) % MONTH_MS != 0
            self.calls = [other for other in self.calls if other.call != known.call]
        if all(known.call != other.call for other in self.calls):
            self.calls.append(known)

    def oldest_period(self, ask: ReserveAsk) -> int:
        """A period that may be charged by a call that was never held."""
        accounts = (self.shard.in_force(ask.payer, member) for member in (None, ask.member))
        starts = [account.starts_ms for account in accounts if account]
        return min(starts, default=self.period()[0])

    def asks_for_all_there_is(self, name: Name) -> None:
        """One token more than there is room for, and then not one more."""
        account = self.shard.usable(*name)
        if account is not None:
            packs = left_in(account.packs, self.now_ms)
            room = max(0, 40 - account.used) + packs - account.held
            for least in (max(0, room) + 1, max(0, room)):
                self.reserves(name, Amounts(0, (least, least), 1, (0, 0)), Limits(40), "")

    def asks_while_time_goes_back(self, name: Name, wants: Amounts) -> None:
        for ms in (-900, 0, 900, 1):
            self.reserves(name, wants, Limits(500, requests_a_minute=3, tokens_a_minute=40), "")
            self.time_passes(ms)

    def asks_again(self, pick: int) -> None:
        if self.calls:
            self.asks(self.known(pick).ask)

    def ends(self, pick: int, kind: SettleKind, charge: int, wrong: str) -> None:
        if self.calls:
            self.calls_end(self.known(pick), kind, charge, wrong)

    def calls_end(self, known: Known, kind: SettleKind, charge: int, wrong: str) -> None:
        epoch = known.epoch + {"older": -1, "newer": 1}.get(wrong, 0)
        period_ms = known.period_ms
        if wrong == "period" and self.shard.open_hold(known.call):
            period_ms -= MONTH_MS  # an open hold knows its own better
        settlement = Settlement(
            rid=known.ask.rid, payer=known.ask.payer, kind=kind, epoch=max(0, epoch),
            period_start_ms=period_ms, charged_tokens=charge, cost_nano_gbp=2 * charge,
            event_json=event_json(known, charge), tier=TIER, member=known.ask.member,
            tier_period_start_ms=known.ask.limits.tier_period_start_ms,
            limit_tokens=known.ask.limits.tokens,
            thresholds_percent=(50, 100) if wrong == "thresholds" else (50, 80, 100),
            grace_ms=GRACE_MS,
        )  # fmt: skip
        self.settles(known, settlement)

    def ends_unheld(self, pick: int, charge: int, times: int) -> None:
        """A call that went out while the server was away: nothing was held for it."""
        if not self.calls:
            return
        rid = f"01a0b1c2-d3e4-7f00-8000-{next(self.numbers):012d}"
        ask, (starts, ends) = structs.replace(self.known(pick).ask, rid=rid), self.period()
        known = Known(ask, 0, starts)
        settlement = Settlement(
            rid=rid, payer=ask.payer, kind="settle", epoch=0, period_start_ms=starts,
            charged_tokens=charge, cost_nano_gbp=2 * charge, event_json=event_json(known, charge),
            tier=TIER, member=ask.member, limit_tokens=ask.limits.tokens, period_end_ms=ends,
        )  # fmt: skip
        for _ in range(times):
            self.settles(known, settlement)

    def settles(self, known: Known, settlement: Settlement) -> None:
        events = len(self.shard.events)
        reply: SettleReply = at_once(self.server.store.settle(settlement)).result()
        assert reply == self.model.settle(settlement, self.now_ms, reply.stream_id)
        assert len(self.shard.events) == events + bool(reply.stream_id)
        if reply.code is SettleCode.SETTLED:
            assert self.open.pop(known.call, None), "a hold has ended twice"
        elif reply.code is SettleCode.RELEASED:
            self.open.pop(known.call, None)

    def lapses(self, pick: int, charge: int) -> None:
        """The sweeper comes when a lease is over, to the millisecond."""
        if not self.open:
            return
        known = list(self.open.values())[pick % len(self.open)]
        due_ms = self.shard.leases[known.call] + GRACE_MS
        self.to(due_ms - 1)
        self.expires(known, charge)
        self.to(due_ms)
        self.expires(known, charge)

    def expires(self, known: Known, charge: int) -> None:
        settlement = Settlement(
            rid=known.ask.rid, payer=known.ask.payer, kind="expire", epoch=self.shard.epoch,
            period_start_ms=known.period_ms, charged_tokens=charge, cost_nano_gbp=2 * charge,
            event_json=event_json(known, charge), tier=TIER, member=known.ask.member,
            tier_period_start_ms=known.ask.limits.tier_period_start_ms,
            limit_tokens=known.ask.limits.tokens, thresholds_percent=(50, 80, 100),
            grace_ms=GRACE_MS,
        )  # fmt: skip
        self.settles(known, settlement)

    def extends(self, pick: int, progress: int, lease_ms: int) -> None:
        if not self.calls:
            return
        call = self.known(pick).call
        for reached in (progress, progress // 2):  # heartbeats may overtake each other
            found = self.server.extend(call, reached, lease_ms)
            assert found == self.model.extend(call, reached, self.now_ms + lease_ms)
            assert found == (call in self.open)

    def asserts_again(self, pick: int, progress: int, wrong: str) -> None:
        if self.calls:
            self.asserts(self.known(pick), progress, wrong)

    def asserts(self, known: Known, progress: int = 0, wrong: str = "") -> None:
        """A gateway says what it has open, whatever may have become of it."""
        ask, epoch = known.ask, known.epoch + {"older": -1, "newer": 1}.get(wrong, 0)
        output = ask.output_wanted
        told = OpenCall(
            ask.rid, ask.payer, TIER, max(0, epoch), known.period_ms, output,
            ask.prompt_tokens + output * ask.choices, 3 * output, progress, LEASE_MS, ask.tail,
            ask.member, ask.limits.tier_period_start_ms,
        )  # fmt: skip
        reply = at_once(self.server.store.reassert(told))
        assert (reply.code, reply.now_ms) == (self.model.reassert(told, self.now_ms), self.now_ms)
        if reply.code is ReassertCode.HELD:
            self.open[known.call] = replace(known, held_epoch=self.shard.epoch)

    # --- time -----------------------------------------------------------------------------------

    def to(self, now_ms: int) -> None:
        self.server.now_ms = now_ms
        self.latest_ms = max(self.latest_ms, now_ms)

    def time_passes(self, ms: int) -> None:
        self.to(self.now_ms + ms)

    def a_month_ends(self, early_ms: int, months: int) -> None:
        self.to(max(self.now_ms, self.period(months)[1] - early_ms))

    def endings_are_forgotten(self) -> None:
        self.server.forget_endings()
        self.model.forget_endings(self.now_ms)

    # --- what the ledger says -------------------------------------------------------------------

    def the_ledger_changes(
        self, name: Name, change: str, amount: int, days: int, is_projected: bool
    ) -> None:
        if change == "adjust":
            self.ledger.adjust(name, self.period()[0], amount)
        elif change == "grant" and name[1] is None:
            self.ledger.grant(name[0], abs(amount), self.now_ms + days * DAY_MS + 1)
        elif change == "refund":
            self.ledger.refund(name[0], amount)
        starts, ends = self.period()
        self.told.append((self.ledger.entitlement(name, starts, self.now_ms), ends))
        if is_projected:
            self.projects(0, wrong="")

    def projects(self, pick: int, wrong: str) -> None:
        if not self.told:
            return
        told, ends = self.told[-1 - pick % len(self.told)]
        by_ms = {"next": MONTH_MS, "last": -MONTH_MS, "moved": -MONTH_MS // 2}.get(wrong, 0)
        told, ends = replace(told, period_start_ms=told.period_start_ms + by_ms), ends + by_ms
        reply = at_once(self.server.store.entitle(told, ends))
        assert reply == self.model.entitle(told, ends, self.now_ms)
        self.calendar_moved |= wrong == "moved"
        if reply.code is EntitleCode.PROJECTED:
            self.taken_from |= {
                (told.payer, each.pack_id) for each in told.packs if not each.tokens
            }

    def begins(self, name: Name) -> None:
        """A gateway begins to bring an account back, and reads the ledger once it is drained."""
        period = self.period()
        found = at_once(self.server.store.hydrate_begin(*name, *period))
        assert found == self.model.hydrate_begin(*name, period, self.now_ms)
        if found and not found.ready:
            self.drains()
            self.hydrations.append((name, found, self.read(name, found)))

    def brings(self, wanted: Sequence[Name], is_overtaken: bool = False) -> None:
        """What gateways do as soon as an account is missing; a revision may come in between."""
        for name in wanted:
            if self.shard.usable(*name) is None:
                self.begins(name)
                if is_overtaken:
                    self.the_ledger_changes(name, "adjust", 7, 0, is_projected=True)
                    self.finishes(0, reads_again=False)
                self.finishes(0, reads_again=True)

    def read(self, name: Name, found: Hydration) -> LedgerSums:
        return self.ledger.sums(name, found.period_start_ms, found.stream_id, self.now_ms)

    def finishes(self, pick: int, reads_again: bool) -> None:
        if not self.hydrations:
            return
        name, found, sums = self.hydrations[-1 - pick % len(self.hydrations)]
        if reads_again:
            sums = self.read(name, found)
        code = at_once(self.server.store.hydrate_finish(*name, found, sums))
        assert code == self.model.hydrate_finish(*name, found.token, sums)
        if code is FinishCode.FINISHED and name[1] is None:
            grants = self.ledger.grants.get(name[0], {})
            refunded = {(name[0], pack_id) for pack_id in grants if grants[pack_id].is_refunded}
            self.taken_from = {each for each in self.taken_from if each[0] != name[0]} | refunded

    def drains(self) -> None:
        """What Redis counted twice is taken back before its second event is passed by."""
        for row in self.ledger.book(self.server.rows_past(self.ledger.cursor)):
            self.doubles.append((row, self.takes_back(row)))

    def takes_back_again(self, pick: int) -> None:
        if not self.doubles:
            return
        row, was_done = self.doubles[-1 - pick % len(self.doubles)]
        if not was_done or (row.event.payer, correction_of(row).rid) in self.shard.kept:
            assert not self.takes_back(row)

    def takes_back(self, row: LedgerRow) -> bool:
        correction = correction_of(row)
        done = at_once(self.server.store.correct(correction))
        assert done == self.model.correct(correction, self.now_ms)
        return bool(done)

    # --- losses ---------------------------------------------------------------------------------

    def opens(self, awaited: list[str]) -> None:
        """A gateway raises the epoch, in the ledger first."""
        self.ledger.epoch += 1
        self.tells_open(self.ledger.epoch, awaited)

    def opens_too_late(self, behind: int) -> None:
        if self.shard.epoch:
            self.tells_open(max(1, self.shard.epoch - behind), ["g3"])

    def tells_open(self, epoch: int, awaited: list[str]) -> None:
        cursor = self.ledger.cursor
        found = at_once(self.server.store.open_shard(0, epoch, cursor, QUIET_MS, awaited))
        quiet = Quiet(self.now_ms + QUIET_MS, tuple(awaited)) if awaited else Quiet()
        assert found == self.model.open_shard(epoch, cursor, quiet)

    def has_caught_up(self, gateway_id: str, behind: int) -> None:
        epoch = self.shard.epoch - behind
        at_once(self.server.store.caught_up(0, epoch, gateway_id))
        self.model.caught_up(epoch, gateway_id)

    def is_lost(self, how: str, awaited: list[str], brings: str) -> None:
        """The server went back in time, or has lost everything; mostly somebody sees it soon."""
        lost = list(self.open.values())
        if how == "all drained":
            self.drains()
        if how != "epoch":
            self.server.lose_everything()
            self.model, self.open = QuotaModel(), {}
        if how != "unopened":
            self.opens(awaited)
        if brings == "after a repetition" and self.calls:
            self.calls_end(self.calls[-1], "settle", 5, "older")
        if brings == "with what is open":
            for known in lost:
                for name in {(known.ask.payer, None), (known.ask.payer, known.ask.member)}:
                    self.begins(name)
                self.asserts(known)
        if brings:
            self.brings(NAMES, is_overtaken=brings == "overtaken")

    def forgets(self, name: Name) -> None:
        done = at_once(self.server.store.forget(self.server.digest(name), 0))
        assert done == self.model.forget(*name, self.now_ms)

    def a_share_is_handed_out(self, share: int, wrong: str) -> None:
        """A round as the jobs make it: look, count what earlier epochs settled, give."""
        self.rounds += 1
        period_ms = BEGIN_MS + (self.now_ms >= BEGIN_MS + MONTH_MS) * MONTH_MS
        ask = ShareAsk(TIER, 0, self.rounds, period_ms)
        if wrong in ("round", "period"):
            back = {"round": {"round": self.rounds - 2}, "period": {"period_start_ms": BEGIN_MS}}
            ask = structs.replace(ask, **back[wrong])
        found = self.shares(ask)
        if found.code.value <= 0 or wrong == "looks":
            return
        ask = structs.replace(ask, epoch=found.epoch - (wrong == "epoch"))
        if wrong != "unread":
            self.drains()
            earlier = self.ledger.settled_before(found.epoch, ask.period_start_ms)
            ask = structs.replace(ask, earlier_tokens=earlier)
        self.shares(structs.replace(ask, wanted_tokens=share, free_tokens=share // 4))

    def shares(self, ask: ShareAsk) -> ShareReply:
        found: ShareReply = at_once(self.server.shares.share(ask))
        assert found == self.model.share(ask, self.now_ms, found.stream_id)
        return found

    def looks(self, name: Name) -> None:
        assert at_once(self.server.store.snapshot(*name)) == self.model.snapshot(*name)

    # --- what must be true after every step -----------------------------------------------------

    @invariant()
    def the_server_keeps_what_the_model_keeps(self) -> None:
        seen = self.server.read([TIER])
        seen.newest_id = self.shard.newest_id  # the tokens of hydrations tell it
        assert seen == self.shard
        holds = {call for call, kept in seen.kept.items() if isinstance(kept, OpenHold)}
        assert holds == seen.leases.keys() == self.open.keys()
        assert seen.forget_at.keys() == seen.kept.keys() - holds
        rows = [*self.ledger.rows.values(), *self.server.rows_past(self.ledger.cursor)]
        for name in NAMES:
            if seen.usable(*name):
                rules.assert_held_is_the_sum_of_holds(seen, name, self.open)
                self.figures_are_sums_of_events(seen, name, rows)
        rules.assert_tier_is_the_sum_of_events(seen, rows)
        if self.granted:
            rules.assert_every_limit_kept(seen, self.granted, self.now_ms)
            self.granted = None

    def figures_are_sums_of_events(
        self, seen: Shard, name: Name, rows: Sequence[LedgerRow]
    ) -> None:
        account = seen.accounts[name]
        if not self.calendar_moved:  # else a period may have been left and come back to
            of_period = [row for row in rows if belongs(row, name, account.starts_ms)]
            counted = (account.settled, account.from_packs, account.spent_nano_gbp)
            assert counted == figures(of_period, name)
        spent = spent_of_packs(row for row in rows if row.event.payer == name[0])
        for pack_id, pack in account.packs.items():
            if (name[0], pack_id) not in self.taken_from:
                granted = self.ledger.grants[name[0]][pack_id].tokens
                assert pack.tokens + spent.get(pack_id, 0) == granted


@pytest.mark.timeout(0)
def test_the_scripts_and_the_model_agree_on_any_history(redis_url: str) -> None:
    wanted = os.environ.get("QUOTA_HISTORIES")
    folder = Path(os.environ.get("QUOTA_HISTORIES_LUA", lua_folder()))
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        server = HistoryServer(client, folder, NAMES)

        class HistoriesHere(Histories):
            def __init__(self) -> None:
                super().__init__(server)

        run_state_machine_as_test(
            HistoriesHere,
            settings=settings(
                max_examples=int(wanted or 90), stateful_step_count=50, deadline=None,
                derandomize=wanted is None, database=None, print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
