"""Accounts that nobody uses leave Redis bit by bit; those in use, and their money, stay."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gateway.core.identity import account_digest, shard_of
from gateway.core.quota.settle import LapsedHold
from gateway.jobs.forget import Forget
from gateway.ports.quota_store import StoreUnavailable
from tests.fakes.clock import DAY_MS
from tests.fakes.flow_rig import FlowRig
from tests.fakes.store import SHARDS


class InPages:
    """Fulfils ports.quota_store.Leases with accounts in pages of its own."""

    def __init__(self, *pages: Sequence[str]) -> None:
        self._pages = pages
        self.asked: list[int] = []

    async def accounts(self, position: int, rows_max: int) -> tuple[int, Sequence[tuple[str, int]]]:
        self.asked.append(position)
        found = [(account_digest(name), shard_of(name, SHARDS)) for name in self._pages[position]]
        return (position + 1) % len(self._pages), found

    async def lapsed(self, shard: int, grace_ms: int, rows_max: int) -> Sequence[LapsedHold]:
        raise AssertionError("who forgets looks for no holds")

    async def count(self, shard: int) -> int:
        raise AssertionError("who forgets counts no holds")


async def of_old(rig: FlowRig, *people: str) -> None:
    """Accounts whose period was over long ago: as long again as it lasted, and more."""
    rig.clock.ms -= 100 * DAY_MS
    for name in people:
        await rig.user(name)
        await rig.hydrator.hydrate(name, rig.period)
    rig.clock.ms += 100 * DAY_MS


async def in_store(rig: FlowRig, *people: str) -> list[str]:
    return [name for name in people if await rig.store.snapshot(name) is not None]


async def test_an_account_of_long_ago_is_forgotten_and_one_of_today_is_not(rig: FlowRig) -> None:
    await of_old(rig, "ada", "bob")
    key = await rig.user("cy")
    await rig.admission.admit(rig.call(key))
    assert await Forget(rig.redis.leases, rig.store).step() == 3600.0
    assert await in_store(rig, "ada", "bob", "cy") == ["cy"]


async def test_who_comes_back_after_being_forgotten_finds_everything(rig: FlowRig) -> None:
    await of_old(rig, "ada")
    key = (await rig.accounts.create_key("ada", b"pepper")).key
    await Forget(rig.redis.leases, rig.store).step()
    await rig.accounts.set_used("ada", 400, "test", "tester")
    assert (await rig.admission.admit(rig.call(key))).quota.used_tokens == 400


async def test_all_accounts_are_gone_through_in_turn_and_then_it_rests(rig: FlowRig) -> None:
    await of_old(rig, "ada", "bob", "cy")
    leases = InPages(["ada"], ["bob", "cy"], [])
    job = Forget(leases, rig.store)
    assert [await job.step() for _ in range(4)] == [1.0, 1.0, 3600.0, 1.0]
    assert leases.asked == [0, 1, 2, 0]
    assert await in_store(rig, "ada", "bob", "cy") == []
    assert rig.store.asked.count("forget") == 4


async def test_trouble_is_said_to_the_service_which_goes_on(rig: FlowRig) -> None:
    await of_old(rig, "ada", "bob")
    job = Forget(InPages(["ada"], ["bob"]), rig.store)
    rig.store.trouble("forget", "never arrives")
    with pytest.raises(StoreUnavailable):
        await job.step()
    assert [await job.step(), await job.step(), await job.step()] == [3600.0, 1.0, 3600.0]
    assert await in_store(rig, "ada", "bob") == []
