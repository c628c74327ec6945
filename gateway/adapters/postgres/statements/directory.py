"""Statements about users, their keys and what they are entitled to.

Promise that each change raises the revision and leaves an audit row, or does nothing at all, and
that the calendar of a payer is the same at each of its users. Know no clock but the server's.
"""

from __future__ import annotations

IDENTITY_OF_KEY = """
SELECT user_id, payer, tier, rev, anchor_day, zone, epoch_ms(since) AS since_ms,
       prior_anchor_day, prior_zone, epoch_ms(prior_since) AS prior_since_ms
FROM api_keys JOIN users USING (user_id)
WHERE digest = $1 AND revoked_at IS NULL AND disabled_at IS NULL
"""

IDENTITY_OF_USER = """
SELECT user_id, payer, tier, rev, anchor_day, zone, epoch_ms(since) AS since_ms,
       prior_anchor_day, prior_zone, epoch_ms(prior_since) AS prior_since_ms
FROM users WHERE user_id = $1 AND disabled_at IS NULL
"""

USERS = """
SELECT user_id, payer, tier, rev, anchor_day, zone, epoch_ms(since) AS since_ms,
       prior_anchor_day, prior_zone, epoch_ms(prior_since) AS prior_since_ms
FROM users ORDER BY user_id
"""

UNPROJECTED = """
SELECT user_id, payer, tier, rev, anchor_day, zone, epoch_ms(since) AS since_ms,
       prior_anchor_day, prior_zone, epoch_ms(prior_since) AS prior_since_ms
FROM users WHERE rev > projected_rev ORDER BY user_id LIMIT $1
"""

MARK_PROJECTED = """
UPDATE users SET projected_rev = $2 WHERE user_id = $1 AND projected_rev < $2
"""

# Several gateways may do it at once: the second finds it done.
RAISE_REVISION = "UPDATE users SET rev = $2::bigint + 1 WHERE payer = $1 AND rev <= $2"

# No row: there is no such payer, or no such member of it. $2 is a member, or null for the payer
# itself. Adjustments of a member count for the payer too, and are told apart by who they name.
ENTITLEMENT = """
SELECT rev,
    CASE WHEN $2::text IS NULL THEN (
        SELECT adjusted_tokens FROM period_usage WHERE payer = $1 AND period = instant($3)
    ) ELSE (
        SELECT sum(charged_tokens)::bigint FROM ledger
        WHERE payer = $1 AND period = instant($3) AND user_id = $2 AND kind = 'adjustment'
    ) END AS adjusted_tokens,
    CASE WHEN $2::text IS NULL THEN told_packs($1, $4) END AS packs
FROM users WHERE user_id = coalesce($2::text, $1) AND payer = $1
"""

CREATE_USER = """
WITH changed AS (
    INSERT INTO users (user_id, payer, tier, anchor_day, zone, since,
                       prior_anchor_day, prior_zone, prior_since)
    VALUES ($1, $1, $2, $4, $5, instant($6), $7, $8, instant($9))
    ON CONFLICT (user_id) DO NOTHING
    RETURNING user_id, payer, tier, rev, anchor_day, zone, epoch_ms(since) AS since_ms,
              prior_anchor_day, prior_zone, epoch_ms(prior_since) AS prior_since_ms
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $3, 'create_user', user_id,
           jsonb_build_object('tier', tier, 'anchor_day', anchor_day, 'zone', zone)
    FROM changed
)
SELECT * FROM changed
"""

SET_TIER = """
WITH changed AS (
    UPDATE users SET tier = $2, rev = rev + 1 WHERE user_id = $1
    RETURNING user_id, payer, tier, rev, anchor_day, zone, epoch_ms(since) AS since_ms,
              prior_anchor_day, prior_zone, epoch_ms(prior_since) AS prior_since_ms
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $3, 'set_tier', user_id, jsonb_build_object('tier', tier) FROM changed
)
SELECT * FROM changed
"""

# Periods are the payer's: the members of a team change with it.
SET_CALENDAR = """
WITH changed AS (
    UPDATE users SET anchor_day = $3, zone = $4, since = instant($5), prior_anchor_day = $6,
                     prior_zone = $7, prior_since = instant($8), rev = rev + 1
    WHERE payer = (SELECT payer FROM users WHERE user_id = $1)
    RETURNING user_id, payer, tier, rev, anchor_day, zone, epoch_ms(since) AS since_ms,
              prior_anchor_day, prior_zone, epoch_ms(prior_since) AS prior_since_ms
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $2, 'set_calendar', user_id,
           jsonb_build_object('anchor_day', anchor_day, 'zone', zone, 'since_ms', since_ms)
    FROM changed WHERE user_id = $1
)
SELECT * FROM changed WHERE user_id = $1
"""

CREATE_KEY = """
WITH changed AS (
    UPDATE users SET rev = rev + 1 WHERE user_id = $2
    RETURNING user_id, payer, tier, rev, anchor_day, zone, epoch_ms(since) AS since_ms,
              prior_anchor_day, prior_zone, epoch_ms(prior_since) AS prior_since_ms
), created AS (
    INSERT INTO api_keys (key_id, user_id, digest) SELECT $1, user_id, $3 FROM changed
    RETURNING key_id
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $4, 'create_key', user_id, jsonb_build_object('key_id', key_id)
    FROM changed, created
)
SELECT * FROM changed
"""

# The first revocation's time stays.
REVOKE_KEY = """
WITH revoked AS (
    UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE key_id = $1
    RETURNING key_id, user_id
), changed AS (
    UPDATE users SET rev = rev + 1 FROM revoked WHERE users.user_id = revoked.user_id
    RETURNING users.user_id, payer, tier, rev, anchor_day, zone, epoch_ms(since) AS since_ms,
              prior_anchor_day, prior_zone, epoch_ms(prior_since) AS prior_since_ms
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $2, 'revoke_key', user_id, jsonb_build_object('key_id', key_id) FROM revoked
)
SELECT * FROM changed
"""
