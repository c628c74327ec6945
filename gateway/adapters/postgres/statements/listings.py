"""Statements that list: people, keys, the audit, what was used, and entries of the ledger.

Promise that every text is a parameter, that a prefix is taken as it is written (`%` and `_` are
letters of it), and that a page begins after a row, not at a number. They write nothing.
"""

from __future__ import annotations

PERSONS = """
SELECT user_id, payer, tier, email, is_team,
       CASE WHEN disabled_at IS NOT NULL THEN 'disabled'
            WHEN blocked_at IS NOT NULL THEN 'blocked' ELSE 'active' END AS state,
       block_reason, zone, limits::text AS limits_json, epoch_ms(created_at) AS created_ms
FROM users WHERE user_id = ANY ($1)
"""

BOOKED_TOKENS = """
SELECT event_id::text, charged_tokens FROM ledger WHERE event_id = ANY ($1::uuid[])
"""

# $3: the beginning of ids, $4: teams or users, $5: members of this team only.
PEOPLE = r"""
SELECT user_id, payer, tier, email, is_team,
       CASE WHEN disabled_at IS NOT NULL THEN 'disabled'
            WHEN blocked_at IS NOT NULL THEN 'blocked' ELSE 'active' END AS state,
       block_reason, zone, limits::text AS limits_json, epoch_ms(created_at) AS created_ms
FROM users
WHERE user_id > $2 AND is_team = $4 AND ($5::text IS NULL OR payer = $5)
  AND ($3 = '' OR user_id LIKE regexp_replace($3, '([\\%_])', '\\\1', 'g') || '%')
ORDER BY user_id LIMIT $1
"""

KEYS = """
SELECT key_id, user_id, is_service, epoch_ms(created_at) AS created_ms,
       epoch_ms(revoked_at) AS revoked_ms
FROM api_keys WHERE user_id = $1 ORDER BY created_at DESC, key_id LIMIT 1000
"""

AUDIT = """
SELECT audit_id, epoch_ms(at) AS at_ms, who, what, user_id, detail
FROM audit
WHERE ($2::bigint IS NULL OR audit_id < $2) AND ($3::text IS NULL OR user_id = $3)
  AND ($4::text IS NULL OR who = $4) AND ($5::text IS NULL OR what = $5)
ORDER BY audit_id DESC LIMIT $1
"""

# Closings, topups and refunds charge nothing and are left out. $3 is period, model or tag.
USAGE = """
SELECT epoch_ms(period) AS period_ms, name,
       count(*) FILTER (WHERE kind = 'usage') AS calls,
       sum(prompt_tokens)::bigint AS prompt_tokens, sum(output_tokens)::bigint AS output_tokens,
       coalesce(sum(charged_tokens) FILTER (WHERE kind <> 'adjustment'), 0)::bigint
           AS charged_tokens,
       coalesce(sum(charged_tokens) FILTER (WHERE kind = 'adjustment'), 0)::bigint
           AS adjusted_tokens,
       sum(cost_nano_gbp)::bigint AS cost_nano_gbp
FROM (
    SELECT *, coalesce(CASE $3 WHEN 'model' THEN model WHEN 'tag' THEN tag END, '') AS name
    FROM ledger
    WHERE payer = ANY ($4) AND ($5::text IS NULL OR user_id = $5)
      AND kind IN ('usage', 'correction', 'adjustment')
      AND ($1::bigint IS NULL OR period <= instant($1))
) AS entries
WHERE $1::bigint IS NULL OR period < instant($1) OR name > $2
GROUP BY period, name ORDER BY period DESC, name LIMIT $6
"""

ENTRIES = """
SELECT event_id::text, epoch_ms(period) AS period_ms, epoch_ms(at) AS at_ms, kind, payer, user_id,
       tier, route, model, tag, prompt_tokens, output_tokens, charged_tokens, from_packs,
       cost_nano_gbp, quality, outcome, reason, author
FROM ledger
WHERE payer = ANY ($3) AND ($4::text IS NULL OR user_id = $4)
  AND ($1::uuid IS NULL OR (event_id, period) < ($1, instant($2)))
ORDER BY event_id DESC, period DESC LIMIT $5
"""
