"""Statements about capped tiers: numbers of rounds, and what earlier epochs settled.

Promise that sums are of one snapshot with the cursor they are asked for. They write nothing but the
sequence, which never gives a number twice.
"""

from __future__ import annotations

NEXT_ROUND = "SELECT nextval('tier_rounds')"

# One row, or none while the cursor is not there. An earlier epoch gets no event any more, so its
# sum stands once everything up to any event of this one is booked.
SETTLED_BEFORE = """
SELECT coalesce((
    SELECT sum(settled_tokens) FROM tier_usage
    WHERE tier = $1 AND tier_period = instant($2) AND shard = $3 AND epoch < $4
), 0)::bigint AS settled_tokens
WHERE $5 = '0-0' OR EXISTS (
    SELECT FROM shards
    WHERE shard = $3 AND (epoch, stream_position(cursor)) >= ($4, stream_position($5)))
"""
