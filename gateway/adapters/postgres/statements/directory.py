"""Statements about users, their keys and teams, and what they are entitled to.

Promise that each change raises the revision and leaves an audit row, or does nothing at all; it
answers with the user it changed, or with no row. Know no clock but the server's.
"""

from __future__ import annotations

IDENTITY_OF_KEY = """
SELECT identities.*, is_service FROM api_keys JOIN identities USING (user_id)
WHERE digest = $1 AND revoked_at IS NULL AND NOT is_disabled
"""

IDENTITY_OF_USER = "SELECT * FROM identities WHERE user_id = $1 AND NOT is_disabled"

# Whatever has become of the user since.
IDENTITY = "SELECT * FROM identities WHERE user_id = $1"

# As one who pays for itself, also where it is in a team: its own account outlives that.
AS_PAYER = """
SELECT user_id, user_id AS payer, tier, rev, anchor_day, zone, epoch_ms(since) AS since_ms,
       prior_anchor_day, prior_zone, epoch_ms(prior_since) AS prior_since_ms,
       NULL::bigint AS member_rev, email, blocked_at IS NOT NULL AS is_blocked, is_team,
       epoch_ms(tier_set_at) AS tier_set_ms, limits, NULL::jsonb AS member_limits
FROM users WHERE user_id = $1
"""

USERS = "SELECT * FROM identities ORDER BY user_id"

MEMBERS = """
SELECT * FROM identities WHERE payer = $1 AND user_id <> payer ORDER BY user_id
"""

UNPROJECTED = "SELECT * FROM identities WHERE is_unprojected ORDER BY user_id LIMIT $1"

# By the audit, which every change by a person is written to. After $2, in the order of users.
CHANGED_LATELY = """
SELECT * FROM identities
WHERE user_id > $2
    AND user_id IN (SELECT user_id FROM audit WHERE at > now() - $1 * interval '1 second')
ORDER BY user_id LIMIT $3
"""

MARK_PROJECTED = """
UPDATE users SET projected_rev = $2 WHERE user_id = $1 AND projected_rev < $2
"""

# Several gateways may do it at once: the second finds it done.
RAISE_REVISION = "UPDATE users SET rev = $2::bigint + 1 WHERE payer = $1 AND rev <= $2"

# No row: there is no such payer, or no such member of it. $2 is a member, or null for the payer
# itself; who has joined a team since keeps the account of before. Adjustments of a member count for
# the payer too, and are told apart by who they name.
ENTITLEMENT = """
SELECT rev,
    CASE WHEN $2::text IS NULL THEN (
        SELECT adjusted_tokens FROM period_usage WHERE payer = $1 AND period = instant($3)
    ) ELSE (
        SELECT sum(charged_tokens)::bigint FROM ledger
        WHERE payer = $1 AND period = instant($3) AND user_id = $2 AND kind = 'adjustment'
    ) END AS adjusted_tokens,
    CASE WHEN $2::text IS NULL THEN told_packs($1, $4) END AS packs
FROM users WHERE user_id = coalesce($2::text, $1) AND ($2 IS NULL OR payer = $1)
"""

# The author is $1 from here on.
CREATE_USER = """
WITH changed AS (
    INSERT INTO users (user_id, payer, tier, email, is_team, anchor_day, zone, since,
                       prior_anchor_day, prior_zone, prior_since)
    VALUES ($2, $2, $3, $4, $5, $6, $7, instant($8), $9, $10, instant($11))
    ON CONFLICT (user_id) DO NOTHING
    RETURNING *
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $1, CASE WHEN is_team THEN 'create_team' ELSE 'create_user' END, user_id,
           jsonb_build_object('tier', tier, 'anchor_day', anchor_day, 'zone', zone)
    FROM changed
)
SELECT user_id FROM changed
"""

# What was before stands in the audit too: it is locked, so nothing comes in between.
SET_TIER = """
WITH before AS (
    SELECT jsonb_build_object('tier', tier) AS before FROM users WHERE user_id = $2 FOR UPDATE
), changed AS (
    UPDATE users SET tier = $3, tier_set_at = now(), rev = rev + 1
    WHERE user_id = $2 AND user_id = payer AND EXISTS (SELECT FROM before)
    RETURNING user_id, tier
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $1, 'set_tier', user_id, jsonb_build_object('tier', tier, 'before', before)
    FROM changed, before
)
SELECT user_id FROM changed
"""

# No row, too, where the tier was decided after the claim was made ($4, ms).
CLAIM_TIER = """
WITH changed AS (
    UPDATE users SET tier = $3, tier_set_at = instant($4), rev = rev + 1
    WHERE user_id = $2 AND user_id = payer AND tier_set_at < instant($4)
    RETURNING user_id, tier
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $1, 'claim_tier', user_id, jsonb_build_object('tier', tier) FROM changed
)
SELECT user_id FROM changed
"""

