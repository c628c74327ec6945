"""What an operator's command could not bring into the store, the projection does; and upkeep."""

from __future__ import annotations

import pytest

from gateway.jobs import project as project_module
from gateway.jobs.project import Projection
from gateway.jobs.upkeep import Upkeep
from gateway.ports.quota_store import StoreUnavailable
from tests.fakes.flow_rig import FlowRig


def projection(rig: FlowRig) -> Projection:
    return Projection(rig.directory, rig.store, rig.redis.streams, rig.clock)


async def in_force(rig: FlowRig, *users: str) -> None:
    for user_id in users:
        await rig.user(user_id)
        await rig.hydrator.hydrate(user_id, rig.period)


async def test_a_revision_that_the_store_has_not_seen_is_projected(rig: FlowRig) -> None:
    await in_force(rig, "ada", "bob")
    changed = await rig.directory.set_tier("ada", "lite")
    assert await projection(rig).step() == 1.0
    assert (await rig.account("ada")).rev == changed.rev
    assert await rig.directory.unprojected(10) == []


async def test_users_that_the_store_has_never_seen_are_confirmed_too(rig: FlowRig) -> None:
    await rig.user("ada")
    await projection(rig).step()
    assert await rig.directory.unprojected(10) == []


async def test_a_full_batch_is_followed_by_the_next_at_once(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project_module, "_ROWS_MAX", 2)
    job = projection(rig)
    await job.step()
    await in_force(rig, "ada", "bob", "cy")
    assert [await job.step(), await job.step()] == [0.0, 1.0]
    assert await rig.directory.unprojected(10) == []


async def test_what_failed_stays_to_be_done(rig: FlowRig) -> None:
    await in_force(rig, "ada")
    await rig.directory.set_tier("ada", "lite")
    rig.store.trouble("entitle", "reply lost")
    job = projection(rig)
    with pytest.raises(StoreUnavailable):
        await job.step()
    assert len(await rig.directory.unprojected(10)) == 1
    await job.step()
    assert await rig.directory.unprojected(10) == []


async def test_what_failed_keeps_nobody_else_waiting(rig: FlowRig) -> None:
    await in_force(rig, "ada", "bob")
    for user_id in ("ada", "bob"):
        await rig.directory.set_tier(user_id, "lite")
    rig.store.trouble("entitle", "reply lost")
    with pytest.raises(StoreUnavailable):
        await projection(rig).step()
    assert len(await rig.directory.unprojected(10)) == 1


async def test_on_another_server_what_was_changed_lately_is_projected_again(rig: FlowRig) -> None:
    job = projection(rig)
    await in_force(rig, "ada", "bob")
    await job.step()
    before = rig.redis.saved()
    for user_id in ("ada", "bob"):
        await rig.accounts.set_tier(user_id, "lite")
    assert await rig.directory.unprojected(10) == []
    rig.redis.go_back(before)
    rig.store.trouble("entitle", "never arrives")
    with pytest.raises(StoreUnavailable):
        await job.step()
    await job.step()
    for user_id in ("ada", "bob"):
        assert (await rig.account(user_id)).rev == rig.directory.people[user_id].rev
    rig.store.asked.clear()
    await job.step()
    assert "entitle" not in rig.store.asked


async def test_partitions_are_made_at_once_and_then_hourly(rig: FlowRig) -> None:
    job = Upkeep(rig.ledger, ("free",), rig.metrics, rig.clock)
    made = []
    for seconds in (0, 30, 3569, 1, 3600):
        rig.clock.pass_s(seconds)
        assert await job.step() == 30.0
        made.append(len(rig.ledger.partitions))
    assert made == [1, 1, 1, 2, 3]


async def test_periods_that_are_over_are_closed_at_every_step_within_a_bound(rig: FlowRig) -> None:
    rig.ledger.unclosed = 4500
    job, left = Upkeep(rig.ledger, ("free",), rig.metrics, rig.clock), []
    for _ in range(4):
        await job.step()
        left.append(rig.ledger.unclosed)
        rig.clock.pass_s(30)
    assert left == [2500, 500, 0, 0]
    assert rig.ledger.closings == [rig.clock.now_ms() - 30_000 * ago for ago in (4, 3, 2, 1)]


async def test_every_tier_of_the_plan_is_shown_and_no_other(rig: FlowRig) -> None:
    rig.ledger.used = {"free": 7, "gone": 9}
    await Upkeep(rig.ledger, ("free", "lite"), rig.metrics, rig.clock).step()
    assert rig.metrics.of("tier_used") == [("free", 7), ("lite", 0)]
