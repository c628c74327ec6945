"""Statements about operators: tokens, lines of the audit, and answers where money was made.

Promise that a token is given out or revoked together with its audit row, and that what is kept
under an idempotency key is never replaced. Know digests only.
"""

from __future__ import annotations

TOKEN_OF = """
SELECT token_id, name, scopes, created_by, epoch_ms(created_at) AS created_ms,
       epoch_ms(revoked_at) AS revoked_ms
FROM admin_tokens WHERE digest = $1 AND revoked_at IS NULL
"""

TOKENS = """
SELECT token_id, name, scopes, created_by, epoch_ms(created_at) AS created_ms,
       epoch_ms(revoked_at) AS revoked_ms
FROM admin_tokens ORDER BY created_at DESC, token_id LIMIT 1000
"""

CREATE_TOKEN = """
WITH created AS (
    INSERT INTO admin_tokens (token_id, name, digest, scopes, created_by)
    VALUES ($1, $2, $3, $4, $5)
    RETURNING token_id, name, scopes, created_by, epoch_ms(created_at) AS created_ms,
              epoch_ms(revoked_at) AS revoked_ms
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $5, 'create_token', '',
           jsonb_build_object('token_id', token_id, 'name', name, 'scopes', scopes)
    FROM created
)
SELECT * FROM created
"""

# The first revocation's time stays, and only that one stands in the audit.
REVOKE_TOKEN = """
WITH before AS (
    SELECT token_id, revoked_at IS NULL AS worked FROM admin_tokens WHERE token_id = $1 FOR UPDATE
), revoked AS (
    UPDATE admin_tokens SET revoked_at = coalesce(revoked_at, now())
    FROM before WHERE admin_tokens.token_id = before.token_id
    RETURNING admin_tokens.token_id, name, scopes, created_by, epoch_ms(created_at) AS created_ms,
              epoch_ms(revoked_at) AS revoked_ms, worked
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $2, 'revoke_token', '', jsonb_build_object('token_id', token_id, 'name', name)
    FROM revoked WHERE worked
)
SELECT token_id, name, scopes, created_by, created_ms, revoked_ms FROM revoked
"""

NOTE = "INSERT INTO audit (who, what, user_id, detail) VALUES ($1, $2, $3, $4)"

BEGIN = """
INSERT INTO admin_requests (token_id, idempotency_key, digest, event_id, intent)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT (token_id, idempotency_key) DO NOTHING
"""

BEGUN = """
SELECT digest, event_id::text, intent, answer
FROM admin_requests WHERE token_id = $1 AND idempotency_key = $2
"""

ANSWERED = """
UPDATE admin_requests SET answer = coalesce(answer, $3)
WHERE token_id = $1 AND idempotency_key = $2 RETURNING answer
"""
