"""Orders and payment events, on Postgres.

Promises what `gateway.ports.payments.Orders` says: what an event leads to and the note that it was
done are one transaction, so an event that is repeated, or whose gateway died, is done once. What an
event means is decided in `gateway.core.payments`; this refuses to know any provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.adapters.postgres.connection import Connection, Pool, session, transaction
from gateway.adapters.postgres.grants import credit_within, identity_within, locked_owner
from gateway.adapters.postgres.sales import take_back_within
from gateway.adapters.postgres.statements import grants, payments, sales
from gateway.core.identity import Identity
from gateway.core.payments import Order, PaymentEvent, Step, Verdict, judge
from gateway.core.quota.entitle import PACKS_MAX
from gateway.ports.directory import PackCredit
from gateway.ports.ledger import Conflict
from gateway.ports.payments import NewIds, PaymentProblem, Replayed, Taken
from gateway.ports.sales import Refund

_DAY_MS = 86_400_000
_NOTHING = Verdict(Step.NOTHING)


class PostgresOrders:
    """Fulfils the port `Orders`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def open(self, order: Order, open_max: int) -> None:
        async with locked_owner(self._pool, order.user_id, "the order") as (connection, _):
            if await connection.fetchval(payments.UNPAID, order.user_id) >= open_max:
                raise Conflict(
                    f"{order.user_id} has begun {open_max} orders within the hour and paid none "
                    "of them"
                )
            (room,) = await connection.fetch(grants.PACK_ROOM, order.payer)
            if room["live"] >= PACKS_MAX:
                raise Conflict(f"{order.payer} has {PACKS_MAX} packs to spend, which is the most")
            await connection.execute(
                payments.OPEN_ORDER,
                order.order_id, order.user_id, order.payer, order.packs, order.tokens,
                order.valid_days, order.amount_pence, order.currency,
            )  # fmt: skip

    async def sent(self, order_id: str, session_id: str) -> None:
        async with session(self._pool) as connection:
            await connection.execute(payments.SENT, order_id, session_id)

    async def take(self, event: PaymentEvent, ids: NewIds, author: str) -> Taken:
        async with transaction(self._pool) as connection:
            whose = await _whose(connection, event)
            if whose is None and event.order_id is None:
                return Taken(_NOTHING, None, event.payment_ref)  # a payment for something else
            locked = await connection.fetch(grants.LOCK_USER, whose)
            owner = await identity_within(connection, whose) if whose and locked else None
            return await _Taking(connection, owner, event, author).take(ids)

    async def problems(self, rows_max: int) -> Sequence[PaymentProblem]:
        async with session(self._pool) as connection:
            found = await connection.fetch(payments.PROBLEMS, rows_max)
        return [PaymentProblem(**record) for record in found]


class _Taking:
    """One event within its transaction; `owner` is whom it concerns, locked."""

    def __init__(
        self,
        connection: Connection,
        owner: Identity | None,
        event: PaymentEvent,
        author: str,
    ) -> None:
        self._connection = connection
        self._owner = owner
        self._event = event
        self._author = author

    async def take(self, ids: NewIds) -> Taken:
        event = self._event
        if await self._is_known():
            return Taken(_NOTHING, None, event.payment_ref)
        found = await self._connection.fetchrow(
            payments.ORDER_OF, event.order_id, event.payment_ref
        )
        order = None if found is None else Order(**found)
        verdict = await self._done(order, await self._verdict(order), ids)
        await self._keep(verdict)
        if order is not None:
            await self._change(order, verdict)
        payer = None
        if self._owner is not None and verdict.step in (Step.CREDIT, Step.TAKE_BACK):
            payer = await identity_within(self._connection, self._owner.user_id)
        return Taken(verdict, payer, event.payment_ref)

    async def _is_known(self) -> bool:
        event = self._event
        known = await self._connection.fetchrow(payments.KNOWN_EVENT, event.event_id)
        said = (event.kind, event.object_id, event.order_id, event.payment_ref)
        if known is not None and tuple(known) != (*said, event.amount_pence, event.currency):
            raise Replayed(f"event {event.event_id} came before with other content")
        return known is not None

    async def _verdict(self, order: Order | None) -> Verdict:
        if order is not None and order.payment_ref is None:
            other = await self._connection.fetchval(
                payments.OTHER_ORDER, order.order_id, self._event.payment_ref
            )
            if other is not None:
                return Verdict(Step.PROBLEM, f"the payment is that of the order {other}")
        return judge(self._event, order)

    async def _done(self, order: Order | None, verdict: Verdict, ids: NewIds) -> Verdict:
        """Do it; what was done may be a problem too."""
        if self._owner is None:
            return verdict
        ref = self._event.payment_ref
        if verdict.step is Step.TAKE_BACK:
            refund = Refund(ids.event_id, ref, "refunded by the payment provider", self._author)
            await take_back_within(self._connection, self._owner.user_id, refund)
        elif verdict.step is Step.CREDIT and order is not None:
            now_ms = await self._connection.fetchval(sales.NOW_MS)
            credit = PackCredit(
                event_id=ids.event_id,
                user_id=order.user_id,
                pack_id=ids.pack_id,
                tokens=order.tokens,
                ends_ms=now_ms + order.valid_days * _DAY_MS,
                payment_ref=ref,
                author=self._author,
            )
            try:
                await credit_within(self._connection, self._owner, credit)
            except Conflict as conflict:
                return Verdict(Step.PROBLEM, f"paid, and not credited: {conflict}")
        return verdict

    async def _keep(self, verdict: Verdict) -> None:
        event = self._event
        kept = await self._connection.fetchval(
            payments.KEEP_EVENT,
            event.event_id, event.kind, event.object_id, event.order_id, event.payment_ref,
            event.amount_pence, event.currency, verdict.step.value, verdict.problem,
        )  # fmt: skip
        if kept is None:  # the same id at the same moment, about another user or about nobody
            raise Replayed(f"event {event.event_id} is being taken already")

    async def _change(self, order: Order, verdict: Verdict) -> None:
        event, step = self._event, verdict.step
        if step is Step.NOTHING:
            return
        after = order if step is Step.WAIT else replace(order, problem=verdict.problem)
        if step is Step.CREDIT:
            after = replace(after, state="paid", payment_ref=event.payment_ref)
        elif step is Step.TAKE_BACK:
            after = replace(after, state="refunded", payment_ref=event.payment_ref)
        session_id = event.session_id if step in (Step.CREDIT, Step.WAIT) else None
        await self._connection.execute(
            payments.CHANGE_ORDER,
            *(order.order_id, after.state, session_id, after.payment_ref, after.problem),
        )


async def _whose(connection: Connection, event: PaymentEvent) -> str | None:
    """Whom it concerns; None when nobody here."""
    whose: str | None
    if event.session_id is not None:
        whose = await connection.fetchval(payments.WHOSE_ORDER, event.order_id)
    else:
        whose = await connection.fetchval(payments.WHOSE_PAYMENT, event.order_id, event.payment_ref)
    return whose
