"""Statements that find payers whose accounts are worth a look.

Each reads a range of an index and no more. They write nothing.
"""

from __future__ import annotations

# The ids of calls tell when these began. (Those of usage from elsewhere tell no time.)
LATELY = """
SELECT DISTINCT payer FROM (
    SELECT payer FROM ledger
    WHERE event_id >= $1::uuid AND event_id < $2::uuid AND period > now() - interval '62 days'
    ORDER BY event_id DESC LIMIT 5 * $3::bigint
) AS newest LIMIT $3
"""

BEHIND = """
SELECT user_id FROM users WHERE user_id = payer AND user_id > $1 ORDER BY user_id LIMIT $2
"""
