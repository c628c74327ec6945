"""On another server the drain reads all again, and takes back what Redis counted twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.hold import Ending
from gateway.core.quota.settle import Correction
from gateway.core.rid import derived_rid
from gateway.core.usage import Usage
from gateway.jobs import drain as drain_module
from gateway.ports.ledger import Cursor, LedgerUnavailable
from gateway.ports.quota_store import StoreUnavailable
from tests.fakes.flow_rig import FlowRig
from tests.fakes.store import SHARDS, Trouble
from tests.unit.jobs.test_jobs_drain import ADA, drain_of

ENDING = Ending(Usage(20, 0, 30, 0), "measured", "done", 200)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "_WAIT_MS", 1)


OUTBOX = f"qg:{{{ADA:02d}}}:o"


def another_server(rig: FlowRig) -> None:
    """It has the same data, and calls itself something else."""
    rig.redis.go_back(rig.redis.saved())


async def another_server_that_lost_the_newest(rig: FlowRig) -> None:
    """And goes on with the ids after it, as one does that the gateways have compared."""
    assert await rig.redis.client.xdel(OUTBOX, rig.ledger.at[ADA].stream_id) == 1
    another_server(rig)


async def spend(rig: FlowRig, times: int) -> str:
    """So many calls of a new user; their key."""
    key = await rig.user(tier="lite")
    for _ in range(times):
        await rig.spend(key)
    return key


# --- reading again -----------------------------------------------------------------------------


async def test_a_server_is_noted_for_every_shard_and_then_read_on_from_the_cursors(
    rig: FlowRig,
) -> None:
    await spend(rig, 2)
    drain, outbox = drain_of(rig)
    await drain.step()
    assert {cursor.server_id for cursor in rig.ledger.at.values()} == {"server"}
    assert len(rig.ledger.at) == SHARDS
    read = len(outbox.reads)
    await drain.step()
    assert [reads[ADA] for reads in outbox.reads[read:]] == [rig.ledger.at[ADA].stream_id]


async def test_another_server_that_has_what_was_booked_last_is_read_on_from_the_cursors(
    rig: FlowRig,
) -> None:
    key = await spend(rig, 3)
    drain, outbox = drain_of(rig)
    await drain.step()
    another_server(rig)
    for _ in range(2):
        await rig.spend(key)
    outbox.reads.clear()
    cursor = rig.ledger.at[ADA].stream_id
    await drain.drain_all()
    assert {reads[ADA] for reads in outbox.reads} == {cursor, rig.ledger.at[ADA].stream_id}
    assert rig.ledger.at[ADA].server_id == await rig.redis.streams.server_id() != "server"
    assert len(rig.metrics.of("booked")) == 5


@pytest.mark.parametrize("other", ["new", "spoilt", "double"])
async def test_another_event_in_the_place_of_the_last_one_is_no_proof(
    rig: FlowRig, other: str
) -> None:
    """The server went back, and its clock with it."""
    key = await spend(rig, 2)
    drain, outbox = drain_of(rig)
    await drain.step()
    place = rig.ledger.at[ADA].stream_id
    await rig.spend(key)
    (_, first), _, (_, third) = await rig.redis.client.xrange(OUTBOX)
    fields = {"new": third, "spoilt": {b"e": b"?", b"b": b"?"}, "double": first}[other]
    await rig.redis.client.delete(OUTBOX)
    await rig.redis.client.xadd(OUTBOX, fields, place)
    another_server(rig)
    outbox.reads.clear()
    await drain.drain_all()
    assert "0-0" in [reads[ADA] for reads in outbox.reads]
    assert len(rig.ledger.rows) == (3 if other == "new" else 2)
    assert len(rig.ledger.buried) == (other == "spoilt")
    assert len(rig.store.corrections) == (other == "double")


async def test_another_server_is_read_from_the_start_up_to_the_cursors_and_once(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "BATCH_ROWS_MAX", 2)
    await spend(rig, 5)
    drain, outbox = drain_of(rig)
    await drain.drain_all()
    cursor = rig.ledger.at[ADA].stream_id
    await another_server_that_lost_the_newest(rig)
    outbox.reads.clear()
    await drain.step()
    begins = [reads[ADA] for reads in outbox.reads if ADA in reads]
    assert begins[0] == begins[-1] == cursor  # what was read before it showed is read again
    assert begins[1] == "0-0"
    assert len(begins) == 5  # between: 2, 2, none
    assert rig.ledger.at[ADA].server_id == await rig.redis.streams.server_id() != "server"
    outbox.reads.clear()
    await drain.step()
    assert [reads[ADA] for reads in outbox.reads] == [cursor]
    assert len(rig.metrics.of("booked")) == 5


@pytest.mark.parametrize("whole", [False, True])
async def test_what_another_server_wrote_below_the_cursor_is_booked(
    rig: FlowRig, whole: bool
) -> None:
    """Its clock was behind that of the server before it."""
    drain, _ = drain_of(rig)
    await drain.step()
    far = f"{rig.clock.now_ms() + 10**9}-0"
    rig.ledger.at[ADA] = replace(rig.ledger.at[ADA], stream_id=far)
    await spend(rig, 3)
    await drain.step()
    assert rig.ledger.rows == {}  # the same server gives no id twice: nothing can be there
    another_server(rig)
    await (drain.drain_all() if whole else drain.step())
    assert [row.charged_tokens for row in rig.ledger.rows.values()] == [50] * 3
    assert rig.ledger.at[ADA].stream_id == far


async def test_what_lies_past_the_cursor_is_left_to_the_usual_reading(rig: FlowRig) -> None:
    key = await spend(rig, 1)
    drain, outbox = drain_of(rig)
    await drain.step()
    for _ in range(2):
        await rig.spend(key)
    await another_server_that_lost_the_newest(rig)
    outbox.reads.clear()
    booked = len(rig.metrics.of("lag_seconds"))
    await drain.step()
    assert len(rig.metrics.of("lag_seconds")) == booked + 1  # one batch was booked, not two
    assert len(rig.ledger.rows) == 3


async def test_a_server_is_noted_only_after_all_of_it_was_read(rig: FlowRig) -> None:
    await spend(rig, 2)
    drain, outbox = drain_of(rig)
    await drain.step()
    await another_server_that_lost_the_newest(rig)
    rig.ledger.refuse_books = 1
    with pytest.raises(LedgerUnavailable):
        await drain.step()
    assert rig.ledger.at[ADA].server_id == "server"
    outbox.reads.clear()
    await drain.step()
    assert outbox.reads[0][ADA] == "0-0"
    assert rig.ledger.at[ADA].server_id != "server"


# --- taking back -------------------------------------------------------------------------------


async def counted_twice(rig: FlowRig, user_id: str = "ada", payer: str = "ada") -> int:
    """A call of 50 tokens that the ledger has, and whose hold a server that went back still had: it
    expired there, in the epoch after. The tokens of that expiry."""
    key = await rig.user(payer, "lite")
    key = key if user_id == payer else await rig.member(user_id, payer)
    hold = (await rig.admission.admit(rig.call(key, stream=True))).hold
    saved = rig.redis.saved()
    await rig.settlements.settle(hold, ENDING)
    await rig.settled()
    await drain_of(rig)[0].drain_all()
    rig.redis.go_back(saved)
    await rig.shards.open_all()
    await rig.hydrator.hydrate(payer, rig.period, None if user_id == payer else user_id)
    await rig.expire()
    assert (await rig.account(payer)).settled_tokens == 50 + hold.hold_tokens
    return hold.hold_tokens


async def test_an_event_that_is_booked_at_another_place_is_taken_back(rig: FlowRig) -> None:
    tokens = await counted_twice(rig)
    await drain_of(rig)[0].step()
    assert (await rig.account()).settled_tokens == 50
    (row,) = rig.ledger.rows.values()
    assert row.charged_tokens == 50
    double = (await rig.rows())[-1]
    assert double.event_id == row.event_id
    assert rig.store.corrections == [
        Correction(
            rid=derived_rid(row.event_id, f"2 {double.stream_id}"),
            payer="ada",
            tier="lite",
            member=None,
            epoch=2,
            stream_id=double.stream_id,
            period_start_ms=rig.period.start_ms,
            tier_period_start_ms=None,
            charged_tokens=tokens,
            cost_nano_gbp=double.cost_nano_gbp,
            pack_split=(),
        )
    ]


async def test_a_member_s_event_is_taken_back_from_the_member_too(rig: FlowRig) -> None:
    await counted_twice(rig, "ben", "team")
    await drain_of(rig)[0].step()
    member = await rig.store.snapshot("team", "ben")
    assert member is not None
    assert ((await rig.account("team")).settled_tokens, member.settled_tokens) == (50, 50)
    assert [each.member for each in rig.store.corrections] == ["ben"]


async def test_it_is_taken_back_before_the_commit(rig: FlowRig) -> None:
    await counted_twice(rig)
    before, seen = rig.ledger.at[ADA], list[Cursor]()

    async def look(where: str) -> None:
        if where == "after correct":
            seen.append(rig.ledger.at[ADA])

    rig.store.pause = look
    await drain_of(rig)[0].drain_all()
    assert [cursor.stream_id for cursor in seen] == [before.stream_id]
    assert rig.ledger.at[ADA].stream_id != before.stream_id


@pytest.mark.parametrize("trouble", ["never arrives", "reply lost"])
async def test_what_could_not_be_taken_back_is_read_again_and_taken_back_once(
    rig: FlowRig, trouble: Trouble
) -> None:
    await counted_twice(rig)
    drain, before = drain_of(rig)[0], rig.ledger.at[ADA].stream_id
    rig.store.trouble("correct", trouble)
    with pytest.raises(StoreUnavailable):
        await drain.step()
    assert rig.ledger.at[ADA].stream_id == before
    await drain.step()
    assert rig.ledger.at[ADA].stream_id != before
    assert len(rig.store.corrections) == 2
    assert len({each.rid for each in rig.store.corrections}) == 1
    assert (await rig.account()).settled_tokens == 50


async def test_a_commit_that_is_lost_after_the_taking_back_takes_back_no_more(
    rig: FlowRig,
) -> None:
    await counted_twice(rig)
    before, drain = dict(rig.ledger.at), drain_of(rig)[0]
    await drain.step()
    rig.ledger.at = before  # as if it had never been committed
    await drain.step()
    assert len(rig.store.corrections) == 2
    assert (await rig.account()).settled_tokens == 50
