"""Operators' tokens, and requests that make money: kept in Postgres, and done once."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.operators import PostgresOperators
from gateway.core.operators import Scope, state_operator, token_operator
from gateway.flow.once import Intent, Once, OtherContent
from gateway.flow.operator_access import Access, BeyondScope, RefusalAudit

CONTENT, OTHER = hashlib.sha256(b"content").digest(), hashlib.sha256(b"other").digest()
BY = ("state", "key-1")


@pytest.fixture
def operators(pool: Pool) -> PostgresOperators:
    return PostgresOperators(pool)


@pytest.fixture
def once(operators: PostgresOperators) -> Once:
    return Once(operators, SystemClock())


class Till:
    """Books, and may die after it has; each settling finds more used than the one before."""

    def __init__(self) -> None:
        self.booked: list[tuple[str, Intent]] = []
        self.settled = 0
        self.dies = False

    async def settle(self) -> Intent:
        self.settled += 1
        return {"tokens": self.settled}

    async def book(self, event_id: str, intent: Intent) -> bytes:
        self.booked.append((event_id, intent))
        if self.dies:
            raise ConnectionError("killed after the commit")
        return b"answer %d" % len(self.booked)


async def test_a_request_is_done_once_for_its_key(once: Once) -> None:
    till = Till()
    first = await once.answer(BY, CONTENT, till.settle, till.book)
    assert await once.answer(BY, CONTENT, till.settle, till.book) == first == b"answer 1"
    assert (len(till.booked), till.settled) == (1, 1)
    with pytest.raises(OtherContent, match="take a new key"):
        await once.answer(BY, OTHER, till.settle, till.book)
    # A key is its token's own.
    assert await once.answer(("t", "key-1"), OTHER, till.settle, till.book) == b"answer 2"


async def test_what_died_before_its_answer_books_the_same_again(once: Once) -> None:
    till = Till()
    till.dies = True
    with pytest.raises(ConnectionError, match="after the commit"):
        await once.answer(BY, CONTENT, till.settle, till.book)
    till.dies = False
    await once.answer(BY, CONTENT, till.settle, till.book)
    first, second = till.booked
    assert first == second, "the same id and the same difference, which the ledger knows"
    assert till.settled == 1


async def test_two_at_once_book_the_same_and_get_one_answer(once: Once) -> None:
    till = Till()
    answers = await asyncio.gather(
        *(once.answer(BY, CONTENT, till.settle, till.book) for _ in range(8))
    )
    assert len(set(answers)) == 1
    assert len({event_id for event_id, _ in till.booked}) == 1
    assert all(intent == till.booked[0][1] for _, intent in till.booked)


async def test_tokens_are_kept_as_digests_and_known_until_they_are_revoked(
    operators: PostgresOperators, pool: Pool
) -> None:
    access = Access(operators, SystemClock(), "the-state-token", b"pepper")
    owner = await access.operator_of("the-state-token", "sue")
    assert owner == state_operator("sue")
    assert (await access.operator_of("the-state-token", "sue\n")) == state_operator(None)
    scopes: list[Scope] = ["money", "read"]
    token, record = await access.create("billing", scopes, state_operator("sue"))
    assert (record.scopes, record.created_by) == (("read", "money"), "cli:sue")
    known = await access.operator_of(token, "root")
    assert known == token_operator(record.token_id, frozenset(scopes)), "no login is believed"
    for wrong in ("", "qg_" + token[3:], token[:-1], token + "x", "qa_" + "x" * 43, "é"):
        assert await access.operator_of(wrong, None) is None
    with pytest.raises(BeyondScope, match="yours lacks write"):
        await access.create("more", ["read", "write"], known)
    kept = str(await pool.fetch("SELECT * FROM admin_tokens"))
    assert token not in kept
    assert token[3:] not in kept
    other_pepper = Access(operators, SystemClock(), "the-state-token", b"another")
    assert await other_pepper.operator_of(token, None) is None
    assert await access.revoke("state", known) is None
    first = await access.revoke(record.token_id, known)
    assert first == await access.revoke(record.token_id, known)
    assert await access.operator_of(token, None) is None
    lines = await pool.fetch("SELECT who, what FROM audit ORDER BY audit_id")
    assert [tuple(line) for line in lines] == [
        ("cli:sue", "create_token"),
        (f"token:{record.token_id}", "revoke_token"),
    ]


async def test_a_flood_of_refusals_is_written_in_part_and_counted_whole(
    operators: PostgresOperators, pool: Pool
) -> None:
    audit, refused = RefusalAudit(operators, window_s=1.0), 0
    counted = "SELECT sum((detail ->> 'refusals')::int) FROM audit WHERE what = 'refused_more'"
    while not await pool.fetchval(counted):  # until a window ends of which some was only counted
        await audit.refused("nobody", {"code": "no_token"})
        refused += 1
    await audit.close()
    noted = await pool.fetchval("SELECT count(*) FROM audit WHERE what = 'refused'")
    assert noted + await pool.fetchval(counted) == refused
    assert noted < refused
