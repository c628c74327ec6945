"""A hold is booked as expired, and its settlement comes after Redis has forgotten that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.core.event import LedgerRow, PackSplit
from gateway.core.quota.packs import total
from gateway.core.quota.settle import correction_of
from gateway.core.rid import derived_rid
from gateway.ports.ledger import BookReply, Watermark
from tests.contract.ledger_samples import NOVEMBER_MS, TakenBack, no_doubles, sample_row

STREAM = {"stream": True, "quality": "estimated", "outcome": "expired", "status": 0}
WHOLE = {"stream": False, "quality": "estimated", "outcome": "unknown_upstream", "status": 0}


def expiry(charge: int = 20, **changes: Any) -> LedgerRow:
    """The sweeper's row of a stream of which so much was charged."""
    told = {**STREAM, "charged_tokens": charge, "cost_nano_gbp": 10 * charge, **changes}
    told.setdefault("from_allowance", charge - told.get("from_packs", 0))
    return sample_row("5-0", **told)


def settlement(of: LedgerRow, charge: int = 30, **changes: Any) -> LedgerRow:
    """The gateway's row of the same call, in the epoch after Redis was emptied."""
    told = {
        "charged_tokens": charge, "cost_nano_gbp": 10 * charge, "stream": of.event.stream,
        "epoch": 2, "held_tokens": 0, "account_seq": 7, **changes,
    }  # fmt: skip
    told.setdefault("from_allowance", charge - told.get("from_packs", 0))
    return sample_row(told.pop("stream_id", "6-0"), event_id=of.event_id, **told)


async def corrections(pool: Pool) -> list[dict[str, Any]]:
    return [dict(row) for row in await pool.fetch("SELECT * FROM ledger WHERE kind <> 'usage'")]


TOTALS = """
SELECT sum(charged_tokens)::bigint, sum(from_packs)::bigint, sum(cost_nano_gbp)::bigint FROM ledger
UNION ALL
SELECT sum(settled_tokens)::bigint, sum(from_packs)::bigint, sum(cost_nano_gbp)::bigint
FROM period_usage
"""


async def totals(pool: Pool) -> tuple[int, ...]:
    """Tokens, of these from packs, and cost, of the one payer; by its rows and by its sums."""
    by_rows, kept = await pool.fetch(TOTALS)
    assert tuple(by_rows) == tuple(kept)
    return tuple(kept)


@pytest.mark.parametrize("charge", [50, 30, 20, 0], ids=lambda tokens: f"to {tokens}")
async def test_the_ledger_says_what_the_settlement_says(
    pool: Pool, ledger: PostgresLedger, charge: int
) -> None:
    expired, taken_back = expiry(20, held_tokens=40), TakenBack()
    late = settlement(expired, charge)
    await ledger.book([expired], [], no_doubles)
    reply = await ledger.book([late], [], taken_back)
    (row,) = await corrections(pool)
    assert str(row["event_id"]) == derived_rid(expired.event_id, "late")
    assert str(row["corrects"]) == expired.event_id
    assert (row["charged_tokens"], row["cost_nano_gbp"]) == (charge - 20, 10 * (charge - 20))
    assert (row["from_allowance"], row["held_tokens"]) == (charge - 20, 0)
    assert row["overdraft_tokens"] == max(0, charge - 40)
    assert (row["epoch"], row["stream_id"], row["account_seq"]) == (2, "6-0", 7)
    assert (row["quality"], row["outcome"], row["status"]) == ("measured", "done", 200)
    assert await totals(pool) == (charge, 0, 10 * charge)
    assert (len(reply.booked), reply.repeated, reply.dead) == (1, 1, 0)
    assert reply.booked[0].kind == "correction"
    ((excess,),) = taken_back.calls  # Redis counted 20 and `charge`
    assert excess == replace(late, charged_tokens=20, cost_nano_gbp=200, from_allowance=20)
    assert correction_of(excess).rid == correction_of(late).rid


