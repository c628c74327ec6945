"""Orders and payment events on Postgres: what is believed happens once, the rest is kept."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

import pytest

from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.payments import PostgresOrders
from gateway.adapters.postgres.sales import PostgresSales
from gateway.core.identity import Identity
from gateway.core.payments import Order, PaymentEvent, Step
from gateway.core.period import Calendar
from gateway.core.quota.entitle import PACKS_MAX
from gateway.core.rid import make_rid
from gateway.ports.directory import PackCredit
from gateway.ports.ledger import Conflict
from gateway.ports.payments import NewIds, Replayed, Taken
from tests.contract.ledger_samples import join_team

CALENDAR = Calendar(1, "UTC")
DAY_MS = 86_400_000
FAR_MS = 4_000_000_000_000
ORDER = Order("o-1", "ann", "ann", 2, 640_000, 90, 400, "gbp")
PAID = PaymentEvent("evt_1", "paid", "cs_1", "o-1", "pi_1", 400, "gbp", "ann", "cs_1")
REFUNDED = PaymentEvent("evt_r", "refunded", "ch_1", "o-1", "pi_1", 400, "gbp")


def new_id() -> str:
    return make_rid(1, os.urandom(10))


@pytest.fixture
async def ann(directory: PostgresDirectory) -> Identity:
    return await directory.create_user("ann", "full", CALENDAR)


@pytest.fixture
async def orders(pool: Pool, ann: Identity) -> PostgresOrders:
    """With the order open, and its session noted."""
    made = PostgresOrders(pool)
    await made.open(ORDER, 10)
    await made.sent("o-1", "cs_1")
    return made


async def take(orders: PostgresOrders, event: PaymentEvent) -> Taken:
    return await orders.take(event, NewIds(new_id(), new_id()), "payments")


async def state_of(pool: Pool, order_id: str = "o-1") -> tuple[Any, ...]:
    found = await pool.fetchrow(
        "SELECT state, payment_ref, session_id, problem FROM payments WHERE order_id = $1",
        order_id,
    )
    assert found is not None
    return tuple(found)


async def test_a_paid_order_is_one_pack_with_the_orders_figures(
    orders: PostgresOrders, ann: Identity, pool: Pool
) -> None:
    taken = await take(orders, PAID)
    assert (taken.verdict.step, taken.payer) == (Step.CREDIT, replace(ann, rev=2))
    assert await state_of(pool) == ("paid", "pi_1", "cs_1", None)
    (pack,) = await PostgresSales(pool).packs("ann")
    assert (pack.granted_tokens, pack.payment_ref, pack.live) == (640_000, "pi_1", True)
    assert abs(pack.ends_ms - pack.created_ms - 90 * DAY_MS) <= 1
    entry = await pool.fetchrow("SELECT kind, user_id, author FROM ledger")
    assert entry is not None
    assert tuple(entry) == ("topup", "ann", "payments")
    event = await pool.fetchrow("SELECT kind, object_id, order_id, outcome FROM payment_events")
    assert event is not None
    assert tuple(event) == ("paid", "cs_1", "o-1", "credited")


async def test_fifty_repetitions_at_once_credit_once(orders: PostgresOrders, pool: Pool) -> None:
    """The same event, and other events about the same payment."""
    events = [replace(PAID, event_id=f"evt_{n % 5}") for n in range(50)]
    replies = await asyncio.gather(*(take(orders, event) for event in events))
    assert sum(reply.verdict.step is Step.CREDIT for reply in replies) == 1
    assert await pool.fetchval("SELECT count(*) FROM packs") == 1
    assert await pool.fetchval("SELECT count(*) FROM ledger") == 1
    assert await pool.fetchval("SELECT count(*) FROM payment_events") == 5


@pytest.mark.parametrize(
    "change",
    [
        {"amount_pence": 1},
        {"currency": "usd"},
        {"payment_ref": "pi_2"},
        {"order_id": "o-2"},
        {"object_id": "cs_2"},
        {"kind": "unpaid"},
    ],
)
async def test_the_id_of_a_known_event_with_other_content_is_refused(
    orders: PostgresOrders, pool: Pool, change: dict[str, Any]
) -> None:
    await orders.open(replace(ORDER, order_id="o-2"), 10)
    await take(orders, PAID)
    with pytest.raises(Replayed, match="evt_1 came before with other content"):
        await take(orders, replace(PAID, **change))
    assert await pool.fetchval("SELECT count(*) FROM packs") == 1
    assert await state_of(pool, "o-2") == ("open", None, None, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"amount_pence": 399}, "399 pence were paid for 400"),
        ({"currency": "usd"}, "paid in 'usd' for 'gbp'"),
        ({"user_id": "bob"}, "paid in the name of 'bob'"),
        ({"session_id": "cs_9"}, "paid in another session, 'cs_9'"),
    ],
)
async def test_what_does_not_agree_is_kept_for_an_operator_and_credits_nothing(
    orders: PostgresOrders, pool: Pool, change: dict[str, Any], words: str
) -> None:
    taken = await take(orders, replace(PAID, **change))
    assert (taken.verdict.step, taken.verdict.problem, taken.payer) == (Step.PROBLEM, words, None)
    assert await state_of(pool) == ("open", None, "cs_1", words)
    assert await pool.fetchval("SELECT count(*) FROM packs") == 0
    (problem,) = await orders.problems(10)
    assert (problem.order_id, problem.user_id, problem.problem) == ("o-1", "ann", words)


async def test_an_order_that_nobody_knows_is_kept_and_a_payment_for_something_else_is_not(
    orders: PostgresOrders, pool: Pool
) -> None:
    taken = await take(orders, replace(PAID, order_id="o-9"))
    assert (taken.verdict.step, taken.verdict.problem) == (Step.PROBLEM, "there is no order o-9")
    (problem,) = await orders.problems(10)
    assert (problem.order_id, problem.user_id) == ("o-9", None)
    other = replace(REFUNDED, order_id=None, payment_ref="pi_of_another_shop")
    assert (await take(orders, other)).verdict.step is Step.NOTHING
    assert await pool.fetchval("SELECT count(*) FROM payment_events") == 1


async def test_an_unpaid_session_credits_nothing_until_its_payment_succeeds(
    orders: PostgresOrders, pool: Pool
) -> None:
    waiting = replace(PAID, event_id="evt_0", kind="unpaid")
    assert (await take(orders, waiting)).verdict.step is Step.WAIT
    assert await state_of(pool) == ("open", None, "cs_1", None)
    assert await pool.fetchval("SELECT count(*) FROM packs") == 0
    assert (await take(orders, PAID)).verdict.step is Step.CREDIT
    assert await pool.fetchval("SELECT count(*) FROM packs") == 1


async def test_a_refund_takes_the_pack_back_once(orders: PostgresOrders, pool: Pool) -> None:
    await take(orders, PAID)
    taken = await take(orders, REFUNDED)
    assert taken.verdict.step is Step.TAKE_BACK
    assert taken.payer is not None
    assert await state_of(pool) == ("refunded", "pi_1", "cs_1", None)
    await take(orders, REFUNDED)
    await take(orders, replace(REFUNDED, event_id="evt_r2"))
    await take(orders, replace(PAID, event_id="evt_2"))
    assert await pool.fetchval("SELECT count(*) FROM ledger WHERE kind = 'refund'") == 1
    (pack,) = await PostgresSales(pool).packs("ann")
    assert (pack.left_tokens, pack.reason) == (0, "refunded by the payment provider")


async def test_a_refund_that_comes_before_its_payment_leaves_nothing_to_credit(
    orders: PostgresOrders, pool: Pool
) -> None:
    await take(orders, REFUNDED)
    assert (await take(orders, PAID)).verdict.step is Step.NOTHING
    assert await state_of(pool) == ("refunded", "pi_1", "cs_1", None)
    assert await pool.fetchval("SELECT count(*) FROM packs") == 0


async def test_a_part_refunded_and_a_second_payment_wait_for_an_operator(
    orders: PostgresOrders, pool: Pool
) -> None:
    await take(orders, PAID)
    part = replace(REFUNDED, event_id="evt_p", kind="partly_refunded", amount_pence=100)
    assert (await take(orders, part)).verdict.step is Step.PROBLEM
    assert (await state_of(pool))[3] == "100 pence were refunded, a part: nothing was taken back"
    second = replace(PAID, event_id="evt_2", payment_ref="pi_2")
    assert (await take(orders, second)).verdict.step is Step.PROBLEM
    assert await state_of(pool) == (
        "paid", "pi_1", "cs_1", "was paid again by pi_2: refund that one",
    )  # fmt: skip
    back = replace(REFUNDED, event_id="evt_r2", payment_ref="pi_2")
    assert (await take(orders, back)).verdict.step is Step.DISMISS
    assert await state_of(pool) == ("paid", "pi_1", "cs_1", None)
    (pack,) = await PostgresSales(pool).packs("ann")
    assert pack.live


async def test_one_payment_cannot_pay_two_orders(orders: PostgresOrders, pool: Pool) -> None:
    await orders.open(replace(ORDER, order_id="o-2"), 10)
    await take(orders, PAID)
    stolen = replace(PAID, event_id="evt_2", order_id="o-2", session_id="cs_2", object_id="cs_2")
    taken = await take(orders, stolen)
    assert taken.verdict.problem == "the payment is that of the order o-1"
    assert await pool.fetchval("SELECT count(*) FROM packs") == 1


async def test_what_was_credited_by_hand_is_not_credited_again_and_can_be_refunded(
    orders: PostgresOrders, directory: PostgresDirectory, pool: Pool
) -> None:
    await directory.create_user("bob", "full", CALENDAR)
    given = PackCredit(new_id(), "ann", "p-1", 640_000, FAR_MS, "pi_1", "cli:jo")
    await directory.credit_pack(given)
    assert (await take(orders, PAID)).verdict.step is Step.CREDIT
    assert await pool.fetchval("SELECT count(*) FROM packs") == 1
    await directory.credit_pack(
        replace(given, event_id=new_id(), user_id="bob", pack_id="p-2", payment_ref="pi_2")
    )
    await orders.open(replace(ORDER, order_id="o-2"), 10)
    of_bob = replace(PAID, event_id="evt_2", order_id="o-2", session_id="cs_2", payment_ref="pi_2")
    problem = (await take(orders, of_bob)).verdict.problem
    assert problem is not None
    assert problem.startswith("paid, and not credited: payment pi_2 was credited already")
    taken = await take(orders, replace(REFUNDED, order_id=None, payment_ref="pi_2"))
    assert taken.payer is not None
    assert taken.payer.user_id == "bob"
    assert [pack.left_tokens for pack in await PostgresSales(pool).packs("bob")] == [0]


async def test_a_payer_with_all_the_packs_there_may_be_is_not_sold_another(
    orders: PostgresOrders, directory: PostgresDirectory, pool: Pool
) -> None:
    for n in range(PACKS_MAX):
        given = PackCredit(new_id(), "ann", f"p-{n}", 1, FAR_MS, f"pay-{n}", "cli:jo")
        await directory.credit_pack(given)
    with pytest.raises(Conflict, match="ann has 32 packs to spend"):
        await orders.open(replace(ORDER, order_id="o-2"), 10)
    problem = (await take(orders, PAID)).verdict.problem
    assert problem is not None
    assert problem.startswith("paid, and not credited: ann has 32 packs")
    assert (await state_of(pool))[0] == "open"
    await pool.execute("UPDATE packs SET spent_tokens = 1 WHERE pack_id = 'p-0'")
    assert (await take(orders, replace(PAID, event_id="evt_2"))).verdict.step is Step.CREDIT
    assert await state_of(pool) == ("paid", "pi_1", "cs_1", None)


async def test_unpaid_orders_of_an_hour_have_a_bound(orders: PostgresOrders, pool: Pool) -> None:
    await orders.open(replace(ORDER, order_id="o-2"), 2)
    with pytest.raises(Conflict, match="ann has begun 2 orders within the hour"):
        await orders.open(replace(ORDER, order_id="o-3"), 2)
    await take(orders, PAID)
    await orders.open(replace(ORDER, order_id="o-3"), 2)
    with pytest.raises(Conflict, match="2 orders"):
        await orders.open(replace(ORDER, order_id="o-4"), 2)
    await pool.execute("UPDATE payments SET created_at = now() - interval '61 minutes'")
    await orders.open(replace(ORDER, order_id="o-4"), 2)


async def test_of_a_team_the_payer_is_credited(
    orders: PostgresOrders, directory: PostgresDirectory, pool: Pool
) -> None:
    await directory.create_user("team", "full", CALENDAR)
    await join_team(pool, "ann", "team")
    await take(orders, PAID)
    assert [pack.payer for pack in await PostgresSales(pool).packs("team")] == ["team"]
    assert await pool.fetchval("SELECT rev FROM users WHERE user_id = 'team'") == 2
