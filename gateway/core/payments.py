"""What a payment event means for the order that it names: credit, take back, wait, or a problem.

The order says what was sold before the payer was sent to the provider; an event is believed only
where it agrees with it in every figure. What does not agree is never credited and never forgotten:
it is a problem, with words for an operator. Amounts are pence. Knows no provider.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

OrderState = Literal["open", "paid", "refunded"]


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of a payer: `tokens` in one pack for `amount_pence`, valid for so many days
    from the payment on. `session_id` is the provider's, once it is known; `payment_ref` names the
    payment that credited it. `problem`: what an operator is to look at."""

    order_id: str
    user_id: str
    payer: str
    packs: int
    tokens: int
    valid_days: int
    amount_pence: int
    currency: str
    state: OrderState = "open"
    session_id: str | None = None
    payment_ref: str | None = None
    problem: str | None = None


EventKind = Literal["paid", "unpaid", "refunded", "partly_refunded"]


@dataclass(frozen=True, slots=True)
class PaymentEvent:
    """What a provider says, proven to be its word. `object_id` is what it speaks of; `order_id` is
    the order it names, if any, `payment_ref` the payment. A refund has no session."""

    event_id: str
    kind: EventKind
    object_id: str
    order_id: str | None
    payment_ref: str
    amount_pence: int
    currency: str
    user_id: str | None = None
    session_id: str | None = None


class Step(Enum):
    """What is to be done about an event."""

    CREDIT = "credited"
    TAKE_BACK = "refunded"
    WAIT = "not paid yet"
    NOTHING = "nothing to do"
    DISMISS = "a second payment was refunded"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The step, and of a problem the words."""

    step: Step
    problem: str | None = None


def judge(event: PaymentEvent, order: Order | None) -> Verdict:
    """What `event` means for the order that it names, or whose payment it names."""
    if event.kind == "partly_refunded":
        words = f"{event.amount_pence} pence were refunded, a part: nothing was taken back"
        return Verdict(Step.PROBLEM, words)
    if event.kind == "refunded":
        is_second = order is not None and order.payment_ref not in (None, event.payment_ref)
        return Verdict(Step.DISMISS if is_second else Step.TAKE_BACK)
    if order is None:
        return Verdict(Step.PROBLEM, f"there is no order {event.order_id}")
    if differences := "; ".join(_differences(event, order)):
        return Verdict(Step.PROBLEM, differences)
    if event.kind == "unpaid":
        return Verdict(Step.WAIT)
    if order.payment_ref not in (None, event.payment_ref):
        return Verdict(Step.PROBLEM, f"was paid again by {event.payment_ref}: refund that one")
    return Verdict(Step.CREDIT if order.state == "open" else Step.NOTHING)


def _differences(event: PaymentEvent, order: Order) -> Iterator[str]:
    """In what an event of a session is not what was asked for."""
    if event.amount_pence != order.amount_pence:
        yield f"{event.amount_pence} pence were paid for {order.amount_pence}"
    if event.currency != order.currency:
        yield f"paid in {event.currency[:8]!r} for {order.currency!r}"
    if event.user_id != order.user_id:
        yield f"paid in the name of {(event.user_id or 'nobody')[:128]!r}"
    if order.session_id not in (None, event.session_id):
        yield f"paid in another session, {(event.session_id or 'none')[:128]!r}"
