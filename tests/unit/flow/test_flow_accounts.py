"""What an operator changes is a row first, binds at the next call, and is shown as it is."""

from __future__ import annotations

import pytest

from gateway.core.identity import key_digest
from gateway.core.period import Calendar
from gateway.core.quota.entitle import EntitleCode, Entitlement, EntitleReply
from gateway.core.refusal import Refused
from gateway.flow.accounts import project
from gateway.ports.directory import Adjustment, PackCredit
from gateway.ports.ledger import Conflict
from gateway.ports.quota_store import StoreUnavailable
from tests.fakes.clock import DAY_MS
from tests.fakes.flow_rig import PEPPER, FlowRig


async def set_used(rig: FlowRig, tokens: int, user_id: str = "ada") -> int:
    shown = await rig.accounts.set_used(user_id, tokens, "test", "tester")
    return shown.settled_tokens + shown.adjusted_tokens


@pytest.mark.parametrize("user_id", ["", "a b", "-a", "a\n", "é", "a" * 129])
async def test_a_user_id_that_is_not_one_is_a_conflict(rig: FlowRig, user_id: str) -> None:
    with pytest.raises(Conflict, match="user id"):
        await rig.accounts.create_user(user_id, "free")
    assert rig.directory.people == {}


async def test_a_tier_that_is_not_in_the_plan_is_a_conflict_that_lists_the_plan(
    rig: FlowRig,
) -> None:
    await rig.user()
    with pytest.raises(Conflict, match=r"'gold'.*free, lite, full"):
        await rig.accounts.create_user("bob", "gold")
    with pytest.raises(Conflict, match="'gold'"):
        await rig.accounts.set_tier("ada", "gold")


async def test_a_new_user_has_the_plan_s_period(rig: FlowRig) -> None:
    identity = await rig.accounts.create_user("ada", "free")
    assert identity.calendar == Calendar(1, "UTC")


async def test_a_key_is_known_by_its_digest_only(rig: FlowRig) -> None:
    await rig.accounts.create_user("ada", "free")
    made = await rig.accounts.create_key("ada", PEPPER)
    other = await rig.accounts.create_key("ada", PEPPER)
    assert rig.directory.keys[key_digest(made.key, PEPPER)] == "ada"
    assert made.key not in str(rig.directory.__dict__)
    assert len({made.key, other.key, made.key_id, other.key_id}) == 4


@pytest.mark.parametrize("tokens", [0, 1, 999, 1000, 5000])
async def test_used_tokens_become_exactly_what_was_said(rig: FlowRig, tokens: int) -> None:
    await rig.user()
    assert await set_used(rig, 400) == 400
    assert await set_used(rig, tokens) == tokens
    assert [each.tokens for each in rig.directory.adjustments.values()] == [400, tokens - 400]
    _, shown = await rig.accounts.show("ada")
    assert shown.settled_tokens + shown.adjusted_tokens == tokens


async def test_used_tokens_below_zero_are_a_conflict(rig: FlowRig) -> None:
    await rig.user()
    with pytest.raises(Conflict, match="0 or more"):
        await set_used(rig, -1)
    assert rig.directory.adjustments == {}


async def test_an_adjustment_names_its_period_reason_and_author(rig: FlowRig) -> None:
    await rig.user()
    await rig.accounts.set_used("ada", 7, "a gift", "ops@example.org")
    (made,) = rig.directory.adjustments.values()
    assert (made.reason, made.author) == ("a gift", "ops@example.org")
    assert made.period_start_ms == rig.period.start_ms


async def test_there_is_nothing_to_show_of_nobody(rig: FlowRig) -> None:
    with pytest.raises(Conflict, match="no user 'bob'"):
        await rig.accounts.show("bob")
    with pytest.raises(Conflict, match="no user 'bob'"):
        await set_used(rig, 3, "bob")


