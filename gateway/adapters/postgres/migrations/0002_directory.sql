-- Users and their keys, and who changed them. `rev` rises with every change of entitlement;
-- `rev > projected_rev` is the list of what Redis has not confirmed yet.

CREATE TABLE users (
    user_id       text        PRIMARY KEY,
    payer         text        NOT NULL,
    tier          text        NOT NULL,
    rev           bigint      NOT NULL DEFAULT 1,
    projected_rev bigint      NOT NULL DEFAULT 0,
    anchor_day    smallint    NOT NULL CHECK (anchor_day BETWEEN 1 AND 28),
    zone          text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    disabled_at   timestamptz
);
CREATE INDEX users_payer ON users (payer);
CREATE INDEX users_unprojected ON users (user_id) WHERE rev > projected_rev;

CREATE TABLE api_keys (
    key_id     text        PRIMARY KEY,
    user_id    text        NOT NULL REFERENCES users,
    digest     bytea       NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
CREATE INDEX api_keys_user ON api_keys (user_id);

CREATE TABLE audit (
    audit_id bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    who      text        NOT NULL,
    what     text        NOT NULL,
    user_id  text        NOT NULL,
    detail   jsonb       NOT NULL
);
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_is_never_emptied BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
