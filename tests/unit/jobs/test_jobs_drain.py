"""The drain books each event exactly once, whatever fails in between, and keeps within bounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.core.identity import shard_of
from gateway.jobs import drain as drain_module
from gateway.jobs.drain import Drain, DrainTerms
from gateway.jobs.service import run_forever
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.outbox import OutboxEntry
from gateway.ports.quota_store import StoreUnavailable
from tests.fakes.flow_rig import FlowRig, until
from tests.fakes.store import SHARDS

TERMS = DrainTerms(SHARDS, retain_s=600, retain_bytes=1000)
ADA = shard_of("ada", SHARDS)
BOB = next(name for name in ("bob", "bill", "ben") if shard_of(name, SHARDS) != ADA)


class WatchedOutbox:
    """Fulfils ports.outbox.Outbox: reads pass, trims are noted (fakeredis has no MEMORY)."""

    def __init__(self, rig: FlowRig) -> None:
        self._streams = rig.redis.streams
        self.reads: list[dict[int, str]] = []
        self.trims: list[tuple[int, str, int, str]] = []

    async def server_id(self) -> str:
        return await self._streams.server_id()

    async def read(
        self, cursors: dict[int, str], rows_max: int, wait_ms: int
    ) -> Sequence[OutboxEntry]:
        self.reads.append(cursors)
        return await self._streams.read(cursors, rows_max, wait_ms)

    async def at(self, cursors: dict[int, str]) -> Sequence[OutboxEntry]:
        return await self._streams.at(cursors)

    async def backlog(self, shard: int, cursor: str) -> tuple[int, str | None]:
        return await self._streams.backlog(shard, cursor)

    async def trim(self, shard: int, before_id: str, bytes_max: int, cursor: str) -> None:
        self.trims.append((shard, before_id, bytes_max, cursor))


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "_WAIT_MS", 1)


def drain_of(rig: FlowRig) -> tuple[Drain, WatchedOutbox]:
    outbox = WatchedOutbox(rig)
    return Drain(outbox, (rig.store, rig.ledger), TERMS, rig.metrics, rig.clock), outbox


async def spend(rig: FlowRig, times: int = 1, user_id: str = "ada") -> None:
    """So many calls of one new user, 50 tokens each."""
    key = await rig.user(user_id, "lite")
    for _ in range(times):
        await rig.spend(key)


def booked(rig: FlowRig) -> list[int]:
    return [row.charged_tokens for row in rig.ledger.rows.values()]


async def add(rig: FlowRig, fields: dict[str, Any]) -> str:
    stream_id: bytes = await rig.redis.client.xadd(f"qg:{{{ADA:02d}}}:o", fields)
    return stream_id.decode()


async def test_every_settled_call_becomes_a_row(rig: FlowRig) -> None:
    await spend(rig, 3)
    await spend(rig, 2, BOB)
    drain, _ = drain_of(rig)
    assert 0 < await drain.step() < 0.5
    assert await drain.step() == 0
    assert booked(rig) == [50] * 5
    assert [row.event.payer for row in rig.metrics.of("booked")].count(BOB) == 2
    assert rig.metrics.of("dead") == []


async def test_what_is_booked_is_not_read_again_by_this_drain_or_the_next(rig: FlowRig) -> None:
    await spend(rig, 3)
    await drain_of(rig)[0].step()
    again, outbox = drain_of(rig)
    await again.step()
    assert outbox.reads[0][ADA] == rig.ledger.at[ADA].stream_id != "0-0"
    assert len(rig.metrics.of("booked")) == 3


async def test_a_ledger_lost_between_read_and_commit_is_read_for_again(rig: FlowRig) -> None:
    await spend(rig, 3)
    rig.ledger.refuse_books = 2
    drain, outbox = drain_of(rig)
    for _ in range(2):
        with pytest.raises(LedgerUnavailable):
            await drain.step()
    assert booked(rig) == []
    await drain.step()
    assert booked(rig) == [50] * 3
    assert outbox.reads[:3] == [outbox.reads[0]] * 3
    assert len(rig.metrics.of("booked")) == 3


async def test_a_commit_whose_confirmation_was_lost_books_nothing_twice(rig: FlowRig) -> None:
    await spend(rig, 3)
    before = dict(rig.ledger.at)
    drain, _ = drain_of(rig)
    await drain.step()
    rig.ledger.at = before  # as if the drain had never heard of its commit
    await drain.step()
    assert booked(rig) == [50] * 3
    assert len(rig.metrics.of("booked")) == 3


async def test_what_waits_is_seen_growing_while_the_ledger_is_away(rig: FlowRig) -> None:
    drain, _ = drain_of(rig)
    await drain.step()
    await spend(rig, 3)
    rig.ledger.away = True
    with pytest.raises(LedgerUnavailable):
        await drain.step()
    shown = {shard: events for shard, events, _ in rig.metrics.of("outbox")}
    assert sum(shown.values()) == 3


async def test_the_drain_goes_on_by_itself_after_an_outage(rig: FlowRig) -> None:
    await spend(rig, 2)
    rig.ledger.away = True
    drain, _ = drain_of(rig)
    running = asyncio.ensure_future(run_forever(drain, asyncio.Lock()))
    await asyncio.sleep(0)
    rig.ledger.away = False
    await until(lambda: len(rig.ledger.rows) == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_only_the_one_drainer_reads(rig: FlowRig) -> None:
    await spend(rig)
    rig.ledger.leads = False
    drain, outbox = drain_of(rig)
    assert await drain.step() == 2.0
    assert (outbox.reads, booked(rig)) == ([], [])


async def test_a_drainer_that_is_cut_off_gives_way_and_one_of_a_moment_does_not(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spend(rig)
    drain, outbox = drain_of(rig)
    await drain.step()

    async def lost(cursors: dict[int, str], rows_max: int, wait_ms: int) -> Sequence[OutboxEntry]:
        raise StoreUnavailable("this gateway is cut off")

    held = []
    with monkeypatch.context() as patched:
        patched.setattr(outbox, "read", lost)
        for seconds in (1.9, 0.2):
            rig.clock.pass_s(seconds)
            with pytest.raises(StoreUnavailable):
                await drain.step()
            held.append(not rig.ledger.lock_lost())
    assert held == [True, False]
    await spend(rig, 1, BOB)
    again = asyncio.ensure_future(drain.step())
    await asyncio.sleep(0)
    assert rig.ledger.lock_lost()  # it waits, so that others have the time to ask
    again.cancel()
    rig.clock.pass_s(3.1)
    await drain.step()  # nobody else was there
    assert booked(rig) == [50] * 2


@pytest.mark.parametrize(
    "fields",
    [
        {"e": "{}", "b": "1 1 1 1 1 1 1 1 1 1"},
        {"e": "not json", "b": "1 1 1 1 1 1 1 1 1 1"},
        {"e": "", "b": ""},
        {"skip": "1"},
    ],
    ids=str,
)
async def test_an_entry_that_cannot_be_booked_is_buried_with_its_reason_and_the_rest_goes_on(
    rig: FlowRig, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    await spend(rig, 1)
    stream_id = await add(rig, fields)
    drain, _ = drain_of(rig)
    with caplog.at_level(logging.ERROR, "gateway.drain"):
        await drain.step()
    assert booked(rig) == [50]
    (buried,) = rig.ledger.buried
    assert (buried.shard, buried.stream_id) == (ADA, stream_id)
    assert buried.event_json == fields.get("e", "").encode()
    assert buried.reason
    assert rig.metrics.of("dead") == [1]
    assert "ledger_dead" in caplog.text
    assert rig.ledger.at[ADA].stream_id == stream_id
    await drain.step()
    assert len(rig.ledger.buried) == 1


async def test_drain_all_takes_batch_after_batch_to_the_end(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "BATCH_ROWS_MAX", 2)
    await spend(rig, 5)
    drain, outbox = drain_of(rig)
    await drain.drain_all()
    assert booked(rig) == [50] * 5
    assert len(outbox.reads) == 4  # 2, 2, 1, none


async def test_of_a_backlog_the_next_batch_is_read_while_one_is_booked(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "BATCH_ROWS_MAX", 2)
    await spend(rig, 5)
    drain, outbox = drain_of(rig)
    rests = [await drain.step() for _ in range(3)]
    assert booked(rig) == [50] * 5
    assert rests[:2] == [0, 0]
    assert 0 < rests[2] < 0.5
    assert len(outbox.reads) == 3
    assert len(rig.metrics.of("booked")) == 5


async def test_what_was_read_ahead_of_a_booking_that_failed_is_read_again(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "BATCH_ROWS_MAX", 2)
    await spend(rig, 5)
    rig.ledger.refuse_books = 1
    drain, outbox = drain_of(rig)
    with pytest.raises(LedgerUnavailable):
        await drain.step()
    assert len(outbox.reads) == 2
    for _ in range(3):
        await drain.step()
    assert booked(rig) == [50] * 5
    assert outbox.reads[2] == outbox.reads[0]


async def test_an_empty_reading_ahead_does_not_hide_what_came_after_it(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "BATCH_ROWS_MAX", 2)
    await spend(rig, 2)
    drain, _ = drain_of(rig)
    await drain.step()
    await spend(rig, 1, BOB)
    await drain.drain_all()
    assert booked(rig) == [50] * 3


async def test_a_reading_ahead_that_failed_takes_nothing_from_what_was_booked_beside_it(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "BATCH_ROWS_MAX", 2)
    await spend(rig, 5)
    drain, outbox = drain_of(rig)
    read = outbox.read

    async def lost(cursors: dict[int, str], rows_max: int, wait_ms: int) -> Sequence[OutboxEntry]:
        found = await read(cursors, rows_max, wait_ms)
        if len(outbox.reads) == 2:
            raise StoreUnavailable("the reply is lost")
        return found

    monkeypatch.setattr(outbox, "read", lost)
    with pytest.raises(StoreUnavailable):
        await drain.step()
    assert booked(rig) == [50] * 2
    await drain.drain_all()
    assert booked(rig) == [50] * 5
    assert outbox.reads[2] == outbox.reads[1]


async def test_the_outbox_is_trimmed_within_age_and_size_and_never_past_the_cursor(
    rig: FlowRig,
) -> None:
    await spend(rig, 2)
    drain, outbox = drain_of(rig)
    await drain.step()
    cursor = rig.ledger.at[ADA].stream_id
    keep_from = f"{rig.clock.now_ms() - 600_000}-0"
    assert (ADA, keep_from, 1000 // SHARDS, cursor) in outbox.trims
    assert (1 - ADA, keep_from, 1000 // SHARDS, "0-0") in outbox.trims


async def test_trimming_happens_now_and_then_and_not_with_every_batch(rig: FlowRig) -> None:
    drain, outbox = drain_of(rig)
    for seconds in (0, 1, 3.9, 0.1, 4.9, 0.1):
        rig.clock.pass_s(seconds)
        await drain.step()
    assert len(outbox.trims) == 3 * SHARDS


async def test_what_waits_to_be_booked_is_shown_with_its_age(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "BATCH_ROWS_MAX", 1)
    await spend(rig, 3)
    rig.clock.pass_s(30)
    drain, _ = drain_of(rig)
    await drain.step()
    shown = {shard: (events, age_s) for shard, events, age_s in rig.metrics.of("outbox")}
    assert shown[1 - ADA] == (0, 0.0)
    events, age_s = shown[ADA]
    assert events == 2
    assert 25 < age_s < 31
    (lag_s,) = rig.metrics.of("lag_seconds")
    assert 25 < lag_s < 31
    assert (ADA, 1) in rig.metrics.of("epoch")


async def test_a_clock_behind_the_store_s_shows_no_lag_below_zero(rig: FlowRig) -> None:
    await spend(rig)
    rig.clock.ms -= 60_000
    await drain_of(rig)[0].step()
    assert rig.metrics.of("lag_seconds") == [0.0]
