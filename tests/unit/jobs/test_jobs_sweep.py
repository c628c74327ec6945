"""A hold that nobody ended is ended by the sweeper, once, and only if its lease is really over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.event import LedgerRow
from gateway.core.hold import Ending, Hold
from gateway.core.pricing import PriceTable
from gateway.core.quota.settle import LapsedHold
from gateway.core.usage import Usage
from gateway.jobs import sweep as sweep_module
from gateway.jobs.sweep import Sweep, SweepTerms
from gateway.ports.quota_store import Leases, StoreUnavailable
from tests.fakes.flow_rig import GRACE_MS, PEPPER, PRICES, FlowRig
from tests.fakes.store import SHARDS


class SeenEarlier:
    """Fulfils ports.quota_store.Leases with what was there a moment ago."""

    def __init__(self, holds: Sequence[LapsedHold]) -> None:
        self._holds = holds

    async def lapsed(self, shard: int, grace_ms: int, rows_max: int) -> Sequence[LapsedHold]:
        return [hold for hold in self._holds if hold.shard == shard]

    async def count(self, shard: int) -> int:
        return 0

    async def accounts(self, position: int, rows_max: int) -> tuple[int, Sequence[tuple[str, int]]]:
        raise AssertionError("no sweeper asks for accounts")


def sweep_of(rig: FlowRig, leases: Leases | None = None, prices: PriceTable = PRICES) -> Sweep:
    terms = SweepTerms(SHARDS, GRACE_MS, prices, rig.terms.plan.thresholds_percent)
    return Sweep(leases or rig.redis.leases, rig.store, terms, rig.metrics, rig.clock)


async def held(rig: FlowRig, **body: Any) -> Hold:
    """An open hold of ada's. Each has a key of its own, so that nothing is remembered as old."""
    if "ada" not in rig.directory.people:
        await rig.accounts.create_user("ada", "free")
    made = await rig.accounts.create_key("ada", PEPPER)
    return (await rig.admission.admit(rig.call(made.key, **body))).hold


async def lapse(rig: FlowRig, over_ms: int = GRACE_MS + 1) -> None:
    await rig.lapse(over_ms)


async def lapsed(rig: FlowRig) -> list[LapsedHold]:
    leases = rig.redis.leases
    return [hold for n in range(SHARDS) for hold in await leases.lapsed(n, GRACE_MS, 10)]


async def spoil(rig: FlowRig, hold: Hold) -> None:
    """Nobody can read what the hold says of its call any more."""
    for key in await rig.redis.client.keys("qg:*:h:*"):
        fields = (await rig.redis.client.hget(key, hold.rid)).split(b" ", 7)
        await rig.redis.client.hset(key, hold.rid, b" ".join([*fields[:7], b"{spoilt"]))


async def only_row(rig: FlowRig) -> LedgerRow:
    (row,) = await rig.rows()
    return row


async def test_a_stream_that_nobody_ended_is_charged_within_its_hold(rig: FlowRig) -> None:
    hold = await held(rig, stream=True)
    await lapse(rig)
    await sweep_of(rig).step()
    row = await only_row(rig)
    assert (row.event_id, row.kind) == (hold.rid, "usage")
    assert row.charged_tokens == hold.hold_tokens  # 512 unseen tokens are more than its cap
    assert (row.event.outcome, row.event.quality) == ("expired", "estimated")
    assert row.cost_nano_gbp == hold.prompt_tokens * 2 + 100 * 4
    account = await rig.account()
    assert (account.held_tokens, account.open_holds) == (0, 0)
    assert account.settled_tokens == row.charged_tokens
    assert rig.metrics.of("expired") == ["expired"]


async def test_a_whole_answer_that_nobody_ended_costs_nothing_and_leaves_a_row(
    rig: FlowRig,
) -> None:
    await held(rig)
    await lapse(rig)
    await sweep_of(rig).step()
    row = await only_row(rig)
    assert (row.charged_tokens, row.event.outcome) == (0, "unknown_upstream")
    assert (await rig.account()).open_holds == 0


@pytest.mark.parametrize("over_ms", [-60_000, 0, GRACE_MS - 2_000])
async def test_a_lease_that_runs_or_is_within_its_grace_is_left_alone(
    rig: FlowRig, over_ms: int
) -> None:
    await held(rig)
    await lapse(rig, over_ms)
    assert await sweep_of(rig).step() == 1.0
    assert (await rig.account()).open_holds == 1
    assert rig.metrics.of("holds_open") == [1]
    assert rig.metrics.of("expired") == []


async def test_a_heartbeat_at_the_same_moment_wins(rig: FlowRig) -> None:
    hold = await held(rig, stream=True)
    await lapse(rig)
    found = await lapsed(rig)
    assert await rig.store.extend("ada", hold.rid, 5, lease_ms=0)  # its grace begins now
    await sweep_of(rig, SeenEarlier(found)).step()
    assert (await rig.account()).open_holds == 1
    assert await rig.rows() == []
    assert rig.metrics.of("expired") == []


async def test_of_two_sweepers_one_ends_the_hold(rig: FlowRig) -> None:
    await held(rig, stream=True)
    await lapse(rig)
    found = await lapsed(rig)
    for _ in range(2):
        await sweep_of(rig, SeenEarlier(found)).step()
    assert len(await rig.rows()) == 1
    assert rig.metrics.of("expired") == ["expired"]


