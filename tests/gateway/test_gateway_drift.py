"""Redis and the ledger are compared while calls go on: what differs is shown, and can be mended."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from gateway.app.stores import Stores
from gateway.core.quota.settle import Correction
from gateway.core.rid import make_rid
from gateway.jobs.drift import Drift, DriftTerms
from gateway.ports.listings import AuditAsked
from tests.fakes.metrics import SeenMetrics
from tests.gateway.running_gateway import RunningGateway
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


def tampered(user_id: str, tokens: int) -> Callable[[Stores], Awaitable[bool]]:
    """Redis counts so many tokens more, and no event says why."""

    async def tamper(stores: Stores) -> bool:
        snapshot = await stores.store.snapshot(user_id)
        assert snapshot is not None
        rid = make_rid(stores.clock.now_ms(), os.urandom(10))
        where = (snapshot.epoch, AHEAD, snapshot.period_start_ms, None)
        return await stores.store.correct(
            Correction(rid, user_id, "full", None, *where, -tokens, 0, ())
        )

    return tamper


def test_under_load_nothing_differs_and_what_was_tampered_with_is_shown_until_repaired(
    gateway: RunningGateway,
) -> None:
    users = [gateway.new_user("full") for _ in range(3)]

    async def compare(stores: Stores) -> Sequence[object]:
        metrics = SeenMetrics()
        drift = Drift(stores.agreement, stores.payers, DriftTerms(), metrics, stores.clock)
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


def audited(gateway: RunningGateway, user_id: str) -> list[str]:
    async def read(stores: Stores) -> list[str]:
        found = await stores.listings.audit(AuditAsked(50, user_id=user_id))
        return [each.what for each in found]

    return gateway.in_stores(read)
