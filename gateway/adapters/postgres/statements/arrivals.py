"""The statement by which many users come at once, with what they have used elsewhere.

Promises that each is made together with its adjustment, its sum and its lines of the audit, or not
at all where a user of that id is there. Knows no clock but the server's.
"""

from __future__ import annotations

# $1 is the author, $2 to $8 are columns, $9 the billing day of all, $10 the reason in the ledger.
# Nothing can be booked of a user who is new, so no entry is looked for.
TAKE_IN = """
WITH incoming AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::uuid[],
                         $8::bigint[])
        AS columns (user_id, tier, email, zone, tokens, event_id, period_ms)
), created AS (
    INSERT INTO users (user_id, payer, tier, email, anchor_day, zone)
    SELECT user_id, user_id, tier, email, $9, zone FROM incoming
    ON CONFLICT (user_id) DO NOTHING
    RETURNING user_id, tier, anchor_day, zone
), booked AS (
    INSERT INTO ledger (event_id, period, kind, at, payer, user_id, tier, charged_tokens,
                        quality, outcome, reason, author)
    SELECT event_id, instant(period_ms), 'adjustment', now(), user_id, user_id, created.tier,
           tokens, 'measured', 'recorded', $10, $1
    FROM incoming JOIN created USING (user_id) WHERE tokens > 0
    RETURNING event_id, payer, period, user_id, charged_tokens
), summed AS (
    INSERT INTO period_usage AS kept (payer, period, adjusted_tokens, rows)
    SELECT payer, period, charged_tokens, 1 FROM booked
    ON CONFLICT (payer, period) DO UPDATE SET
        adjusted_tokens = kept.adjusted_tokens + excluded.adjusted_tokens, rows = kept.rows + 1
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $1, 'create_user', user_id,
           jsonb_build_object('tier', tier, 'anchor_day', anchor_day, 'zone', zone)
    FROM created
    UNION ALL
    SELECT $1, 'adjust', user_id, jsonb_build_object(
        'event_id', event_id, 'tokens', charged_tokens, 'reason', $10::text)
    FROM booked
)
SELECT user_id FROM created
"""
