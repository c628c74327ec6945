"""The rules of quota by example: one small history a rule, with figures one can add up.

That the scripts keep the same rules is held against them by random histories; here each rule is
shown once, with its reason.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from gateway.core.quota.account import Account
from gateway.core.quota.entitle import (
    EntitleCode,
    Entitlement,
    FinishCode,
    LedgerSums,
    Pack,
)
from gateway.core.quota.limits import Bound, most_output
from gateway.core.quota.minute import EMPTY
from gateway.core.quota.model import QuotaModel
from gateway.core.quota.packs import by_end, give_back, merge, spend, undo
from gateway.core.quota.projection import Quiet
from gateway.core.quota.reserve import Limits, ReserveAsk, ReserveCode
from gateway.core.quota.settle import Correction, SettleCode, Settlement
from gateway.core.quota.shard import is_past
from gateway.core.quota.shares import ShareAsk, ShareCode

DAY_MS = 86_400_000
STARTS_MS, ENDS_MS = 30 * DAY_MS, 60 * DAY_MS
NOW_MS = 40 * DAY_MS
NO_SUMS = LedgerSums(0, 0, 0, 0, 0)
ASK = ReserveAsk(
    rid="r1", payer="ann", tier="full", rev=0, period_start_ms=STARTS_MS, period_end_ms=ENDS_MS,
    limits=Limits(1_000), prompt_tokens=100, output_wanted=50, output_least=10, choices=1,
    lease_ms=60_000, tail=b"{}",
)  # fmt: skip
END = Settlement(
    rid="r1", payer="ann", kind="settle", epoch=1, period_start_ms=STARTS_MS, charged_tokens=120,
    cost_nano_gbp=7, event_json=b"{}", tier="full", limit_tokens=1_000,
    thresholds_percent=(50, 100), grace_ms=10,
)  # fmt: skip


class Shown(QuotaModel):
    """A model with ann's account in it, which counts its events by itself."""

    def __init__(self, **sums: Any) -> None:
        super().__init__()
        self.open_shard(1, "0-0", Quiet())
        self.bring("ann", **sums)

    def bring(self, payer: str, member: str | None = None, **sums: Any) -> None:
        begun = self.hydrate_begin(payer, member, (STARTS_MS, ENDS_MS), NOW_MS)
        assert begun is not None
        told = replace(NO_SUMS, **sums)
        assert self.hydrate_finish(payer, member, begun.token, told) is FinishCode.FINISHED

    def hold(self, now_ms: int = NOW_MS, **changes: Any) -> ReserveCode:
        return self.reserve(structs.replace(ASK, **changes), now_ms).code

    def end(self, now_ms: int = NOW_MS, **changes: Any) -> SettleCode:
        return self.settle(structs.replace(END, **changes), now_ms, self.next_id()).code

    def next_id(self) -> str:
        return f"5-{len(self.shard.events)}"

    @property
    def ann(self) -> Account:
        return self.shard.accounts[("ann", None)]


def test_a_hold_is_the_prompt_and_the_cap_of_every_choice() -> None:
    model = Shown()
    reply = model.reserve(structs.replace(ASK, choices=3), NOW_MS)
    assert (reply.code, reply.output_tokens, reply.hold_tokens) == (ReserveCode.HELD, 50, 250)
    assert (model.ann.held, model.ann.open_holds) == (250, 1)
    assert model.hold() is ReserveCode.HELD_BEFORE
    assert model.ann.open_holds == 1


def test_the_cap_is_lowered_to_what_fits_every_limit() -> None:
    month = Bound(ReserveCode.MONTH, left=100, held=20, fixed=10, each=3)
    money = Bound(ReserveCode.BUDGET, left=1_000, held=0, fixed=0, each=0)
    assert most_output([month, money], 5, 50) == (ReserveCode.HELD, 23)
    assert most_output([month, money], 24, 50) == (ReserveCode.IN_FLIGHT, 0)
    assert most_output([month, money], 31, 50) == (ReserveCode.MONTH, 0)
    spent = replace(money, left=-1)
    assert most_output([month, spent], 5, 50) == (ReserveCode.BUDGET, 0)


