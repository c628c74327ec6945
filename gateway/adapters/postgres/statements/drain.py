"""Statements of the drain, and of those who wait for it: entries, cursors, epochs.

Promise that sums and packs follow from new entries only, and that cursors and epochs never go
back. Rows are locked in the order of their keys, so that two writers wait instead of deadlocking.
"""

from __future__ import annotations

# Any number that nobody else in the database uses for an advisory lock.
_DRAIN_LOCK = 0x7167_0002

# True again for the connection that holds it: the lock counts.
TRY_DRAIN_LOCK = f"SELECT pg_try_advisory_lock({_DRAIN_LOCK})"

# The number of shards the ledger was begun with; the first caller decides.
SHARD_COUNT = """
INSERT INTO shard_count (shards) VALUES ($1)
ON CONFLICT (only_row) DO UPDATE SET shards = shard_count.shards
RETURNING shards
"""

CURSORS = "SELECT shard, epoch, cursor, server_id, raised_at FROM shards"

# Epoch 0 is below every epoch there is: a shard that nobody has used stays unknown but for this.
NOTE_SERVER = """
INSERT INTO shards AS kept (shard, epoch, cursor, server_id)
SELECT shard, 0, '0-0', $2 FROM generate_series(0, $1::int - 1) AS shard ORDER BY shard
ON CONFLICT (shard) DO UPDATE SET server_id = excluded.server_id
"""

# A stop on the way, because COPY cannot skip what is there already. With the ledger's own columns
# and defaults, so that a later migration may add one while this release still runs.
MAKE_INCOMING = """
CREATE TEMP TABLE IF NOT EXISTS incoming (LIKE ledger INCLUDING DEFAULTS) ON COMMIT DELETE ROWS
"""

# What follows from the entries of `booked`: the sums of the period and of capped tiers, and what
# packs have paid.
_FOLLOWING = """
summed AS (
    INSERT INTO period_usage AS kept
        (payer, period, settled_tokens, from_packs, cost_nano_gbp, rows)
    SELECT payer, period, sum(charged_tokens), sum(from_packs), sum(cost_nano_gbp), count(*)
    FROM booked WHERE kind IN ('usage', 'correction')
    GROUP BY payer, period ORDER BY payer, period
    ON CONFLICT (payer, period) DO UPDATE SET
        settled_tokens = kept.settled_tokens + excluded.settled_tokens,
        from_packs = kept.from_packs + excluded.from_packs,
        cost_nano_gbp = kept.cost_nano_gbp + excluded.cost_nano_gbp,
        rows = kept.rows + excluded.rows
), of_tiers AS (
    INSERT INTO tier_usage AS kept (tier, tier_period, shard, epoch, settled_tokens)
    SELECT tier, tier_period, shard, epoch, sum(charged_tokens)
    FROM booked WHERE tier_period IS NOT NULL AND kind IN ('usage', 'correction')
    GROUP BY tier, tier_period, shard, epoch ORDER BY tier, tier_period, shard, epoch
    ON CONFLICT (tier, tier_period, shard, epoch) DO UPDATE SET
        settled_tokens = kept.settled_tokens + excluded.settled_tokens
), paid AS (
    SELECT split.key AS pack_id, sum(split.value::bigint) AS tokens
    FROM booked CROSS JOIN jsonb_each_text(booked.pack_split) AS split
    WHERE booked.pack_split IS NOT NULL
    GROUP BY split.key
), locked AS (
    SELECT packs.pack_id, paid.tokens FROM packs JOIN paid USING (pack_id)
    ORDER BY packs.pack_id FOR UPDATE OF packs
), spent AS (
    UPDATE packs SET spent_tokens = spent_tokens + locked.tokens
    FROM locked WHERE packs.pack_id = locked.pack_id
)
"""


def booking(entries: str, end: str) -> str:
    """One statement: `entries` inserts those that `booked` returns, what follows from them, and
    the `end`."""
    return f"WITH booked AS ({entries}), {_FOLLOWING}{end}"


