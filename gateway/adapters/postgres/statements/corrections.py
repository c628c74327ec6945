"""Statements that book by hand what the ledger lacks.

Promise that such a correction is one entry, the sums that follow from every entry, and an audit
row, all or nothing.
"""

from __future__ import annotations

from gateway.adapters.postgres.statements.drain import booking

# Any number that nobody else in the database uses for an advisory lock.
_REPAIR_LOCK = 0x7167_0004

TRY_REPAIR_LOCK = f"SELECT pg_try_advisory_lock({_REPAIR_LOCK})"

# Without a place in the outbox: so it is part of the account's sums at every moment.
BOOK = booking(
    """
    INSERT INTO ledger (event_id, period, kind, at, payer, user_id, tier, charged_tokens,
                        from_allowance, from_packs, pack_split, cost_nano_gbp,
                        quality, outcome, reason, author)
    VALUES ($1, instant($2), 'correction', now(), $3::text, $3, $4, $5::bigint,
            $5 - $6::bigint, $6, $7::jsonb, $8, 'estimated', 'recorded', $9, $10)
    ON CONFLICT (event_id, period) DO NOTHING
    RETURNING *
    """,
    """
INSERT INTO audit (who, what, user_id, detail)
SELECT author, 'book_correction', payer,
       jsonb_build_object('event_id', event_id, 'tokens', charged_tokens, 'packs', pack_split,
                          'cost_nano_gbp', cost_nano_gbp, 'reason', reason)
FROM booked
    """,
)
