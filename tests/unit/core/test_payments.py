"""What an event means for its order: credited only where every figure agrees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.payments import Order, PaymentEvent, Step, Verdict, judge

ORDER = Order("o-1", "ann", "team", 2, 640_000, 90, 400, "gbp", session_id="cs_1")
PAID = PaymentEvent("evt_1", "paid", "cs_1", "o-1", "pi_1", 400, "gbp", "ann", "cs_1")
REFUNDED = PaymentEvent("evt_2", "refunded", "ch_1", "o-1", "pi_1", 400, "gbp")


def test_a_payment_that_agrees_is_credited_also_before_its_session_was_noted() -> None:
    assert judge(PAID, ORDER) == Verdict(Step.CREDIT)
    assert judge(PAID, replace(ORDER, session_id=None)) == Verdict(Step.CREDIT)
    assert judge(PAID, replace(ORDER, problem="of before")) == Verdict(Step.CREDIT)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"amount_pence": 399}, "399 pence were paid for 400"),
        ({"amount_pence": 0}, "0 pence were paid for 400"),
        ({"currency": "jpy"}, "paid in 'jpy' for 'gbp'"),
        ({"user_id": "bob"}, "paid in the name of 'bob'"),
        ({"user_id": None}, "paid in the name of 'nobody'"),
        ({"session_id": "cs_2"}, "paid in another session, 'cs_2'"),
    ],
)
def test_a_payment_that_differs_in_anything_is_a_problem(
    change: dict[str, Any], words: str
) -> None:
    for kind in ("paid", "unpaid"):
        event = replace(PAID, kind=kind, **change)
        assert judge(event, ORDER) == Verdict(Step.PROBLEM, words)


def test_nothing_is_credited_before_it_is_paid_nor_after_it_was_refunded() -> None:
    assert judge(replace(PAID, kind="unpaid"), ORDER) == Verdict(Step.WAIT)
    paid = replace(ORDER, state="paid", payment_ref="pi_1")
    assert judge(PAID, paid) == Verdict(Step.NOTHING)
    assert judge(PAID, replace(paid, state="refunded")) == Verdict(Step.NOTHING)


def test_a_second_payment_of_one_order_is_a_problem_until_it_is_refunded() -> None:
    paid = replace(ORDER, state="paid", payment_ref="pi_1")
    again = judge(replace(PAID, payment_ref="pi_2"), paid)
    assert again == Verdict(Step.PROBLEM, "was paid again by pi_2: refund that one")
    assert judge(replace(REFUNDED, payment_ref="pi_2"), paid) == Verdict(Step.DISMISS)


def test_a_refund_is_taken_back_in_whole_and_a_part_is_for_an_operator() -> None:
    for order in (ORDER, replace(ORDER, state="paid", payment_ref="pi_1"), None):
        assert judge(REFUNDED, order) == Verdict(Step.TAKE_BACK)
        part = replace(REFUNDED, kind="partly_refunded", amount_pence=150)
        assert judge(part, order) == Verdict(
            Step.PROBLEM, "150 pence were refunded, a part: nothing was taken back"
        )


def test_an_order_that_nobody_knows_is_a_problem() -> None:
    assert judge(PAID, None) == Verdict(Step.PROBLEM, "there is no order o-1")