def test_a_minutes_bucket_leaks_evenly_and_time_that_goes_back_leaks_nothing() -> None:
    bucket, wait_ms = EMPTY.pour(60, 60, 1_000)
    assert wait_ms == 0
    assert bucket.pour(60, 1, 1_000)[1] == 1_000
    assert bucket.pour(60, 1, 1_999)[1] == 1
    assert bucket.pour(60, 1, 2_000)[1] == 0
    assert bucket.pour(60, 1, 400)[1] == 1_600
    assert bucket.pour(60, 0, 400)[0] == bucket
    assert EMPTY.pour(0, 1, 5)[1] == 60_000


def test_the_allowance_pays_then_packs_by_end_then_the_allowance_again() -> None:
    packs = (Pack("late", 30, ENDS_MS), Pack("soon", 20, NOW_MS + 1), Pack("over", 99, NOW_MS))
    model = Shown(settled_tokens=900, packs=packs)
    assert model.hold() is ReserveCode.HELD
    reply = model.settle(structs.replace(END, charged_tokens=180), NOW_MS + 5, "5-0")
    assert (reply.from_allowance, reply.from_packs, reply.overdraft_tokens) == (130, 50, 30)
    assert model.shard.events[0].part.pack_split == (("soon", 20), ("late", 30))
    assert (model.ann.used, model.ann.held) == (1_030, 0)
    assert model.ann.packs["over"].tokens == 99


def test_what_is_given_back_goes_to_the_pack_that_paid_last_first() -> None:
    packs = {"a": Pack("a", 0, 5), "b": Pack("b", 10, 9)}
    assert give_back(packs, (("a", 20), ("gone", 7), ("b", 10)), 25) == (("b", -10), ("a", -15))
    assert [pack.tokens for pack in by_end(packs)] == [15, 20]
    undo(packs, (("b", -30), ("gone", 3)))
    assert packs["b"].tokens == 0
    assert spend(packs, 5, 9) == ()


def test_a_pack_that_is_known_never_rises_and_is_lost_by_a_refund() -> None:
    known = {"a": Pack("a", 30, 5), "b": Pack("b", 30, 5), "c": Pack("c", 30, 5)}
    told = (Pack("a", 99, 6), Pack("b", 0, 5), Pack("d", 7, 5))
    assert merge(known, told) == {"a": Pack("a", 30, 6), "b": Pack("b", 0, 5), "d": told[2]}


def test_a_threshold_is_told_once_and_armed_anew_below_it() -> None:
    account = Account(1, STARTS_MS, ENDS_MS, "0-0", allowance=100, settled=80)
    assert account.cross((50, 80, 100)) == 80
    account.settled = 99
    assert account.cross((50, 80, 100)) == 0
    account.settled = 40
    assert account.cross((50, 80, 100)) == 0
    account.settled = 100
    assert account.cross((50, 80, 100)) == 100


def test_a_charge_goes_to_the_period_its_hold_was_made_in() -> None:
    model = Shown(settled_tokens=300)
    assert model.hold() is ReserveCode.HELD
    late = structs.replace(
        ASK, rid="r2", period_start_ms=ENDS_MS, period_end_ms=ENDS_MS + 30 * DAY_MS
    )
    assert model.reserve(late, ENDS_MS - 1).code is ReserveCode.PERIOD
    reply = model.reserve(late, ENDS_MS)
    assert (reply.code, reply.used_tokens, reply.held_tokens) == (ReserveCode.HELD, 0, 300)
    assert model.end(ENDS_MS) is SettleCode.SETTLED
    assert (model.ann.used, model.ann.before.used_tokens, model.ann.held) == (0, 420, 150)


