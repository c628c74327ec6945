-- What exact counters need: packs, calendars that change, the server each shard was read on, and
-- the closing of periods. Only additions with defaults: the release before runs on beside it. Its
-- tables are locked in the order in which that release's drain and hydration use them.

-- The figures of a topup and of a period_close: what they say is not a charge.
ALTER TABLE ledger ADD COLUMN topup jsonb, ADD COLUMN closing jsonb;

-- The fields of a calendar. Up to `since` the prior ones are in force.
ALTER TABLE users
    ADD COLUMN since            timestamptz NOT NULL DEFAULT instant(0),
    ADD COLUMN prior_anchor_day smallint    CHECK (prior_anchor_day BETWEEN 1 AND 31),
    ADD COLUMN prior_zone       text,
    ADD COLUMN prior_since      timestamptz NOT NULL DEFAULT instant(0),
    DROP CONSTRAINT users_anchor_day_check,
    ADD CONSTRAINT users_anchor_day_check CHECK (anchor_day BETWEEN 1 AND 31),
    ADD CONSTRAINT users_prior_is_whole
        CHECK ((prior_anchor_day IS NULL) = (prior_zone IS NULL));

ALTER TABLE period_usage
    ADD COLUMN from_packs bigint NOT NULL DEFAULT 0,
    ADD COLUMN closed_at  timestamptz;
CREATE INDEX period_usage_open ON period_usage (period) WHERE closed_at IS NULL;

-- Of which server the outbox has been read from its beginning; '' is not noted yet.
ALTER TABLE shards ADD COLUMN server_id text NOT NULL DEFAULT '';

-- Top-ups. `spent_tokens` is a sum of `ledger.pack_split`, kept in the transaction that adds the
-- entries. An id travels inside "id:tokens,id:tokens", so it holds no space, comma or colon.
CREATE TABLE packs (
    pack_id        text        PRIMARY KEY CHECK (pack_id ~ '^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$'),
    payer          text        NOT NULL,
    granted_tokens bigint      NOT NULL CHECK (granted_tokens > 0 AND granted_tokens < 10 ^ 15),
    spent_tokens   bigint      NOT NULL DEFAULT 0,
    ends_at        timestamptz NOT NULL,
    payment_ref    text        NOT NULL UNIQUE,
    refunded_at    timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX packs_payer ON packs (payer);

-- What is left of each pack by the ledger; `live` while it can be spent.
CREATE VIEW pack_balances AS
SELECT *, left_tokens > 0 AND ends_at > now() AS live
FROM (
    SELECT pack_id, payer, granted_tokens, spent_tokens,
           CASE WHEN refunded_at IS NULL THEN greatest(0, granted_tokens - spent_tokens) ELSE 0 END
               AS left_tokens,
           ends_at, payment_ref, refunded_at, created_at
    FROM packs
) AS balances;