@pytest.mark.parametrize("output_tokens", [3, 100, 250])
async def test_a_settlement_that_comes_even_later_corrects_the_expiry(
    rig: FlowRig, output_tokens: int
) -> None:
    hold = await held(rig, stream=True)
    await lapse(rig)
    await sweep_of(rig).step()
    usage = Usage(20, 0, output_tokens, 0)
    rig.store.trouble("settle", "reply lost")  # its repetition changes nothing
    await rig.settlements.settle(hold, Ending(usage, "measured", "done", 200))
    await rig.settled()
    expired, correction = await rig.rows()
    assert (correction.kind, correction.corrects) == ("correction", hold.rid)
    assert expired.charged_tokens + correction.charged_tokens == 20 + output_tokens
    assert expired.cost_nano_gbp + correction.cost_nano_gbp == 20 * 2 + output_tokens * 4
    assert (await rig.account()).settled_tokens == 20 + output_tokens


async def test_progress_that_was_noted_is_charged(rig: FlowRig) -> None:
    await rig.accounts.create_user("ada", "lite")
    hold = await held(rig, stream=True, n=10, max_tokens=300)
    await rig.store.extend("ada", hold.rid, 77, 60_000)
    await lapse(rig)
    await sweep_of(rig).step()
    assert (await only_row(rig)).charged_tokens == hold.prompt_tokens + 77 + 512


async def test_a_price_that_is_gone_gives_way_to_the_present_one(rig: FlowRig) -> None:
    hold = await held(rig, stream=True)
    await lapse(rig)
    (version,) = PRICES.versions
    await sweep_of(rig, prices=PriceTable((replace(version, id="2027"),))).step()
    row = await only_row(rig)
    assert row.event.price_id == "2026"
    assert row.cost_nano_gbp == hold.prompt_tokens * 2 + 100 * 4


async def test_a_hold_that_cannot_be_read_is_logged_and_does_not_stop_the_others(
    rig: FlowRig, caplog: pytest.LogCaptureFixture
) -> None:
    broken, whole = await held(rig, stream=True), await held(rig, stream=True)
    await spoil(rig, broken)
    await lapse(rig)
    with caplog.at_level(logging.ERROR, "gateway.sweep"):
        await sweep_of(rig).step()
        await sweep_of(rig).step()
    assert (await only_row(rig)).event_id == whole.rid
    assert caplog.text.count(broken.rid) == 1
    assert "released unbooked" in caplog.text
    account = await rig.account()
    assert (account.held_tokens, account.open_holds) == (0, 0)
    assert rig.metrics.of("holds_open") == [0, 0]
    assert rig.metrics.of("expired") == ["expired"]


async def test_a_full_batch_is_followed_by_the_next_at_once(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "_ROWS_MAX", 2)
    for _ in range(3):
        await held(rig, stream=True)
    await lapse(rig)
    sweep = sweep_of(rig)
    assert [await sweep.step(), await sweep.step()] == [0.0, 1.0]
    assert len(await rig.rows()) == 3
    assert rig.metrics.of("holds_open") == [1, 0]


async def test_a_store_that_is_away_is_said_to_the_service(rig: FlowRig) -> None:
    await held(rig, stream=True)
    await lapse(rig)
    rig.store.trouble("expire", "reply lost")
    sweep = sweep_of(rig)
    with pytest.raises(StoreUnavailable):
        await sweep.step()
    await sweep.step()
    assert len(await rig.rows()) == 1


async def test_a_member_s_hold_is_ended_for_the_team_and_for_the_member(rig: FlowRig) -> None:
    await rig.user("team", "lite")
    key = await rig.member("ben", "team")
    hold = (await rig.admission.admit(rig.call(key, stream=True))).hold
    await lapse(rig)
    await sweep_of(rig).step()
    (row,) = await rig.rows("team")
    assert (row.event.payer, row.member) == ("team", "ben")
    team, member = await rig.account("team"), await rig.store.snapshot("team", "ben")
    assert member is not None
    for account in (team, member):
        assert (account.held_tokens, account.open_holds) == (0, 0)
        assert account.settled_tokens == hold.hold_tokens
    (sent,) = rig.store.sent
    assert (sent.member, sent.tier, sent.limit_tokens) == ("ben", "lite", 10_000)
    assert (sent.thresholds_percent, sent.grace_ms) == ((80, 95, 100), GRACE_MS)


async def test_an_expiry_that_crosses_a_threshold_tells_so(rig: FlowRig) -> None:
    await rig.user()
    await rig.accounts.set_used("ada", 750, "test", "tester")
    await held(rig, stream=True)
    await lapse(rig)
    await sweep_of(rig).step()
    assert (await only_row(rig)).crossed_percent == 80


class SilentBefore(SeenEarlier):
    """The shards before the first hold's are on a server that does not answer."""

    async def lapsed(self, shard: int, grace_ms: int, rows_max: int) -> Sequence[LapsedHold]:
        if shard < self._holds[0].shard:
            raise StoreUnavailable("no reply")
        return await super().lapsed(shard, grace_ms, rows_max)


async def test_a_shard_that_is_silent_keeps_no_other_waiting(rig: FlowRig) -> None:
    await held(rig, stream=True)
    await lapse(rig)
    (found,) = await lapsed(rig)
    assert found.shard > 0
    with pytest.raises(StoreUnavailable):
        await sweep_of(rig, SilentBefore([found])).step()
    assert (await only_row(rig)).event_id == found.rid