async def test_read_again_it_changes_nothing(pool: Pool, ledger: PostgresLedger) -> None:
    expired = expiry()
    late = settlement(expired)
    first = TakenBack()
    await ledger.book([expired, late, late], [], first)  # be it in one batch
    for _ in range(2):
        again = TakenBack()
        reply = await ledger.book([expired, late], [], again)
        assert reply == BookReply(booked=[], repeated=2, dead=0)
        assert again.calls == [first.calls[0][:1]]
    assert first.calls[0][0] == first.calls[0][1]
    assert await totals(pool) == (30, 0, 300)


async def test_what_could_not_be_taken_back_yet_is_not_booked(
    pool: Pool, ledger: PostgresLedger
) -> None:
    expired = expiry()
    await ledger.book([expired], [], no_doubles)
    with pytest.raises(OSError, match="away"):
        await ledger.book([settlement(expired)], [], TakenBack(OSError("away")))
    assert await totals(pool) == (20, 0, 200)


async def test_of_an_answer_that_was_booked_with_nothing_nothing_is_taken_back(
    pool: Pool, ledger: PostgresLedger
) -> None:
    expired = expiry(0, **WHOLE)
    await ledger.book([expired], [], no_doubles)
    for _ in range(2):
        await ledger.book([settlement(expired)], [], no_doubles)
    assert await totals(pool) == (30, 0, 300)


@pytest.mark.parametrize("again", [{"epoch": 3}, {"stream_id": "7-0"}], ids=str)
@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_sent_again_after_another_loss_it_is_wholly_too_much(
    pool: Pool, ledger: PostgresLedger, again: dict[str, Any], is_one_batch: bool
) -> None:
    """Redis has the whole of it from the ledger by then, or from the entry before."""
    expired, taken_back = expiry(0, **WHOLE), TakenBack()
    first, second = settlement(expired), settlement(expired, **again)
    if is_one_batch:
        await ledger.book([expired, first, second], [], taken_back)
    else:
        await ledger.book([expired, first], [], no_doubles)
        await ledger.book([second], [], taken_back)
    assert taken_back.calls == [[second]]
    assert await totals(pool) == (30, 0, 300)


async def test_where_redis_itself_has_corrected_the_expiry_nothing_is_corrected(
    pool: Pool, ledger: PostgresLedger
) -> None:
    expired = expiry()
    by_redis = replace(
        settlement(expired, epoch=1, stream_id="6-0"), kind="correction", corrects=expired.event_id,
        event_id=derived_rid(expired.event_id, "late"), charged_tokens=10, cost_nano_gbp=100,
    )  # fmt: skip
    await ledger.book([expired, by_redis], [], no_doubles)
    taken_back, sent_again = TakenBack(), settlement(expired, epoch=2, stream_id="7-0")
    corrected_again = replace(by_redis, epoch=3, stream_id="8-0")
    await ledger.book([sent_again, corrected_again], [], taken_back)
    assert taken_back.calls == [[sent_again, corrected_again]]
    assert await totals(pool) == (30, 0, 300)


@pytest.mark.parametrize(
    ("booked", "comes"),
    [
        (STREAM, STREAM),
        (WHOLE, WHOLE),
        (WHOLE, {**WHOLE, "status": 502}),
        ({"quality": "estimated", "outcome": "done"}, {}),
        ({"stream": True, "quality": "partial", "outcome": "expired"}, {}),
        ({"stream": True, "quality": "estimated", "outcome": "unknown_upstream"}, {}),
        ({}, STREAM),
    ],
    ids=str,
)
async def test_nothing_else_is_corrected(
    pool: Pool, ledger: PostgresLedger, booked: dict[str, Any], comes: dict[str, Any]
) -> None:
    first = sample_row("5-0", **booked)
    taken_back, second = TakenBack(), settlement(first, **comes)
    await ledger.book([first], [], no_doubles)
    await ledger.book([second], [], taken_back)
    assert taken_back.calls == [[second]]
    assert await corrections(pool) == []


@pytest.mark.parametrize(
    "comes",
    [
        {"quality": "partial", "outcome": "expired"},
        {"quality": "estimated", "outcome": "done"},
        {"quality": "estimated", "outcome": "unknown_upstream", "status": 502},
    ],
    ids=str,
)
async def test_whatever_a_gateway_knows_of_a_stream_corrects_an_estimate(
    pool: Pool, ledger: PostgresLedger, comes: dict[str, Any]
) -> None:
    expired = expiry()
    await ledger.book([expired], [], no_doubles)
    await ledger.book([settlement(expired, 0, **comes)], [], TakenBack())
    assert await totals(pool) == (0, 0, 0)


