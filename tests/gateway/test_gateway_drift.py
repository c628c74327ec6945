"""Redis and the ledger are compared while calls go on: what differs is shown, and can be mended."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Event

from gateway.adapters.postgres.reports import ExportFilter
from gateway.app.stores import Stores
from gateway.core.event import PackSplit
from gateway.core.quota.entitle import Entitlement, Snapshot
from gateway.core.quota.settle import Correction
from gateway.core.rid import make_rid
from gateway.jobs.drift import Drift
from gateway.ports.listings import AuditAsked
from tests.fakes.metrics import SeenMetrics
from tests.gateway.running_gateway import Row, RunningGateway
from tests.gateway.waiting_for import until

WAIT_S = 90.0
AHEAD = f"{2**53 - 1}-0"


@contextmanager
def load(gateway: RunningGateway, keys: list[str]) -> Iterator[None]:
    """Calls without a pause, until the block ends."""
    stop, begun = Event(), Event()

    def keep_calling(key: str) -> int:
        calls = 0
        while not stop.is_set():
            calls += gateway.chat(key, "Hello").status == 200
            begun.set()
        return calls

    with ThreadPoolExecutor(len(keys)) as threads:
        callers = [threads.submit(keep_calling, key) for key in keys]
        try:
            assert begun.wait(WAIT_S)
            yield
        finally:
            stop.set()
        assert sum(caller.result() for caller in callers) > len(keys)


def tampered(
    user_id: str, tokens: int, pack_split: PackSplit = ()
) -> Callable[[Stores], Awaitable[bool]]:
    """Redis counts so many tokens more, of these some paid by packs, and no event says why."""

    async def tamper(stores: Stores) -> bool:
        snapshot = await stores.store.snapshot(user_id)
        assert snapshot is not None
        rid = make_rid(stores.clock.now_ms(), os.urandom(10))
        where = (snapshot.epoch, AHEAD, snapshot.period_start_ms, None)
        taken = tuple((pack_id, -paid) for pack_id, paid in pack_split)
        return await stores.store.correct(
            Correction(rid, user_id, "full", None, *where, -tokens, 0, taken)
        )

    return tamper


def test_under_load_nothing_differs_and_what_was_tampered_with_is_shown_until_repaired(
    gateway: RunningGateway,
) -> None:
    users = [gateway.new_user("full") for _ in range(3)]

    async def compare(stores: Stores) -> Sequence[object]:
        metrics = SeenMetrics()
        drift = Drift(stores.agreement, stores.payers, metrics, stores.clock)
        for _ in range(3):
            await drift.step()
        return metrics.seen

    keys, account = [key for _, key in users], users[0][0]
    with load(gateway, keys):
        assert gateway.in_stores(compare) == [("drift", 0)] * 3
        assert gateway.in_stores(tampered(account, 500))
    assert gateway.metric("drift_tokens") in (0, 500)
    until(lambda: gateway.metric("drift_tokens") == 500, WAIT_S, "the drift to be shown")
    told = gateway.command("ledger", "repair", "--user", account)
    assert told.returncode == 1, told.stderr
    assert "would be repaired: Redis had +500 used tokens against the ledger" in told.stdout
    assert "repair" not in audited(gateway, account)
    with load(gateway, keys):
        (line,) = gateway.cli("ledger", "repair", "--apply")["differ"]
    assert (line["account"], line["settled_tokens"], line["is_repaired"]) == (account, 500, True)
    until(lambda: gateway.metric("drift_tokens") == 0, WAIT_S, "the drift to be gone")
    assert gateway.cli("ledger", "verify")["agrees"]
    assert gateway.cli("ledger", "repair")["differ"] == []
    assert "repair" in audited(gateway, account)


def test_what_the_ledger_lost_is_booked_there_and_redis_stays(gateway: RunningGateway) -> None:
    account, key = gateway.new_user("full")
    pack_id = with_a_pack(gateway, account, key)
    gateway.in_stores(tampered(account, 500, ((pack_id, 120),)))
    before = counters(gateway, account)
    mend = ("ledger", "repair", "--user", account)
    told = gateway.command(*mend, "--book", "the backup of Monday")
    assert "would be booked in the ledger: Redis had +500 used tokens" in told.stdout, told.stderr
    assert not corrections(gateway, account)
    with load(gateway, [key]):
        booked = gateway.command(*mend, "--book", "the backup of Monday", "--apply")
    assert booked.returncode == 0, booked.stdout + booked.stderr
    (entry,) = corrections(gateway, account)
    assert (entry["charged_tokens"], entry["from_packs"]) == (500, 120)
    assert (entry["reason"], entry["author"]) == ("the backup of Monday", "cli:repair")
    assert "book_correction" in audited(gateway, account)
    after = counters(gateway, account)
    assert after.settled_tokens > before.settled_tokens  # by the calls since, and nothing else
    assert (after.from_packs, after.packs) == (before.from_packs, before.packs)
    assert gateway.cli("ledger", "verify")["agrees"]


def test_nothing_is_booked_that_lowers_what_was_used_and_packs_are_mended_in_redis(
    gateway: RunningGateway,
) -> None:
    account, key = gateway.new_user("full")
    pack_id = with_a_pack(gateway, account, key)
    right = counters(gateway, account)
    mend = ("ledger", "repair", "--user", account, "--apply")
    assert gateway.in_stores(tampered(account, -3))
    refused = gateway.command(*mend, "--book", "to see what happens")
    assert refused.returncode == 1
    assert "not booked, for the ledger lacks nothing here" in refused.stdout
    assert not corrections(gateway, account)
    empty = gateway.command(*mend, "--book", " ")
    assert (empty.returncode, empty.stdout) == (1, "")
    assert "a reason is needed" in empty.stderr
    assert gateway.in_stores(tampered(account, 43, ((pack_id, 40),)))
    gateway.in_stores(told_more_adjusted(account, 700))
    (line,) = gateway.cli(*mend)["differ"]
    assert (line["settled_tokens"], line["adjusted_tokens"], line["from_packs"]) == (40, 700, 40)
    assert line["is_repaired"]
    assert replace(counters(gateway, account), rev=0) == replace(right, rev=0)


def told_more_adjusted(user_id: str, tokens: int) -> Callable[[Stores], Awaitable[object]]:
    """Redis was told of an adjustment that the ledger does not have."""

    async def tell(stores: Stores) -> object:
        known = await stores.store.snapshot(user_id)
        assert known is not None
        told = Entitlement(
            user_id,
            known.rev + 1,
            known.period_start_ms,
            known.adjusted_tokens + tokens,
            known.packs,
        )
        return await stores.store.entitle(told, known.period_end_ms)

    return tell


def counters(gateway: RunningGateway, user_id: str) -> Snapshot:
    """What Redis counts, at whatever event."""

    async def read(stores: Stores) -> Snapshot:
        snapshot = await stores.store.snapshot(user_id)
        assert snapshot is not None
        return replace(snapshot, stream_id="")

    return gateway.in_stores(read)


def with_a_pack(gateway: RunningGateway, user_id: str, key: str) -> str:
    """The id of a pack that Redis knows, as the user has called."""
    gateway.cli("topup", "credit", user_id, "--payment", f"till-{user_id}")
    assert gateway.chat(key, "Hello").status == 200
    (pack,) = counters(gateway, user_id).packs
    return pack.pack_id


def corrections(gateway: RunningGateway, user_id: str) -> list[Row]:
    async def read(stores: Stores) -> list[Row]:
        entries = stores.reports.export(ExportFilter(user_id=user_id))
        return [row async for row in entries if row["kind"] == "correction"]

    return gateway.in_stores(read)


def audited(gateway: RunningGateway, user_id: str) -> list[str]:
    async def read(stores: Stores) -> list[str]:
        found = await stores.listings.audit(AuditAsked(50, user_id=user_id))
        return [each.what for each in found]

    return gateway.in_stores(read)