def test_an_allowance_that_was_never_granted_here_is_the_one_of_the_hold() -> None:
    """Else a pack would pay what the allowance of the period before covers."""
    model = Shown(packs=(Pack("a", 500, ENDS_MS * 2),))
    model.hold()
    model.open_shard(2, "0-0", Quiet())
    model.bring("ann", packs=(Pack("a", 500, ENDS_MS * 2),))
    model.ann.roll(ENDS_MS, ENDS_MS, ENDS_MS + 30 * DAY_MS)
    reply = model.settle(END, ENDS_MS, "5-0")
    assert (reply.from_allowance, reply.from_packs) == (120, 0)


@pytest.mark.parametrize(("charge", "from_packs"), [(10, -110), (90, -30), (150, 30)])
def test_a_late_settlement_corrects_what_an_expiry_booked(charge: int, from_packs: int) -> None:
    model = Shown(settled_tokens=1_000, packs=(Pack("a", 50 + 100, ENDS_MS),))
    model.hold()
    assert model.end(NOW_MS + 60_009, kind="expire") is SettleCode.LEASE_RUNS
    assert model.end(NOW_MS + 60_010, kind="expire") is SettleCode.SETTLED
    assert model.ann.packs["a"].tokens == 30
    reply = model.settle(structs.replace(END, charged_tokens=charge), NOW_MS + 70_000, "5-1")
    assert (reply.code, reply.from_packs) == (SettleCode.CORRECTED, from_packs)
    assert model.ann.packs["a"].tokens == 150 - charge
    assert model.end() is SettleCode.NOTHING_OPEN


def test_a_release_leaves_a_mark_that_a_late_reserve_finds() -> None:
    model = Shown()
    assert model.end(kind="release") is SettleCode.RELEASED
    assert model.hold() is ReserveCode.ENDED
    model.forget_endings(NOW_MS + 60_000)
    assert model.hold() is ReserveCode.HELD
    assert model.end(kind="release") is SettleCode.RELEASED
    assert (model.hold(), model.ann.held, model.shard.events) == (ReserveCode.ENDED, 0, [])


def test_a_call_of_a_lost_epoch_is_booked_once() -> None:
    model = Shown()
    model.open_shard(2, "9-0", Quiet())
    assert model.end() is SettleCode.LATE
    assert model.end() is SettleCode.NOTHING_OPEN
    assert (len(model.shard.events), model.ann.settled) == (1, 0)


def test_of_a_hold_of_a_lost_epoch_only_the_charge_is_left() -> None:
    model = Shown()
    model.hold()
    model.open_shard(2, "9-0", Quiet())
    assert model.hold() is ReserveCode.HYDRATE
    model.bring("ann")
    assert (model.ann.held, model.hold()) == (0, ReserveCode.ENDED)
    assert model.end() is SettleCode.SETTLED
    assert (model.ann.settled, model.ann.held, model.ann.open_holds) == (120, 0, 0)
    assert model.end() is SettleCode.NOTHING_OPEN


def test_what_is_settled_while_an_account_is_brought_back_counts_once() -> None:
    model = Shown()
    model.hold()
    model.open_shard(2, "9-0", Quiet())
    begun = model.hydrate_begin("ann", None, (STARTS_MS, ENDS_MS), NOW_MS)
    assert begun is not None
    assert model.hydrate_begin("ann", None, (STARTS_MS, ENDS_MS), NOW_MS + 5) == begun
    model.end()
    told = Entitlement("ann", 3, STARTS_MS, 40)
    assert model.entitle(told, ENDS_MS, NOW_MS).code is EntitleCode.PROJECTED
    sums = LedgerSums(500, 0, 40, 9, 2)
    assert model.hydrate_finish("ann", None, begun.token, sums) is FinishCode.OLDER
    sums = replace(sums, rev=3)
    assert model.hydrate_finish("ann", None, begun.token, sums) is FinishCode.FINISHED
    assert model.hydrate_finish("ann", None, begun.token, sums) is FinishCode.GONE
    assert model.ann.used == 660


