-- Who runs the gateway: tokens of the admin API by their digests, and what was answered where money
-- was made. Only new tables and an index: the release before runs on beside it.

CREATE TABLE admin_tokens (
    token_id   text        PRIMARY KEY,
    name       text        NOT NULL,
    digest     bytea       NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    scopes     text[]      NOT NULL CHECK (cardinality(scopes) > 0
                                           AND scopes <@ ARRAY['read', 'write', 'money']),
    created_by text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

-- One row for each idempotency key of a token. `intent` and `event_id` are settled before anything
-- is booked, so that a repetition after a crash books the same thing again, which changes nothing.
CREATE TABLE admin_requests (
    token_id        text        NOT NULL,
    idempotency_key text        NOT NULL,
    digest          bytea       NOT NULL CHECK (octet_length(digest) = 32),
    event_id        uuid        NOT NULL UNIQUE,
    intent          jsonb       NOT NULL,
    answer          bytea,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (token_id, idempotency_key)
);

CREATE INDEX audit_user ON audit (user_id, audit_id);