# Of two entries with one key the first one handed over is the new one. The answer is null when all
# $1 entries were new, as they nearly always are, and else the origins of those that were.
BOOK = booking(
    """
    INSERT INTO ledger SELECT * FROM incoming
    ON CONFLICT (event_id, period) DO NOTHING
    RETURNING payer, period, kind, charged_tokens, from_packs, pack_split, cost_nano_gbp,
              shard, epoch, stream_id, event_id, tier, tier_period
    """,
    """
SELECT CASE WHEN (SELECT count(*) FROM booked) < $1 THEN (
    SELECT coalesce(json_agg(json_build_array(shard, epoch, stream_id, event_id)), '[]') FROM booked
) END
    """,
)

# Where entries with these keys came from, and what they charge: an estimate may be corrected. Asked
# only about entries that were not new.
BOOKED_AS = """
SELECT event_id::text, epoch_ms(period) AS period_ms, epoch, stream_id, quality, outcome, stream,
       charged_tokens, cost_nano_gbp, held_tokens, pack_split::text
FROM ledger WHERE event_id = ANY($1::uuid[]) AND period = ANY($2::timestamptz[])
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

# Past what was seen, and never down. The row is written even when nothing changes: that locks it,
# so the answer is what holds now and not what this statement's snapshot saw.
RAISE_EPOCH = """
INSERT INTO shards AS kept (shard, epoch, cursor) VALUES ($1, $2 + 1, '0-0')
ON CONFLICT (shard) DO UPDATE SET
    epoch = greatest(kept.epoch, excluded.epoch),
    raised_at = CASE WHEN excluded.epoch > kept.epoch THEN kept.cursor ELSE kept.raised_at END
RETURNING epoch, cursor
"""

# One row, or none while the cursor is not there. Entries past the asked stream id are left out:
# Redis has counted them since the hydration began. Cursor, sums, revision and packs are of one
# snapshot. $2 is a member, or null for the payer's own account: packs, and what they paid, are told
# of the payer only.
SUMS = """
SELECT sums.*,
    coalesce((SELECT rev FROM users WHERE user_id = coalesce($2, $1) AND payer = $1), 0) AS rev,
    CASE WHEN $2::text IS NULL THEN told_packs($1, $7) END AS packs
FROM (
    SELECT
        coalesce(sum(charged_tokens) FILTER (WHERE kind IN ('usage', 'correction')), 0)::bigint
            AS settled_tokens,
        CASE WHEN $2::text IS NULL THEN
            coalesce(sum(from_packs) FILTER (WHERE kind IN ('usage', 'correction')), 0)::bigint
        ELSE 0 END AS from_packs,
        coalesce(sum(charged_tokens) FILTER (WHERE kind = 'adjustment'), 0)::bigint
            AS adjusted_tokens,
        coalesce(sum(cost_nano_gbp) FILTER (WHERE kind IN ('usage', 'correction')), 0)::bigint
            AS cost_nano_gbp
    FROM ledger
    WHERE payer = $1 AND period = instant($3) AND ($2::text IS NULL OR user_id = $2)
      AND (stream_id IS NULL OR epoch < $5
           OR (epoch = $5 AND stream_position(stream_id) <= stream_position($6)))
) AS sums
WHERE $6 = '0-0' OR EXISTS (
    SELECT FROM shards
    WHERE shard = $4 AND (epoch, stream_position(cursor)) >= ($5, stream_position($6)))
"""

PREPARE_PARTITIONS = "SELECT prepare_ledger_partitions(instant($1))"

# Who has been away for an hour does not come back under the same id.
ALIVE_GATEWAYS = """
WITH said AS (
    INSERT INTO gateways AS known (gateway_id, seen_at)
    SELECT $1::text, now() WHERE $1::text IS NOT NULL
    ON CONFLICT (gateway_id) DO UPDATE SET seen_at = excluded.seen_at
    RETURNING known.gateway_id
), gone AS (
    DELETE FROM gateways
    WHERE seen_at < now() - interval '1 hour' AND gateway_id IS DISTINCT FROM $1
)
SELECT gateway_id FROM said
UNION
SELECT gateway_id FROM gateways WHERE seen_at > now() - make_interval(secs => $2)
"""
