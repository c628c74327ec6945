"""Statements that give tokens by hand: adjustments and packs.

Promise that a grant is one entry of the ledger, what follows from it, and an audit row, all or
nothing. They are sent in a transaction that has locked the user and its payer first.
"""

from __future__ import annotations

# The user first, then its payer where that is another: in this order, so that nobody deadlocks.
LOCK_USER = """
SELECT user_id FROM users
WHERE user_id = ANY (ARRAY[$1, (SELECT payer FROM users WHERE user_id = $1)])
ORDER BY user_id = $1 DESC FOR UPDATE
"""

BOOKED_ADJUSTMENT = """
SELECT user_id, epoch_ms(period) AS period_start_ms, charged_tokens
FROM ledger WHERE event_id = $1
"""

# What is adjusted of a member counts for its payer ($3): both have something new to be told.
ADJUST = """
WITH changed AS (
    UPDATE users SET rev = rev + 1 WHERE user_id IN ($2, $3)
    RETURNING user_id, payer, tier
), booked AS (
    INSERT INTO ledger (event_id, period, kind, at, payer, user_id, tier, charged_tokens,
                        quality, outcome, reason, author)
    SELECT $1, instant($4), 'adjustment', now(), payer, user_id, tier, $5,
           'measured', 'recorded', $6, $7
    FROM changed WHERE user_id = $2
    RETURNING event_id, payer, period, user_id, charged_tokens
), summed AS (
    INSERT INTO period_usage AS kept (payer, period, adjusted_tokens, rows)
    SELECT payer, period, charged_tokens, 1 FROM booked
    ON CONFLICT (payer, period) DO UPDATE SET
        adjusted_tokens = kept.adjusted_tokens + excluded.adjusted_tokens,
        rows = kept.rows + 1
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $7, 'adjust', user_id,
           jsonb_build_object('event_id', event_id, 'tokens', charged_tokens, 'reason', $6::text)
    FROM booked
)
SELECT user_id FROM changed WHERE user_id = $2
"""

# What was granted for this payment.
GRANTED = "SELECT payer, granted_tokens FROM packs WHERE payment_ref = $1"

# How many packs of the payer can be spent, and what time it is.
PACK_ROOM = """
SELECT count(*) FILTER (WHERE live) AS live, epoch_ms(now()) AS now_ms
FROM pack_balances WHERE payer = $1
"""

# The entry charges nothing: what is granted stands in `topup`. The sums of the period stay.
CREDIT_PACK = """
WITH changed AS (
    UPDATE users SET rev = rev + 1 WHERE user_id IN ($2, $3)
    RETURNING user_id, payer, tier
), granted AS (
    INSERT INTO packs (pack_id, payer, granted_tokens, ends_at, payment_ref)
    VALUES ($5, $3, $6, instant($7), $8)
    RETURNING jsonb_build_object('pack_id', pack_id, 'tokens', granted_tokens,
        'ends_ms', epoch_ms(ends_at), 'payment_ref', payment_ref) AS topup
), booked AS (
    INSERT INTO ledger (event_id, period, kind, at, payer, user_id, tier, quality, outcome,
                        topup, author)
    SELECT $1, instant($4), 'topup', now(), payer, user_id, tier, 'measured', 'recorded',
           topup, $9
    FROM changed, granted WHERE user_id = $2
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $9, 'credit_pack', $2, jsonb_build_object('event_id', $1::uuid) || topup FROM granted
)
SELECT user_id FROM changed WHERE user_id = $2
"""
