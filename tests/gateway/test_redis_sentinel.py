"""Sentinel makes a stale replica the master: what was confirmed by the old one comes back.

A real master, replica and Sentinel; the gateways' own parts in one process, as in
`test_redis_loses.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from gateway.adapters.embedded import EmbeddedError
from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from gateway.app.jobs_process import drain_of
from gateway.app.verify import verify
from gateway.core.refusal import Case
from gateway.flow import shards
from gateway.ports.quota_store import StoreUnavailable
from tests.gateway.running_gateway import MakeGateway
from tests.gateway.test_redis_loses import (
    ALLOWANCE,
    CHARGE,
    USERS,
    Gateway,
    draining,
    gateways,
    outcomes_of,
    people,
    settings_on,
    spend,
)
from tests.redis_nodes import FILES, RedisNode, until

SERVICE = "quota"


@dataclass(frozen=True)
class Guarded:
    """A master and its replica, as the Sentinel knows them."""

    master: RedisNode
    replica: RedisNode
    sentinel: RedisNode

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.sentinel.address}/{SERVICE}/0"

    def cut_off(self) -> None:
        """The replica gets nothing any more, and is what it was to Sentinel. The master knows no
        password, so it does not let it in again."""
        self.replica.client.config_set("masterauth", "wrong")
        self.master.client.client_kill_filter(_type="replica")
        until(lambda: self.replica.client.info("replication")["master_link_status"] == "down", "up")


def sentinel_on(place: Path, master: RedisNode) -> RedisNode:
    """One Sentinel whose word is enough. It takes a replica that was cut off for ten times as long
    as it waits for a master, and no longer."""
    file = place.with_suffix(".conf")
    file.write_text(
        f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 1\n"
        f"sentinel down-after-milliseconds {SERVICE} 5000\n"
        f"sentinel failover-timeout {SERVICE} 10000\n"
    )
    return RedisNode(place, str(file), "--sentinel")


@pytest.fixture
def guarded(missing: Callable[[str], NoReturn], tmp_path: Path) -> Iterator[Guarded]:
    with ExitStack() as stack:
        try:
            master = RedisNode(tmp_path / "master", *FILES)
            stack.callback(master.end)
            of = ("--replicaof", f"127.0.0.1 {master.port}", "--repl-diskless-sync-delay", "0")
            replica = RedisNode(tmp_path / "replica", *FILES, *of)
            stack.callback(replica.end)
        except EmbeddedError as error:
            missing(str(error))
        until(lambda: replica.client.info("replication")["master_link_status"] == "up", "no link")
        sentinel = sentinel_on(tmp_path / "sentinel", master)
        stack.callback(sentinel.end)
        until(lambda: sentinel.client.sentinel_slaves(SERVICE), "the replica is not seen")
        yield Guarded(master, replica, sentinel)


async def until_answered(gateway: Gateway) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await gateway.stores.store.epochs()
            except StoreUnavailable:
                await asyncio.sleep(0.1)
            else:
                return


@pytest.fixture(autouse=True)
def _everybody_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "QUIET_MS", 600_000)


@pytest.mark.parametrize("client", ["fast", "plain"])
async def test_a_stale_replica_that_becomes_master_is_brought_forward(
    make_gateway: MakeGateway, guarded: Guarded, postgres_url: str, client: str
) -> None:
    settings = settings_on(make_gateway, guarded.url, postgres_url, client)
    async with gateways(settings) as made:
        first = made[0]
        keys = await people(settings, first.stores, ALLOWANCE - 12 * CHARGE)
        drain = drain_of(settings, first.stores, JobsMetrics())
        await spend(made, keys, 4)
        await drain.drain_all()
        assert guarded.master.client.wait(1, 10_000) == 1
        guarded.cut_off()
        await spend(made, keys, 4)  # these are lost by Redis, not by the ledger
        await drain.drain_all()
        await spend(made, keys, 4)  # these by both
        guarded.master.kill()
        until(lambda: guarded.replica.client.info("replication")["role"] == "master", "no failover")

        for gateway in made:  # the failover took longer than a client asks again
            await until_answered(gateway)

        async with draining(settings, first.stores):
            outcomes = await outcomes_of(made, keys)
            verdict = await verify(first.stores, None, 30)
        assert outcomes == {Case.MONTH_USED_UP.value.code: 3 * USERS}
        assert verdict.agrees
        assert [line.ledger_tokens for line in verdict.lines] == [12 * CHARGE] * USERS
        epochs = set((await first.stores.store.epochs()).values())
        assert epochs <= {1, 2}  # raised once where something was lost
        assert 2 in epochs
