"""Statements that close periods.

Promise that a period is closed once, with the figures that stand when its row is locked. When a
period ends is the calendar's to say: these statements only narrow down what may have ended.
"""

from __future__ import annotations

# Payers by what decides about the end: period and calendar, at most $2 of each. Most share one, so
# that few ends are reckoned for many payers. Borders are at least 27 days apart; only the first
# period of a changed calendar can be shorter.
OPEN_PERIODS = """
SELECT epoch_ms(kept.period) AS period_start_ms, anchor_day, zone, epoch_ms(since) AS since_ms,
       prior_anchor_day, prior_zone, epoch_ms(prior_since) AS prior_since_ms,
       (array_agg(kept.payer ORDER BY kept.payer))[1:$2::int] AS payers
FROM period_usage AS kept JOIN users ON users.user_id = kept.payer
WHERE closed_at IS NULL AND kept.period >= instant(0) AND kept.period < instant($1)
  AND (kept.period < instant($1) - interval '27 days' OR since > instant(0))
GROUP BY kept.period, anchor_day, zone, since, prior_anchor_day, prior_zone, prior_since
ORDER BY kept.period
"""

# The lock comes first: what another process closed meanwhile is left out, and the figures are those
# that hold now. An entry costs and charges nothing, so sums over all kinds stay true.
CLOSE = """
WITH ended AS (
    SELECT asked.event_id, kept.payer, kept.period, users.tier, kept.settled_tokens,
           kept.from_packs, kept.adjusted_tokens, kept.cost_nano_gbp, kept.rows
    FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS asked (event_id, payer, period_ms)
    JOIN period_usage AS kept
        ON kept.payer = asked.payer AND kept.period = instant(asked.period_ms)
    JOIN users ON users.user_id = kept.payer
    WHERE kept.closed_at IS NULL
    ORDER BY kept.payer, kept.period FOR UPDATE OF kept
), closed AS (
    UPDATE period_usage SET closed_at = instant($4) FROM ended
    WHERE period_usage.payer = ended.payer AND period_usage.period = ended.period
), booked AS (
    INSERT INTO ledger (event_id, period, kind, at, payer, user_id, tier, quality, outcome,
                        closing)
    SELECT event_id, period, 'period_close', instant($4), payer, payer, tier, 'measured',
           'recorded', jsonb_build_object('settled_tokens', settled_tokens,
               'from_packs', from_packs, 'adjusted_tokens', adjusted_tokens,
               'cost_nano_gbp', cost_nano_gbp, 'rows', rows)
    FROM ended
    ON CONFLICT (event_id, period) DO NOTHING
    RETURNING event_id
)
SELECT count(*) FROM booked
"""
