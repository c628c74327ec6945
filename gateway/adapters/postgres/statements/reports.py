"""Statements that read the ledger as a whole: exports, charges and the use of tiers.

Promise an order that stays, so that a reader can go on where it stopped. They write nothing, and
know nothing of formats.
"""

from __future__ import annotations

# Reading everything takes longer than a statement normally may, and so may the reader.
READ_LONG = """
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
"""

# In the order of event ids, which is the order in which the calls began and that of the key.
EXPORT = """
SELECT event_id::text, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS at,
       to_char(period AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS period,
       kind, payer, user_id, tier, route, model, stream, tag,
       prompt_tokens, cached_tokens, output_tokens, reasoning_tokens, charged_tokens, held_tokens,
       from_allowance, from_packs, pack_split, overdraft_tokens, cost_nano_gbp, price_id,
       service_tier, quality, outcome, status, sdk_retry, upstream_id, client_id,
       corrects::text, reason, author, shard, epoch, stream_id, account_seq, topup, refund, closing,
       to_char(tier_period AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS tier_period
FROM ledger
WHERE ($1::uuid IS NULL OR event_id > $1) AND ($2::text IS NULL OR user_id = $2)
  AND ($3::bigint IS NULL OR at >= instant($3)) AND ($4::bigint IS NULL OR at < instant($4))
ORDER BY event_id, period
"""

# A correction stands beside the entry it corrects: both carry the same rid.
CHARGES = """
SELECT event_id::text, coalesce(corrects, event_id)::text AS rid, user_id,
       prompt_tokens, output_tokens, charged_tokens, quality, outcome
FROM ledger
WHERE kind IN ('usage', 'correction') AND ($1::uuid IS NULL OR event_id > $1)
ORDER BY event_id, period
LIMIT $2
"""

# A period is at most 31 days long; of a payer's periods only the newest can run now. What packs
# paid counts too: the cap of a tier is about all that its payers use.
USED_BY_TIER = """
SELECT tier, sum(greatest(0, settled_tokens + adjusted_tokens))::bigint AS used_tokens
FROM (
    SELECT DISTINCT ON (p.payer) u.tier, p.settled_tokens, p.adjusted_tokens
    FROM period_usage p JOIN users u ON u.user_id = p.payer
    WHERE p.period > to_timestamp($1::bigint / 1000.0) - interval '31 days'
    ORDER BY p.payer, p.period DESC
) AS running GROUP BY tier
"""

# What a call used is what its last correction says, its cost the sum of all; it stays on the day on
# which it ended first. Its id tells when it began (but of usage from elsewhere, which is left out).
BOOKED_BY_DAY = """
WITH mended AS (
    SELECT DISTINCT ON (corrects) corrects, prompt_tokens, cached_tokens, output_tokens, quality,
           sum(cost_nano_gbp) OVER (PARTITION BY corrects) AS nano_gbp
    FROM ledger
    WHERE kind = 'correction' AND corrects IS NOT NULL
      AND period >= instant($1) - interval '32 days' AND period < instant($2)
    ORDER BY corrects, at DESC, event_id
), calls AS (
    SELECT (at AT TIME ZONE 'UTC')::date AS day, model, price_id,
           CASE WHEN outcome = 'recorded' THEN 'recorded'
                WHEN outcome = 'unknown_upstream' THEN 'upstream_failed'
                WHEN coalesce(mended.quality, ledger.quality) = 'measured' THEN 'measured'
                WHEN outcome = 'client_gone' THEN 'client_gone'
                ELSE 'estimated' END AS standing,
           coalesce(mended.prompt_tokens, ledger.prompt_tokens) AS input_tokens,
           coalesce(mended.cached_tokens, ledger.cached_tokens) AS cached_tokens,
           coalesce(mended.output_tokens, ledger.output_tokens) AS output_tokens,
           cost_nano_gbp + coalesce(nano_gbp, 0) AS nano_gbp,
           (instant(('x' || left(replace(event_id::text, '-', ''), 12))::bit(48)::bigint)
               AT TIME ZONE 'UTC')::date AS began
    FROM ledger LEFT JOIN mended ON mended.corrects = ledger.event_id
    WHERE kind = 'usage' AND tier IS DISTINCT FROM 'canary'
      AND at >= instant($1) AND at < instant($2)
      AND period >= instant($1) - interval '32 days' AND period < instant($2)
)
SELECT day::text, model, price_id, standing, count(*) AS calls,
       sum(input_tokens)::bigint AS input_tokens, sum(cached_tokens)::bigint AS cached_tokens,
       sum(output_tokens)::bigint AS output_tokens, sum(nano_gbp)::bigint AS nano_gbp,
       coalesce(sum(input_tokens + output_tokens)
           FILTER (WHERE began < day AND standing <> 'recorded'), 0)::bigint AS over_midnight_tokens
FROM calls GROUP BY day, model, price_id, standing ORDER BY day, model, price_id, standing
"""

PACK_FAULTS = "SELECT pack_id, payer, payment_ref, fault FROM topup_faults ORDER BY payer, pack_id"
