"""Statements about orders and the events of a payment provider.

Promise that an event is kept once, and that an order goes from open to paid to refunded and never
back. They are sent in a transaction that has locked the user, so two events of one order wait for
each other.
"""

from __future__ import annotations

# Orders of the last hour that are not paid.
UNPAID = """
SELECT count(*) FROM payments
WHERE user_id = $1 AND state = 'open' AND created_at > now() - interval '1 hour'
"""

OPEN_ORDER = """
INSERT INTO payments (order_id, user_id, payer, packs, tokens, valid_days, amount_pence, currency)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""

SENT = "UPDATE payments SET session_id = $2 WHERE order_id = $1 AND session_id IS NULL"

# Whom a payment is about: the user of the order that it names.
WHOSE_ORDER = "SELECT user_id FROM payments WHERE order_id = $1"

# Whom a refund is about: the payer of the pack that was credited for the payment ($2), else the
# user of the order that it names ($1), or whose payment it names.
WHOSE_PAYMENT = """
SELECT coalesce((SELECT payer FROM packs WHERE payment_ref = $2),
                (SELECT user_id FROM payments WHERE order_id = $1),
                (SELECT user_id FROM payments WHERE payment_ref = $2))
"""

# The order that an event names, or whose payment it names where it names none.
ORDER_OF = """
SELECT order_id, user_id, payer, packs, tokens, valid_days, amount_pence, currency, state,
       session_id, payment_ref, problem
FROM payments
WHERE order_id = coalesce($1, (SELECT order_id FROM payments WHERE payment_ref = $2)) FOR UPDATE
"""

# Another order that was paid by the same payment.
OTHER_ORDER = "SELECT order_id FROM payments WHERE payment_ref = $2 AND order_id <> $1"

KNOWN_EVENT = """
SELECT kind, object_id, order_id, payment_ref, amount_pence, currency
FROM payment_events WHERE event_id = $1
"""

# No row when the event is known.
KEEP_EVENT = """
INSERT INTO payment_events
    (event_id, kind, object_id, order_id, payment_ref, amount_pence, currency, outcome, problem)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT DO NOTHING RETURNING event_id
"""

CHANGE_ORDER = """
UPDATE payments SET state = $2, session_id = coalesce(session_id, $3),
       payment_ref = coalesce(payment_ref, $4), problem = $5, changed_at = now()
WHERE order_id = $1
"""

PROBLEMS = """
SELECT order_id, user_id, payment_ref, problem, epoch_ms(changed_at) AS at_ms
FROM payments WHERE problem IS NOT NULL
UNION ALL
SELECT order_id, NULL, payment_ref, problem, epoch_ms(received_at)
FROM payment_events WHERE problem IS NOT NULL AND NOT EXISTS (
    SELECT FROM payments WHERE payments.order_id = payment_events.order_id)
ORDER BY at_ms DESC LIMIT $1
"""
