"""Every statement the adapter sends, each with the promise it keeps.

A statement that writes in several tables is one statement on purpose: it is one transaction and
one round trip, and what follows from a row follows only from rows that were really written.
Arguments are positional; instants travel as milliseconds since the Unix epoch.
"""

from __future__ import annotations

# Any two numbers that nobody else in the database uses for an advisory lock.
_MIGRATION_LOCK = 0x7167_0001
_DRAIN_LOCK = 0x7167_0002

# --- migrations ---------------------------------------------------------------------------------

# Wait for another process as long as it takes, but for a busy table only ten seconds: whoever
# waits for an exclusive lock makes everybody else wait behind it.
BEGIN_MIGRATION = f"""
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = 0;
SELECT pg_advisory_xact_lock({_MIGRATION_LOCK});
SET LOCAL lock_timeout = '10s';
SET LOCAL client_min_messages = warning;
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       text        PRIMARY KEY,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""

MIGRATION_CHECKSUM = "SELECT checksum FROM schema_migrations WHERE name = $1"

RECORD_MIGRATION = "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)"

# --- the drain ----------------------------------------------------------------------------------

# True again for the connection that holds it: the lock counts.
TRY_DRAIN_LOCK = f"SELECT pg_try_advisory_lock({_DRAIN_LOCK})"

# The number of shards the ledger was begun with; the first caller decides.
SHARD_COUNT = """
INSERT INTO shard_count (shards) VALUES ($1)
ON CONFLICT (only_row) DO UPDATE SET shards = shard_count.shards
RETURNING shards
"""

CURSORS = "SELECT shard, epoch, cursor FROM shards"

# A stop on the way, because COPY cannot skip what is there already. With the ledger's own columns
# and defaults, so that a later migration may add one while this release still runs.
MAKE_INCOMING = """
CREATE TEMP TABLE IF NOT EXISTS incoming (LIKE ledger INCLUDING DEFAULTS) ON COMMIT DELETE ROWS
"""

# Entries and the sums that follow from the new ones. Payers in order: two writers cannot deadlock.
BOOK = """
WITH booked AS (
    INSERT INTO ledger SELECT * FROM incoming
    ON CONFLICT (event_id, period) DO NOTHING
    RETURNING payer, period, kind, charged_tokens, cost_nano_gbp, shard, stream_id, event_id
), summed AS (
    INSERT INTO period_usage AS kept (payer, period, settled_tokens, cost_nano_gbp, rows)
    SELECT payer, period, sum(charged_tokens), sum(cost_nano_gbp), count(*)
    FROM booked WHERE kind IN ('usage', 'correction')
    GROUP BY payer, period ORDER BY payer, period
    ON CONFLICT (payer, period) DO UPDATE SET
        settled_tokens = kept.settled_tokens + excluded.settled_tokens,
        cost_nano_gbp = kept.cost_nano_gbp + excluded.cost_nano_gbp,
        rows = kept.rows + excluded.rows
)
SELECT shard, stream_id, event_id::text FROM booked
"""

# An entry that comes again is the same dead entry.
BURY = """
INSERT INTO ledger_dead (shard, stream_id, event_json, script_part, reason)
SELECT * FROM unnest($1::smallint[], $2::text[], $3::bytea[], $4::bytea[], $5::text[])
ON CONFLICT DO NOTHING
RETURNING shard
"""

# Forwards only, whatever is booked again after a rollback of Redis.
ADVANCE_CURSORS = """
INSERT INTO shards AS kept (shard, epoch, cursor)
SELECT * FROM unnest($1::smallint[], $2::int[], $3::text[]) AS reached (shard, epoch, cursor)
ORDER BY reached.shard
ON CONFLICT (shard) DO UPDATE SET
    epoch = greatest(kept.epoch, excluded.epoch),
    cursor = CASE WHEN stream_position(excluded.cursor) > stream_position(kept.cursor)
                  THEN excluded.cursor ELSE kept.cursor END
"""

# Compare and set. The row is written even when nothing changes: that locks it, so the answer is
# what holds now and not what this statement's snapshot saw.
RAISE_EPOCH = """
INSERT INTO shards AS kept (shard, epoch, cursor) VALUES ($1, $2 + 1, '0-0')
ON CONFLICT (shard) DO UPDATE SET
    epoch = CASE WHEN kept.epoch = $2 THEN kept.epoch + 1 ELSE kept.epoch END
RETURNING epoch, cursor
"""

# One row, or none while the cursor is not there. Entries past the asked stream id are left out:
# Redis has counted them since the hydration began. Cursor and sums are of one snapshot.
SUMS = """
SELECT sums.*, coalesce((SELECT max(rev) FROM users WHERE payer = $1), 0) AS rev
FROM (
    SELECT
        coalesce(sum(charged_tokens) FILTER (WHERE kind IN ('usage', 'correction')), 0)::bigint
            AS settled_tokens,
        coalesce(sum(charged_tokens) FILTER (WHERE kind = 'adjustment'), 0)::bigint
            AS adjusted_tokens,
        coalesce(sum(cost_nano_gbp) FILTER (WHERE kind IN ('usage', 'correction')), 0)::bigint
            AS cost_nano_gbp
    FROM ledger
    WHERE payer = $1 AND period = instant($2)
      AND (stream_id IS NULL OR epoch < $4
           OR (epoch = $4 AND stream_position(stream_id) <= stream_position($5)))
) AS sums
WHERE $5 = '0-0' OR EXISTS (
    SELECT FROM shards
    WHERE shard = $3 AND (epoch, stream_position(cursor)) >= ($4, stream_position($5)))
