"""A hold expires while its gateway is cut off; Redis loses its data; then the settlement comes.

What the upstream measured must be what the ledger says in the end, and what Redis counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import redis.asyncio

from gateway.adapters.postgres.reports import Charge
from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from gateway.app.jobs_process import _others, drain_of
from gateway.app.secrets_of_state import pepper_of
from gateway.app.verify import verify
from gateway.config import Settings
from gateway.flow import shards
from gateway.jobs.service import Step
from gateway.ports.directory import PackCredit
from tests.contract.ledger_samples import until
from tests.gateway.running_gateway import MODEL, MakeGateway
from tests.gateway.test_redis_loses import ALLOWANCE, BODY, CHARGE, Gateway, draining, gateways

WHOLE = BODY % MODEL.encode()
STREAM = WHOLE[:-1] + b', "stream": true}'
GRANTED = 1_000


async def swept(gateway: Gateway, sweep: Step) -> None:
    """The lease runs out, as nobody keeps it running, and the hold ends."""

    async def ended() -> bool:
        await sweep.step()
        leases = gateway.stores.leases
        return not sum([await leases.count(shard) for shard in range(leases.shards)])

    await until(ended)


async def booked(gateway: Gateway, rows: int) -> list[Charge]:
    """The rows, once there are so many."""
    found: list[Charge] = []

    async def are_there() -> bool:
        found[:] = await gateway.stores.reports.charges(None, 9)
        return len(found) >= rows

    await until(are_there)
    return found


@dataclass(frozen=True, slots=True)
class Story:
    """What is called and by whom; the account comes back before the settlement, or after it."""

    body: bytes
    outcome: str
    used: int
    comes_back: str

    @property
    def name(self) -> str:
        whole = "whole" if self.body is WHOLE else "stream"
        return f"{whole} with {self.used} used, back {self.comes_back}"


STORIES = [
    Story(body, outcome, used, comes_back)
    for body, outcome, used in (
        (WHOLE, "unknown_upstream", 0),
        (STREAM, "expired", 0),
        (STREAM, "expired", ALLOWANCE),  # so that a pack pays
    )
    for comes_back in ("before", "after")
]


@pytest.fixture
def settings(
    make_gateway: MakeGateway, redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setattr(shards, "QUIET_MS", 600_000)
    return make_gateway(
        redis={"url": redis_url, "mode": "closed"},
        ledger={"url": postgres_url},
        lease={"ms": 1000, "grace_ms": 0, "heartbeat_ms": 400},
        identity={"keys": {"pepper": "a-pepper-of-this-test"}},
    ).settings


async def user_of(gateway: Gateway, settings: Settings, used: int) -> str:
    """The key of a user who has used so much, and has a pack."""
    stores, accounts = gateway.stores, gateway.stores.accounts(settings)
    await accounts.create_user("u0", "free")
    await accounts.set_used("u0", used, "set up", "tests")
    rid, ends_ms = "01930000-0000-7000-8000-000000000001", stores.clock.now_ms() + 86_400_000
    credit = PackCredit(rid, "u0", "p-1", GRANTED, ends_ms, "paid-1", "tests")
    await stores.directory.credit_pack(credit)
    return (await accounts.create_key("u0", pepper_of(settings))).key


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_what_was_settled_after_its_hold_expired_and_redis_was_emptied_counts(
    settings: Settings, redis_url: str, story: Story
) -> None:
    async with gateways(settings, count=1) as (only,):
        stores = only.stores
        key = await user_of(only, settings, story.used)
        admitted = await only.admit(key, story.body)
        await swept(only, _others(settings, stores, JobsMetrics())[0])
        await drain_of(settings, stores, JobsMetrics()).drain_all()
        (expired,) = await booked(only, 1)
        assert expired.outcome == story.outcome
        assert (expired.charged_tokens > 0) == (story.outcome == "expired")
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await client.flushall()
        async with draining(settings, stores):
            if story.comes_back == "before":
                assert await only.outcome(key) == "admitted"
            await only.settle(admitted)
            await only.worker.settlements.confirmed()
            rows = await booked(only, 2)
            assert await only.outcome(key) == "admitted"
            assert (await verify(stores, None, 30)).agrees
        assert sum(row.charged_tokens for row in rows) == CHARGE
        assert {row.rid for row in rows} == {expired.rid}
        account = await stores.store.snapshot("u0")
        assert account is not None
        paid = CHARGE if story.used else 0
        if story.used and story.comes_back == "after":
            paid = expired.charged_tokens  # while an account is away no pack is known: it is owed
        assert (account.settled_tokens, account.from_packs) == (CHARGE, paid)
        assert [pack.tokens for pack in account.packs] == [GRANTED - paid]
