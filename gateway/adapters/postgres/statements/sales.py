"""Statements about packs that were sold: lists, refunds, and what is taken back after them.

Promise that a refund is one entry, its row and an audit row, all or nothing, and that what is
reclaimed is the sum of the adjustments that name the refund. Those that change something are sent
in a transaction that has locked the payer. They and the drain never wait for each other in a
circle: a refund writes no sums, and reclaiming writes to no pack.
"""

from __future__ import annotations

_PACKS = """
SELECT pack_id, payer, granted_tokens, spent_tokens, left_tokens, epoch_ms(ends_at) AS ends_ms,
       payment_ref, epoch_ms(created_at) AS created_ms, live, epoch_ms(refunded_at) AS refunded_ms,
       reason, coalesce(reclaimed_tokens, 0) AS reclaimed_tokens
FROM pack_balances LEFT JOIN refunds USING (pack_id)
"""

PACKS = f"{_PACKS} WHERE payer = $1 ORDER BY created_at DESC, pack_id DESC"

PACK_OF = f"{_PACKS} WHERE payment_ref = $1"

PAYER_OF = "SELECT payer FROM packs WHERE payment_ref = $1"

NOW_MS = "SELECT epoch_ms(now())"

# No row is changed when the pack is refunded already. The entry charges nothing.
TAKE_BACK = """
WITH taken AS (
    UPDATE packs SET refunded_at = now() WHERE payment_ref = $2 AND refunded_at IS NULL
    RETURNING pack_id, payer, payment_ref, granted_tokens,
              greatest(0, granted_tokens - spent_tokens) AS left_tokens
), changed AS (
    UPDATE users SET rev = rev + 1 FROM taken WHERE user_id = taken.payer
    RETURNING user_id, tier
), noted AS (
    INSERT INTO refunds (pack_id, event_id, reason, author) SELECT pack_id, $1, $3, $4 FROM taken
), booked AS (
    INSERT INTO ledger (event_id, period, kind, at, payer, user_id, tier, quality, outcome,
                        refund, reason, author)
    SELECT $1, instant($5), 'refund', now(), user_id, user_id, tier, 'measured', 'recorded',
           jsonb_build_object('pack_id', pack_id, 'payment_ref', payment_ref,
                              'tokens', granted_tokens, 'left_tokens', left_tokens), $3, $4
    FROM changed, taken
    RETURNING user_id, refund
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $4, 'refund_pack', user_id,
           jsonb_build_object('event_id', $1::uuid, 'reason', $3::text) || refund
    FROM booked
)
SELECT count(*) FROM taken
"""

# How much a refunded pack has paid that is not booked yet; below 0 after a late correction.
TO_RECLAIM = """
SELECT greatest(0, spent_tokens) - reclaimed_tokens AS tokens
FROM refunds JOIN packs USING (pack_id) WHERE payment_ref = $1
"""

RECLAIMABLE = """
SELECT payment_ref FROM refunds JOIN packs USING (pack_id)
WHERE greatest(0, spent_tokens) <> reclaimed_tokens ORDER BY payment_ref LIMIT $1
"""

RECLAIM = """
WITH noted AS (
    UPDATE refunds SET reclaimed_tokens = reclaimed_tokens + $3
    FROM packs WHERE packs.pack_id = refunds.pack_id AND payment_ref = $2
    RETURNING payer, payment_ref, refunds.event_id AS refund_id, author, reason
), changed AS (
    UPDATE users SET rev = rev + 1 FROM noted WHERE user_id = noted.payer
    RETURNING user_id, tier
), booked AS (
    INSERT INTO ledger (event_id, period, kind, at, payer, user_id, tier, charged_tokens,
                        quality, outcome, corrects, reason, author)
    SELECT $1, instant($4), 'adjustment', now(), user_id, user_id, tier, $3,
           'measured', 'recorded', refund_id,
           'paid by the refunded pack of ' || payment_ref || ': ' || reason, author
    FROM changed, noted
    RETURNING payer, period, user_id, event_id, charged_tokens, reason, author
), summed AS (
    INSERT INTO period_usage AS kept (payer, period, adjusted_tokens, rows)
    SELECT payer, period, charged_tokens, 1 FROM booked
    ON CONFLICT (payer, period) DO UPDATE SET
        adjusted_tokens = kept.adjusted_tokens + excluded.adjusted_tokens,
        rows = kept.rows + 1
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT author, 'adjust', user_id,
           jsonb_build_object('event_id', event_id, 'tokens', charged_tokens, 'reason', reason)
    FROM booked
)
SELECT count(*) FROM noted
"""
