"""Postgres stops, freezes, takes no writes, or goes back to a backup.

Callers whom a gateway knows notice nothing of it, and in the end every event is booked once. The
gateways' own parts run here in one process, on a Postgres that the tests stop and start.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any, NoReturn

import asyncpg
import pytest

from gateway.adapters.embedded import EmbeddedError, RunningServer, start_postgres
from gateway.adapters.postgres import advisory_lock, connection
from gateway.adapters.postgres.connection import Timeouts, open_pool
from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from gateway.app import stores as app_stores
from gateway.app.jobs_process import drain_of
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores
from gateway.app.verify import verify
from gateway.config import Settings
from gateway.core.identity import KEY_PREFIX
from gateway.core.refusal import Case, Refused
from gateway.jobs import drain as drain_module
from gateway.jobs.upkeep import Upkeep
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.tasks import spawn
from tests.gateway.running_gateway import MakeGateway
from tests.gateway.test_redis_loses import (
    CHARGE,
    Gateway,
    draining,
    gateways,
    settings_on,
)
from tests.new_ledger import put_new_ledger

USERS, CALLS = 12, 60
SHARDS = 16
UNKNOWN_KEY = KEY_PREFIX + "a" * 43
ENOUGH_S = 30.0  # a deadline for what is to come; nothing waits so long unless it fails
SHORT = Timeouts(connect_s=1, acquire_s=1, command_s=1, statement_ms=800, lock_ms=800)
# A statement that is given up, and its connection that is given back; twice, for a busy machine.
BOUND_S = 2 * (SHORT.command_s + SHORT.acquire_s)


class OwnPostgres:
    """A Postgres of the test's own: stopped, frozen, or taken back to an earlier moment."""

    server: RunningServer

    def __init__(self, place: Path) -> None:
        self._place, self._kept = place / "state", place / "kept"

    async def start(self) -> None:
        put_new_ledger(self._place)
        self.server = await start_postgres(self._place)

    async def stop(self) -> None:
        await self.server.stop()

    async def back_up(self) -> None:
        """What is there now is what it will go back to."""
        await self.stop()
        shutil.copytree(self._place / "postgres" / "data", self._kept)
        await self.start()

    async def restore(self) -> None:
        """Come back as it was at the backup."""
        await self.stop()
        data = self._place / "postgres" / "data"
        owner = data.stat()
        shutil.rmtree(data)
        shutil.copytree(self._kept, data)
        for path in (data, *data.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        await self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The postmaster first, so that no session begins that would not be stopped."""
        pid = self.server.pid
        os.kill(pid, SIGSTOP)
        sessions = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for session in sessions:
            os.kill(int(session), SIGSTOP)
        try:
            yield
        finally:
            for session in (*sessions, str(pid)):
                os.kill(int(session), SIGCONT)

    async def ask(self, statement: str) -> Any:
        """The first value of the answer, by a session of its own."""
        session = await asyncpg.connect(self.server.url)
        try:
            return await session.fetchval(statement)
        finally:
            await session.close()


@pytest.fixture
async def own_postgres(missing: Callable[[str], NoReturn]) -> AsyncIterator[OwnPostgres]:
    with tempfile.TemporaryDirectory(prefix="qg-postgres-") as place:
        own = OwnPostgres(Path(place))
        try:
            await own.start()
        except EmbeddedError as error:
            missing(str(error))
        yield own
        await own.stop()


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connection, advisory_lock):
        monkeypatch.setattr(module, "TIMEOUTS", SHORT)
    monkeypatch.setattr(app_stores, "open_pool", partial(open_pool, timeouts=SHORT))


@dataclass
class Rig:
    """Gateways on both stores, with users whom they know; calls of these must all go well."""

    settings: Settings
    made: list[Gateway]
    keys: list[str] = field(default_factory=list)
    calls: int = 0

    @property
    def stores(self) -> Stores:
        return self.made[0].stores

    async def call(self) -> None:
        """CALLS calls, admitted, settled and confirmed."""

        async def one(gateway: Gateway, user: int) -> None:
            await gateway.settle(await gateway.admit(self.keys[user]))

        await asyncio.gather(*(one(self.made[place % 2], place % USERS) for place in range(CALLS)))
        for gateway in self.made:
            await gateway.worker.settlements.confirmed()
        self.calls += CALLS

    async def booked(self) -> int:
        return len(await self.stores.reports.charges(None, 10_000))

    async def drain(self) -> None:
        await drain_of(self.settings, self.stores, JobsMetrics()).drain_all()

    async def all_is_booked_once(self, own: OwnPostgres) -> None:
        """Call by call in the ledger, user by user as Redis has it, and nothing is buried."""
        await self._caught_up()
        verdict = await verify(self.stores, None, wait_s=ENOUGH_S)
        assert verdict.agrees
        assert verdict.open_holds == 0
        assert sum(line.ledger_tokens for line in verdict.lines) == self.calls * CHARGE
        assert await self.booked() == self.calls
        shown = [await self.stores.store.snapshot(f"u{user}") for user in range(USERS)]
        assert sum(known.settled_tokens for known in shown if known) == self.calls * CHARGE
        assert await own.ask("SELECT count(*) FROM ledger_dead") == 0
        assert await own.ask("SELECT sum(settled_tokens) FROM period_usage") == self.calls * CHARGE

    async def _caught_up(self) -> None:
        """Returns once as many calls are booked; Postgres may only just have come back."""
        deadline_s = asyncio.get_running_loop().time() + ENOUGH_S
        while asyncio.get_running_loop().time() < deadline_s:
            with suppress(LedgerUnavailable):
                if await self.booked() >= self.calls:
                    return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{await self.booked()} of {self.calls} calls are booked")


@asynccontextmanager
async def rig_on(
    make_gateway: MakeGateway, redis_url: str, own: OwnPostgres, first: str = "SELECT 1"
) -> AsyncIterator[Rig]:
    """Two gateways that know each user, with calls that are booked. `first` is said to Postgres
    before any of it."""
    settings = settings_on(make_gateway, redis_url, own.server.url)
    async with gateways(settings, count=2) as made:
        await own.ask(first)
        rig = Rig(settings, made)
        accounts = rig.stores.accounts(settings)
        for place in range(USERS):
            await accounts.create_user(f"u{place}", "free")
            rig.keys.append((await accounts.create_key(f"u{place}", pepper_of(settings))).key)
        async with draining(settings, rig.stores):
            for gateway in made:
                for key in rig.keys:
                    assert await gateway.outcome(key) == "admitted"
            await rig.call()
            await rig.all_is_booked_once(own)
        yield rig


async def test_postgres_stopped_under_load_costs_callers_nothing_and_loses_no_event(
    make_gateway: MakeGateway, redis_url: str, own_postgres: OwnPostgres
) -> None:
    async with rig_on(make_gateway, redis_url, own_postgres) as rig:
        async with draining(rig.settings, rig.stores):
            load = spawn(rig.call(), "load", awaited=True)
            await own_postgres.stop()
            await load
            await rig.call()  # all of it while Postgres is away
        streams = [await rig.stores.streams.backlog(shard, "0-0") for shard in range(SHARDS)]
        assert sum(events for events, _ in streams) >= rig.calls
        await own_postgres.start()
        async with draining(rig.settings, rig.stores):
            await rig.all_is_booked_once(own_postgres)


async def test_a_frozen_postgres_is_given_up_in_time_and_booked_to_when_it_goes_on(
    make_gateway: MakeGateway, redis_url: str, own_postgres: OwnPostgres
) -> None:
    async with (
        rig_on(make_gateway, redis_url, own_postgres) as rig,
        draining(rig.settings, rig.stores),
    ):
        with own_postgres.frozen():
            await rig.call()
            async with asyncio.timeout(BOUND_S):
                with pytest.raises(Refused) as refused:
                    await rig.made[0].admit(UNKNOWN_KEY)
            assert refused.value.case is Case.QUOTA_BACKEND_UNAVAILABLE
            async with asyncio.timeout(BOUND_S):
                with pytest.raises(LedgerUnavailable):
                    await rig.drain()  # in mid-transaction, if Postgres had let it begin
        with pytest.raises(Refused) as refused:
            await rig.made[0].admit(UNKNOWN_KEY)
        assert refused.value.case is Case.INVALID_API_KEY
        await rig.all_is_booked_once(own_postgres)


READ_ONLY = (
    ("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"),
    ("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()"),
)
# What a server says that cannot make a file longer.
FULL = (
    (
        "CREATE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'could not extend file: No space left on device'"
        " USING ERRCODE = 'disk_full'; END $$",
        "CREATE TRIGGER no_room BEFORE INSERT ON ledger"
        " FOR EACH ROW EXECUTE FUNCTION disk_is_full()",
    ),
    ("DROP TRIGGER no_room ON ledger",),
)


@pytest.mark.parametrize(("breaks", "mends"), [READ_ONLY, FULL], ids=["read only", "full"])
async def test_a_server_that_takes_no_writes_buries_nothing(
    make_gateway: MakeGateway,
    redis_url: str,
    own_postgres: OwnPostgres,
    breaks: tuple[str, ...],
    mends: tuple[str, ...],
) -> None:
    async with rig_on(make_gateway, redis_url, own_postgres) as rig:
        before = await rig.booked()
        for statement in breaks:
            await own_postgres.ask(statement)
        await rig.call()
        for _ in range(2):
            with pytest.raises(LedgerUnavailable):
                await rig.drain()
        assert await rig.booked() == before
        for statement in mends:
            await own_postgres.ask(statement)
        async with draining(rig.settings, rig.stores):
            await rig.all_is_booked_once(own_postgres)


async def test_what_a_restored_ledger_lacks_is_booked_again_from_the_outbox(
    make_gateway: MakeGateway, redis_url: str, own_postgres: OwnPostgres
) -> None:
    async with rig_on(make_gateway, redis_url, own_postgres) as rig:
        await own_postgres.back_up()
        at_backup = rig.calls
        async with draining(rig.settings, rig.stores):
            await rig.call()
            await rig.all_is_booked_once(own_postgres)
        await rig.call()  # these were never booked
        await own_postgres.restore()
        assert await own_postgres.ask("SELECT count(*) FROM ledger WHERE kind='usage'") == at_backup
        async with draining(rig.settings, rig.stores):
            await rig.all_is_booked_once(own_postgres)


async def test_what_was_read_ahead_is_not_booked_past_what_a_restored_ledger_lacks(
    make_gateway: MakeGateway,
    redis_url: str,
    own_postgres: OwnPostgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with rig_on(make_gateway, redis_url, own_postgres) as rig:
        await own_postgres.back_up()
        await rig.call()
        monkeypatch.setattr(drain_module, "BATCH_ROWS_MAX", 2)
        drain = drain_of(rig.settings, rig.stores, JobsMetrics())
        await drain.step()  # books two of each shard, and has read the next two
        await own_postgres.restore()
        await drain.step()
        rig.stores.ledger.unlock_shards()
        await drain.drain_all()
        await rig.all_is_booked_once(own_postgres)


async def test_a_user_who_was_changed_after_the_backup_may_go_on(
    make_gateway: MakeGateway, redis_url: str, own_postgres: OwnPostgres
) -> None:
    async with rig_on(make_gateway, redis_url, own_postgres) as rig:
        await own_postgres.back_up()
        accounts = rig.stores.accounts(rig.settings)
        for used in (10, 20, 30):
            await accounts.set_used("u0", used, "changed after the backup", "tests")
        await own_postgres.restore()
        async with gateways(rig.settings, count=1) as (fresh,):
            assert await fresh.outcome(rig.keys[0]) == "admitted"


async def went_well(upkeep: Upkeep) -> bool:
    try:
        await upkeep.step()
    except LedgerUnavailable:
        return False
    return True


async def test_rows_without_a_partition_fall_into_the_net_and_stop_no_upkeep(
    make_gateway: MakeGateway, redis_url: str, own_postgres: OwnPostgres
) -> None:
    drop_partitions = """
        DO $$ DECLARE month text; BEGIN
            FOR month IN SELECT inhrelid::regclass FROM pg_inherits
                WHERE inhparent = 'ledger'::regclass AND inhrelid <> 'ledger_default'::regclass
            LOOP EXECUTE 'DROP TABLE ' || month; END LOOP;
        END $$"""
    in_net = "SELECT count(*) FROM ledger_default WHERE kind = 'usage'"
    months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'ledger'::regclass"
    async with rig_on(make_gateway, redis_url, own_postgres, drop_partitions) as rig:
        assert await own_postgres.ask(in_net) == rig.calls
        tiers = rig.settings.plan.tiers
        upkeep = Upkeep(rig.stores.ledger, tiers, JobsMetrics(), rig.stores.clock)
        async with asyncio.timeout(ENOUGH_S):
            while not await went_well(
                upkeep
            ):  # making five tables takes its time on a busy machine
                continue
        # The net, and five months but the one that has entries in the net.
        assert await own_postgres.ask(months) == 1 + 5 - 1
        await rig.call()
        async with draining(rig.settings, rig.stores):
            await rig.all_is_booked_once(own_postgres)
        assert await own_postgres.ask(in_net) == rig.calls