SET_CALENDAR = """
WITH before AS (
    SELECT jsonb_build_object('anchor_day', anchor_day, 'zone', zone) AS before
    FROM users WHERE user_id = $2 FOR UPDATE
), changed AS (
    UPDATE users SET anchor_day = $3, zone = $4, since = instant($5), prior_anchor_day = $6,
                     prior_zone = $7, prior_since = instant($8), rev = rev + 1
    WHERE user_id = $2 AND user_id = payer AND EXISTS (SELECT FROM before)
    RETURNING *
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $1, 'set_calendar', user_id,
           jsonb_build_object('anchor_day', anchor_day, 'zone', zone, 'since_ms', epoch_ms(since),
                              'before', before)
    FROM changed, before
)
SELECT user_id FROM changed
"""

# An address entitles to nothing: the revision stays. The audit does not keep it.
SET_EMAIL = """
WITH changed AS (
    UPDATE users SET email = $3 WHERE user_id = $2 RETURNING user_id
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $1, 'set_email', user_id, jsonb_build_object('given', $3::text IS NOT NULL) FROM changed
)
SELECT user_id FROM changed
"""

SET_LIMITS = """
WITH before AS (
    SELECT jsonb_build_object('limits', limits) AS before FROM users WHERE user_id = $2 FOR UPDATE
), changed AS (
    UPDATE users SET limits = $3::jsonb, rev = rev + 1
    WHERE user_id = $2 AND EXISTS (SELECT FROM before)
    RETURNING user_id, limits
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $1, 'set_limits', user_id, jsonb_build_object('limits', limits, 'before', before)
    FROM changed, before
)
SELECT user_id FROM changed
"""

# $3: active, blocked or disabled. What is so already keeps the time at which it became so.
SET_STATE = """
WITH before AS (
    SELECT jsonb_build_object('state', CASE WHEN disabled_at IS NOT NULL THEN 'disabled'
        WHEN blocked_at IS NOT NULL THEN 'blocked' ELSE 'active' END) AS before
    FROM users WHERE user_id = $2 FOR UPDATE
), changed AS (
    UPDATE users SET
        blocked_at = CASE WHEN $3 = 'blocked' THEN coalesce(blocked_at, now()) END,
        block_reason = CASE WHEN $3 = 'blocked' THEN $4::text END,
        disabled_at = CASE WHEN $3 = 'disabled' THEN coalesce(disabled_at, now()) END,
        rev = rev + 1
    WHERE user_id = $2 AND EXISTS (SELECT FROM before)
    RETURNING user_id
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $1, 'set_state', user_id,
           jsonb_build_object('state', $3::text, 'reason', $4::text, 'before', before)
    FROM changed, before
)
SELECT user_id FROM changed
"""

# No row: no such team, no such user, a team, or in another team. Both revisions rise, so that what
# is remembered of either account is out of date.
JOIN_TEAM = """
WITH changed AS (
    UPDATE users SET payer = $3, rev = rev + 1
    WHERE user_id = $2 AND payer IN ($2, $3) AND NOT is_team
      AND EXISTS (SELECT FROM users WHERE user_id = $3 AND is_team)
    RETURNING user_id
), told AS (
    UPDATE users SET rev = rev + 1 WHERE user_id = $3 AND EXISTS (SELECT FROM changed)
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $1, 'join_team', user_id, jsonb_build_object('team', $3::text) FROM changed
)
SELECT user_id FROM changed
"""

LEAVE_TEAM = """
WITH changed AS (
    UPDATE users SET payer = user_id, rev = rev + 1
    WHERE user_id = $2 AND payer = $3 AND user_id <> payer
    RETURNING user_id
), told AS (
    UPDATE users SET rev = rev + 1 WHERE user_id = $3 AND EXISTS (SELECT FROM changed)
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $1, 'leave_team', user_id, jsonb_build_object('team', $3::text) FROM changed
)
SELECT user_id FROM changed
"""

CREATE_KEY = """
WITH changed AS (
    UPDATE users SET rev = rev + 1 WHERE user_id = $3 AND NOT is_team
    RETURNING user_id
), created AS (
    INSERT INTO api_keys (key_id, user_id, digest, is_service)
    SELECT $2, user_id, $4, $5 FROM changed
    RETURNING key_id, is_service
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $1, 'create_key', user_id,
           jsonb_build_object('key_id', key_id)
           || CASE WHEN is_service THEN '{"is_service": true}'::jsonb ELSE '{}'::jsonb END
    FROM changed, created
)
SELECT user_id FROM changed
"""

# The first revocation's time stays.
REVOKE_KEY = """
WITH revoked AS (
    UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE key_id = $2
    RETURNING key_id, user_id
), changed AS (
    UPDATE users SET rev = rev + 1 FROM revoked WHERE users.user_id = revoked.user_id
    RETURNING users.user_id
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $1, 'revoke_key', user_id, jsonb_build_object('key_id', key_id) FROM revoked
)
SELECT user_id FROM changed
"""