async def test_the_correction_belongs_to_the_place_of_the_settlement(
    ledger: PostgresLedger,
) -> None:
    """An account that came back before it counts it by itself, one that comes later does not."""
    expired = expiry()
    await ledger.book([expired, sample_row("5-9", payer="bob", epoch=2)], [], no_doubles)
    await ledger.book([settlement(expired)], [], TakenBack())
    for stream_id, tokens in (("5-9", 20), ("6-0", 30)):
        sums = await ledger.sums("ann", None, NOVEMBER_MS, Watermark(0, 2, stream_id))
        assert sums is not None
        assert sums.settled_tokens == tokens


async def test_of_a_member_both_accounts_are_told(pool: Pool, ledger: PostgresLedger) -> None:
    expired, taken_back = expiry(payer="team"), TakenBack()
    await ledger.book([expired, settlement(expired, payer="team")], [], taken_back)
    ((excess,),) = taken_back.calls
    told = correction_of(excess)
    assert (told.payer, told.member, told.charged_tokens) == ("team", "ann", 20)
    for member in (None, "ann"):
        sums = await ledger.sums("team", member, NOVEMBER_MS, Watermark(0, 2, "6-0"))
        assert sums is not None
        assert sums.settled_tokens == 30


@pytest.mark.parametrize(
    ("booked", "comes", "paid"),
    [
        ((20, (("p", 20),)), (30, (("p", 30),)), {"p": 30}),
        ((20, (("p", 20),)), (20, (("p", 20),)), {"p": 20}),
        ((20, (("p", 20),)), (5, (("p", 5),)), {"p": 5}),
        ((20, (("p", 20),)), (0, ()), {"p": 0}),
        ((20, (("p", 20),)), (30, ()), {"p": 20}),  # the account was away: what it paid stays paid
        ((20, (("p", 20),)), (30, (("p", 12), ("q", 18))), {"p": 30}),
        ((20, ()), (30, (("p", 12),)), {}),  # only beside the estimate was the allowance too small
        ((20, ()), (30, (("p", 25),)), {"p": 5}),
        ((20, (("p", 6), ("q", 14))), (10, (("q", 10),)), {"p": 0, "q": 10}),
        ((0, ()), (30, (("p", 30),)), {"p": 30}),
    ],
    ids=str,
)
async def test_packs_pay_what_they_had_paid_of_one_settlement(
    pool: Pool,
    ledger: PostgresLedger,
    booked: tuple[int, PackSplit],
    comes: tuple[int, PackSplit],
    paid: dict[str, int],
) -> None:
    """And what is taken back leaves Redis with the same."""
    (estimate, paid_before), (charge, paid_now) = booked, comes
    for pack_id in ("p", "q"):
        grant = "INSERT INTO packs VALUES ($1, 'ann', 90, 0, now(), $1)"
        await pool.execute(grant, pack_id)
    expired = expiry(estimate, pack_split=paid_before, from_packs=total(paid_before))
    late = settlement(expired, charge, pack_split=paid_now, from_packs=total(paid_now))
    taken_back = TakenBack()
    await ledger.book([expired], [], no_doubles)
    await ledger.book([late], [], taken_back)
    in_redis = {"p": 0, "q": 0}
    too_much = taken_back.calls[0][0].pack_split if taken_back.calls else ()
    for split, sign in ((paid_before, 1), (paid_now, 1), (too_much, -1)):
        for pack_id, tokens in split:
            in_redis[pack_id] += sign * tokens
    packs = await pool.fetch("SELECT pack_id, spent_tokens FROM packs")
    spent = {pack["pack_id"]: pack["spent_tokens"] for pack in packs}
    assert spent == in_redis == {"p": 0, "q": 0, **paid}
    assert await totals(pool) == (charge, sum(paid.values()), 10 * charge)
    (row,) = await corrections(pool)
    split = json.loads(row["pack_split"] or "{}")
    assert sum(split.values()) == row["from_packs"]
    assert row["from_packs"] + row["from_allowance"] == row["charged_tokens"]