"""

PREPARE_PARTITIONS = "SELECT prepare_ledger_partitions(instant($1))"

# --- users and keys -----------------------------------------------------------------------------

IDENTITY_OF_KEY = """
SELECT user_id, payer, tier, rev, anchor_day, zone
FROM api_keys JOIN users USING (user_id)
WHERE digest = $1 AND revoked_at IS NULL AND disabled_at IS NULL
"""

IDENTITY_OF_USER = """
SELECT user_id, payer, tier, rev, anchor_day, zone
FROM users WHERE user_id = $1 AND disabled_at IS NULL
"""

USERS = "SELECT user_id, payer, tier, rev, anchor_day, zone FROM users ORDER BY user_id"

UNPROJECTED = """
SELECT user_id, payer, tier, rev, anchor_day, zone
FROM users WHERE rev > projected_rev ORDER BY user_id LIMIT $1
"""

MARK_PROJECTED = """
UPDATE users SET projected_rev = $2 WHERE user_id = $1 AND projected_rev < $2
"""

ENTITLEMENT = """
SELECT max(rev) AS rev, coalesce((SELECT adjusted_tokens FROM period_usage
    WHERE payer = $1 AND period = instant($2)), 0) AS adjusted_tokens
FROM users WHERE payer = $1
"""

CREATE_USER = """
WITH changed AS (
    INSERT INTO users (user_id, payer, tier, anchor_day, zone) VALUES ($1, $1, $2, $3, $4)
    ON CONFLICT (user_id) DO NOTHING
    RETURNING user_id, payer, tier, rev, anchor_day, zone
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $5, 'create_user', user_id,
           jsonb_build_object('tier', tier, 'anchor_day', anchor_day, 'zone', zone)
    FROM changed
)
SELECT * FROM changed
"""

SET_TIER = """
WITH changed AS (
    UPDATE users SET tier = $2, rev = rev + 1 WHERE user_id = $1
    RETURNING user_id, payer, tier, rev, anchor_day, zone
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $3, 'set_tier', user_id, jsonb_build_object('tier', tier) FROM changed
)
SELECT * FROM changed
"""

CREATE_KEY = """
WITH changed AS (
    UPDATE users SET rev = rev + 1 WHERE user_id = $2
    RETURNING user_id, payer, tier, rev, anchor_day, zone
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
    RETURNING users.user_id, payer, tier, rev, anchor_day, zone
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $2, 'revoke_key', user_id, jsonb_build_object('key_id', key_id) FROM revoked
)
SELECT * FROM changed
"""

LOCK_USER = """
SELECT user_id, payer, tier, rev, anchor_day, zone FROM users WHERE user_id = $1 FOR UPDATE
"""

BOOKED_ADJUSTMENT = """
SELECT user_id, epoch_ms(period) AS period_start_ms, charged_tokens
FROM ledger WHERE event_id = $1
"""

# The user is locked by now.
ADJUST = """
WITH changed AS (
    UPDATE users SET rev = rev + 1 WHERE user_id = $2
    RETURNING user_id, payer, tier, rev, anchor_day, zone
), booked AS (
    INSERT INTO ledger (event_id, period, kind, at, payer, user_id, tier, charged_tokens,
                        quality, outcome, reason, author)
    SELECT $1, instant($3), 'adjustment', now(), payer, user_id, tier, $4,
           'measured', 'recorded', $5, $6
    FROM changed
    RETURNING event_id, payer, period, user_id, charged_tokens
), summed AS (
    INSERT INTO period_usage AS kept (payer, period, adjusted_tokens, rows)
    SELECT payer, period, charged_tokens, 1 FROM booked
    ON CONFLICT (payer, period) DO UPDATE SET
        adjusted_tokens = kept.adjusted_tokens + excluded.adjusted_tokens,
        rows = kept.rows + 1
), logged AS (
    INSERT INTO audit (who, what, user_id, detail)
    SELECT $6, 'adjust', user_id,
           jsonb_build_object('event_id', event_id, 'tokens', charged_tokens, 'reason', $5::text)
    FROM booked
)
SELECT * FROM changed
"""

# --- reports ------------------------------------------------------------------------------------

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
       corrects::text, reason, author, shard, epoch, stream_id, account_seq
FROM ledger
WHERE ($1::uuid IS NULL OR event_id > $1) AND ($2::text IS NULL OR user_id = $2)
  AND ($3::bigint IS NULL OR at >= instant($3)) AND ($4::bigint IS NULL OR at < instant($4))
ORDER BY event_id, period
"""

USAGE = """
SELECT user_id, payer, epoch_ms(period) AS period_start_ms, kind, quality, outcome,
       count(*) AS rows, sum(charged_tokens)::bigint AS charged_tokens,
       sum(prompt_tokens)::bigint AS prompt_tokens, sum(output_tokens)::bigint AS output_tokens,
       sum(cost_nano_gbp)::bigint AS cost_nano_gbp
FROM ledger
WHERE kind IN ('usage', 'correction', 'adjustment')
GROUP BY user_id, payer, period, kind, quality, outcome
ORDER BY user_id, payer, period
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

# A period is at most 31 days long; of a payer's periods only the newest can run now.
USED_BY_TIER = """
SELECT tier, sum(greatest(0, settled_tokens + adjusted_tokens))::bigint AS used_tokens
FROM (
    SELECT DISTINCT ON (u.payer) u.tier, p.settled_tokens, p.adjusted_tokens
    FROM period_usage p JOIN users u ON u.payer = p.payer
    WHERE p.period > to_timestamp($1::bigint / 1000.0) - interval '31 days'
    ORDER BY u.payer, p.period DESC
) AS running GROUP BY tier
"""