async def test_a_change_is_projected_before_it_is_answered(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.admission.admit(rig.call(key))
    changed = await rig.accounts.set_tier("ada", "lite")
    assert (await rig.account()).rev == changed.rev
    assert rig.directory.projected["ada"] == changed.rev


async def test_a_change_that_could_not_be_projected_is_left_on_the_list(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.admission.admit(rig.call(key))
    rig.store.away = True
    with pytest.raises(StoreUnavailable):
        await rig.accounts.set_tier("ada", "lite")
    assert [each.user_id for each in await rig.directory.unprojected(10)] == ["ada"]
    rig.store.away = False
    assert (await rig.admission.admit(rig.call(key))).quota.tier == "free"  # not seen yet


async def test_a_revoked_key_is_known_no_more(rig: FlowRig) -> None:
    key = await rig.user()
    (key_id,) = rig.directory.key_ids
    await rig.accounts.revoke_key(key_id)
    with pytest.raises(Refused):
        await rig.identities.of(rig.identities.credential(key))


async def test_what_is_shown_survives_an_empty_store(rig: FlowRig) -> None:
    await rig.user()
    await set_used(rig, 400)
    await rig.lose_everything()
    _, shown = await rig.accounts.show("ada")
    assert (shown.adjusted_tokens, shown.epoch) == (400, 2)


async def test_a_period_that_nobody_has_called_in_yet_is_shown_empty(rig: FlowRig) -> None:
    await rig.user()
    await set_used(rig, 400)
    rig.clock.ms += 40 * DAY_MS
    _, shown = await rig.accounts.show("ada")
    assert (shown.settled_tokens, shown.adjusted_tokens, shown.cost_nano_gbp) == (0, 0, 0)
    assert (shown.period_start_ms, shown.period_end_ms) == (
        *(rig.period.start_ms, rig.period.end_ms),
    )


# --- a clock ahead, a calendar, packs ----------------------------------------------------------


async def test_a_projection_by_a_clock_that_is_ahead_is_asked_again_by_the_server_s_time(
    rig: FlowRig,
) -> None:
    key, period = await rig.user(), rig.period
    await rig.admission.admit(rig.call(key))
    adjustment = Adjustment("gift", "ada", period.start_ms, -300, "a gift", "ops")
    changed = await rig.directory.adjust(adjustment)
    rig.clock.ms += 40 * DAY_MS
    rig.store.asked.clear()
    await project(changed, rig.directory, rig.store, rig.clock)
    assert rig.store.asked == ["entitle", "entitle"]
    account = await rig.account()
    assert (account.rev, account.adjusted_tokens) == (changed.rev, -300)
    assert account.period_start_ms == period.start_ms
    assert rig.directory.projected["ada"] == changed.rev


async def test_a_projection_whose_period_stays_unclear_is_left_on_the_list(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await rig.user()
    await rig.admission.admit(rig.call(key))
    changed = await rig.directory.set_tier("ada", "lite")

    async def never(entitlement: Entitlement, period_end_ms: int) -> EntitleReply:
        return EntitleReply(EntitleCode.PERIOD, rig.clock.now_ms())

    monkeypatch.setattr(rig.store, "entitle", never)
    with pytest.raises(StoreUnavailable, match="period"):
        await project(changed, rig.directory, rig.store, rig.clock)
    assert rig.directory.rev_projected("ada") < changed.rev


async def test_a_changed_calendar_is_projected_and_begins_with_the_next_period(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    await rig.admission.admit(rig.call(key))
    changed = await rig.accounts.set_calendar("ada", 15, "Europe/London")
    calendar = changed.calendar
    assert (calendar.anchor_day, calendar.zone) == (15, "Europe/London")
    assert calendar.since_ms == rig.period.end_ms
    assert calendar.period_at(rig.clock.now_ms()) == rig.period
    account = await rig.account()
    assert (account.rev, account.period_end_ms) == (changed.rev, rig.period.end_ms)


@pytest.mark.parametrize(("day", "zone"), [(0, "UTC"), (32, "UTC"), (1, "Mars/Olympus"), (1, "")])
async def test_a_calendar_that_is_none_is_a_conflict_and_changes_nothing(
    rig: FlowRig, day: int, zone: str
) -> None:
    await rig.user()
    before = rig.directory.people["ada"]
    with pytest.raises(Conflict):
        await rig.accounts.set_calendar("ada", day, zone)
    with pytest.raises(Conflict, match="no user 'bob'"):
        await rig.accounts.set_calendar("bob", 1, "UTC")
    assert rig.directory.people["ada"] == before


async def test_used_tokens_are_set_apart_from_what_packs_paid(rig: FlowRig) -> None:
    """Of 16,040 used, a pack paid 20: what counts against the allowance is set, the pack not."""
    key = await rig.user(tier="full")
    await set_used(rig, 15_990)
    ends_ms = rig.clock.now_ms() + DAY_MS
    credit = PackCredit("credit", "ada", "pack", 320, ends_ms, "payment", "ops")
    await project(await rig.directory.credit_pack(credit), rig.directory, rig.store, rig.clock)
    await rig.spend(key)
    _, before = await rig.accounts.show("ada")
    assert (before.settled_tokens, before.from_packs) == (50, 20)
    shown = await rig.accounts.set_used("ada", 5, "test", "tester")
    assert shown.settled_tokens - shown.from_packs + shown.adjusted_tokens == 5
    assert shown.from_packs == 20
    assert [(pack.pack_id, pack.tokens) for pack in shown.packs] == [("pack", 300)]
    quota = (await rig.admission.admit(rig.call(key))).quota
    assert (quota.used_tokens, quota.pack_tokens) == (5, 300)