def test_what_was_counted_twice_is_taken_back_where_it_was_counted() -> None:
    model = Shown(settled_tokens=1_000, packs=(Pack("a", 200, ENDS_MS),))
    model.hold()
    model.settle(END, NOW_MS, "5-1")
    double = Correction("r9", "ann", "full", None, 1, "5-1", STARTS_MS, None, 120, 7, (("a", 120),))
    assert model.correct(double, NOW_MS)
    assert not model.correct(double, NOW_MS)
    assert (model.ann.settled, model.ann.from_packs) == (1_000, 0)
    assert model.ann.packs["a"].tokens == 200
    assert not model.correct(replace(double, rid="r8", stream_id="0-0"), NOW_MS)


def test_revisions_only_rise_and_a_period_to_come_is_waited_for() -> None:
    model = Shown(rev=2)
    told = Entitlement("ann", 3, STARTS_MS, -50)
    assert model.entitle(replace(told, rev=2), ENDS_MS, NOW_MS).code is EntitleCode.OLDER
    early = replace(told, period_start_ms=ENDS_MS)
    assert model.entitle(early, ENDS_MS * 2, NOW_MS).code is EntitleCode.PERIOD
    assert model.entitle(told, ENDS_MS, NOW_MS).code is EntitleCode.PROJECTED
    assert model.hold() is ReserveCode.STALE
    assert (model.ann.used, model.ann.rev) == (-50, 3)


def test_nothing_is_reserved_until_all_who_are_awaited_have_caught_up() -> None:
    model = Shown()
    model.open_shard(2, "9-0", Quiet(NOW_MS + 500, ("g1", "g2")))
    model.bring("ann")
    assert model.reserve(ASK, NOW_MS).wait_ms == 500
    model.caught_up(2, "g1")
    model.caught_up(1, "g2")
    assert model.hold() is ReserveCode.NOT_READY
    model.caught_up(2, "g2")
    assert model.hold() is ReserveCode.HELD
    assert model.open_shard(1, "0-0", Quiet(NOW_MS * 2, ("g1",))) == 2


def test_an_account_goes_after_as_long_again_as_its_period_unless_it_holds() -> None:
    idle_ms = ENDS_MS + 30 * DAY_MS
    model = Shown()
    assert not model.forget("ann", None, idle_ms - 1)
    model.hold()
    assert not model.forget("ann", None, idle_ms)
    model.end(kind="release")
    assert model.forget("ann", None, idle_ms)
    assert model.snapshot("ann") is None


def test_a_member_is_bound_by_its_own_limit_and_counts_for_the_team() -> None:
    model = Shown()
    model.bring("ann", "mia", settled_tokens=60)
    limits = Limits(1_000, member_tokens=200, tier_period_start_ms=STARTS_MS)
    asked: dict[str, Any] = {"member": "mia", "limits": limits}
    assert model.hold(**asked) is ReserveCode.TIER
    wanted = ShareAsk("full", 0, 1, STARTS_MS, 1, earlier_tokens=0, wanted_tokens=500)
    assert model.share(wanted, NOW_MS, "0-0").code is ShareCode.STANDS
    assert model.reserve(structs.replace(ASK, **asked), NOW_MS).output_tokens == 40
    assert model.hold(rid="r2", **asked) is ReserveCode.IN_FLIGHT
    model.end(member="mia", tier_period_start_ms=STARTS_MS)
    assert model.hold(rid="r2", **asked) is ReserveCode.MEMBER
    mia, share = model.shard.accounts[("ann", "mia")], model.shard.tiers["full"]
    assert (mia.settled, mia.held, model.ann.settled) == (180, 0, 120)
    assert (share.settled, share.held) == (120, 0)


def test_ids_are_in_the_order_of_the_server_not_of_their_letters() -> None:
    assert is_past("10-0", "9-9")
    assert is_past("9-10", "9-9")
    assert not is_past("9-9", "9-9")
