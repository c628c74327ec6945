"""Statements about one period of one payer, for its own eyes.

They read the entries of that period by the ledger's index and no others, and write nothing.
"""

from __future__ import annotations

# Somebody waits in front of a page: what takes longer is left out.
READ_SHORT = "SET LOCAL statement_timeout = 2000"

DAYS = """
SELECT to_char(at AT TIME ZONE $4, 'YYYY-MM-DD') AS day, sum(charged_tokens)::bigint AS tokens
FROM ledger
WHERE payer = $1 AND period = instant($2) AND ($3::text IS NULL OR user_id = $3)
  AND kind IN ('usage', 'correction')
GROUP BY 1 ORDER BY 1
"""

LAST_CHARGES = """
SELECT event_id::text, epoch_ms(at) AS at_ms, kind, coalesce(route, '') AS route,
       coalesce(model, '') AS model, tag, prompt_tokens, cached_tokens, output_tokens,
       charged_tokens, cost_nano_gbp, price_id, quality, outcome
FROM ledger
WHERE payer = $1 AND period = instant($2) AND ($3::text IS NULL OR user_id = $3)
  AND kind IN ('usage', 'correction')
ORDER BY at DESC, event_id DESC LIMIT $4
"""
