"""Statements of what people are told: what happened, once for each arming.

Promise that whatever is found again, by whomever, changes nothing. Who is armed anew and when is
the function `armed_rev`.
"""

from __future__ import annotations

# Sent in the transaction that books these entries, and of new entries only. All of the allowance
# and no pack left is the same news as a refusal.
CROSSED = """
INSERT INTO notifications (user_id, payer, period, kind, threshold, armed_rev, at, facts)
SELECT payer, payer, period,
       CASE WHEN all_gone THEN 'exhausted' ELSE 'crossing' END,
       CASE WHEN all_gone THEN 0 ELSE percent END,
       armed_rev(payer, at), at, jsonb_build_object('tier', tier)
FROM (
    SELECT payer, instant(period_ms) AS period, percent, instant(at_ms) AS at, tier,
           percent >= 100 AND NOT EXISTS (
               SELECT FROM pack_balances WHERE pack_balances.payer = crossed.payer AND live
           ) AS all_gone
    FROM unnest($1::text[], $2::bigint[], $3::int[], $4::bigint[], $5::text[])
         AS crossed (payer, period_ms, percent, at_ms, tier)
) AS told
ORDER BY payer, period, percent
ON CONFLICT DO NOTHING
"""

EXHAUSTED = """
INSERT INTO notifications (user_id, payer, period, kind, armed_rev, at, facts)
VALUES ($1, $2, instant($3), 'exhausted', armed_rev($1, instant($4)), instant($4), $5)
ON CONFLICT DO NOTHING
"""

ALARM = """
INSERT INTO notifications (user_id, payer, period, kind, about, at, facts)
VALUES ('', '', instant($1), $2, $3, instant($4), $5)
ON CONFLICT DO NOTHING
"""

# Any number that nobody else in the database uses for an advisory lock.
_SENDER_LOCK = 0x7167_0003

# True again for the connection that holds it: the lock counts.
TRY_SENDER_LOCK = f"SELECT pg_try_advisory_lock({_SENDER_LOCK})"

# Of packs, `period` is the moment of their crediting. News that is two days old is none any more.
# A pack is low when a fifth or less is left of it and no other one can be spent.
FIND = """
INSERT INTO notifications (user_id, payer, period, kind, at, facts)
SELECT payer, payer, created_at, kind, now(), jsonb_build_object(
    'tokens', granted_tokens, 'left_tokens', left_tokens, 'ends_ms', epoch_ms(ends_at))
FROM pack_balances AS pack CROSS JOIN LATERAL (
    SELECT 'payment_credited' WHERE created_at > now() - interval '2 days'
    UNION ALL
    SELECT 'pack_ends' WHERE ends_at < now() + interval '7 days'
        AND ends_at > created_at + interval '7 days'
    UNION ALL
    SELECT 'pack_low' WHERE left_tokens * 5 <= granted_tokens AND NOT EXISTS (
        SELECT FROM pack_balances AS other
        WHERE other.payer = pack.payer AND other.live AND other.pack_id <> pack.pack_id)
) AS news (kind)
WHERE live AND NOT EXISTS (
    SELECT FROM notifications AS known
    WHERE known.user_id = pack.payer AND known.period = created_at AND known.kind = news.kind)
ON CONFLICT DO NOTHING
"""

# Of a cap the highest threshold is told, and none below one that was. What failed for good is told
# once a day, with its number when it was found; that a message about it failed is not.
FIND_FOR_OPERATORS = """
INSERT INTO notifications (user_id, payer, period, kind, threshold, about, at, facts)
SELECT '', '', period, kind, threshold, about, now(), facts FROM (
    SELECT instant(start_ms), 'tier_cap_near', percent, tier, jsonb_build_object(
        'tier', tier, 'used_tokens', tokens, 'limit_tokens', cap, 'ends_ms', end_ms)
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
         AS capped (tier, cap, start_ms, end_ms)
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(settled_tokens), 0)::bigint AS tokens FROM tier_usage
        WHERE tier_usage.tier = capped.tier AND tier_period = instant(start_ms)) AS used
    CROSS JOIN LATERAL (
        SELECT max(each) AS percent FROM unnest($5::int[]) AS each
        WHERE tokens * 100 >= cap * each) AS reached
    WHERE percent IS NOT NULL AND NOT EXISTS (
        SELECT FROM notifications AS known
        WHERE user_id = '' AND kind = 'tier_cap_near' AND about = tier
          AND period = instant(start_ms) AND threshold > percent)
    UNION ALL
    SELECT today, 'dead_rows', 0, '', jsonb_build_object('rows', count(*))
    FROM ledger_dead, date_trunc('day', now(), 'UTC') AS today
    WHERE at >= today GROUP BY today
    UNION ALL
    SELECT today, 'dead_deliveries', 0, '', jsonb_build_object('deliveries', count(*))
    FROM date_trunc('day', now(), 'UTC') AS today
    JOIN deliveries ON state = 'dead' AND next_at >= today
    JOIN notifications AS news USING (notification_id)
    WHERE news.kind <> 'dead_deliveries' GROUP BY today
) AS told (period, kind, threshold, about, facts)
ON CONFLICT DO NOTHING
"""

# Its way is not configured any more, or nobody has sent for so long: it is no news.
DROP_LEFT = """
UPDATE deliveries SET state = 'dropped', last_error = 'this way was not in use for three days'
WHERE state = 'pending' AND next_at < now() - interval '3 days'
"""

# Ways by kind; one without an address goes to each reader's own. Where nobody can be written to, or
# nobody wants it, there is nothing to deliver.
DEAL = """
WITH due AS (
    SELECT notification_id, user_id, kind FROM notifications
    WHERE dealt_at IS NULL ORDER BY notification_id LIMIT $1 FOR UPDATE SKIP LOCKED
), dealt AS (
    UPDATE notifications SET dealt_at = now() FROM due
    WHERE notifications.notification_id = due.notification_id
)
INSERT INTO deliveries (notification_id, channel, address)
SELECT notification_id, way.channel, coalesce(nullif(way.address, ''), email)
FROM due JOIN unnest($2::text[], $3::text[], $4::text[]) AS way (channel, address, kind)
         USING (kind)
LEFT JOIN users USING (user_id)
WHERE coalesce(nullif(way.address, ''), email) IS NOT NULL AND NOT EXISTS (
    SELECT FROM preferences AS wish
    WHERE wish.user_id = due.user_id AND wish.kind = due.kind
      AND wish.channel = way.channel AND NOT wish.enabled)
ON CONFLICT DO NOTHING
"""

_TAKE = """
WITH due AS (
    SELECT notification_id, channel, address FROM deliveries
    WHERE state = 'pending' AND next_at <= now() AND {mine}
    ORDER BY next_at, notification_id LIMIT 1 FOR UPDATE SKIP LOCKED
), tried AS (
    UPDATE deliveries AS each
    SET attempts = attempts + 1, next_at = now() + make_interval(secs => $1::int)
    FROM due WHERE each.notification_id = due.notification_id AND each.channel = due.channel
               AND each.address = due.address
    RETURNING each.notification_id, each.channel, each.address, each.attempts
)
SELECT tried.*, news.kind, news.threshold, epoch_ms(news.at) AS at_ms,
       epoch_ms(news.period) AS period_ms, epoch_ms(now()) AS now_ms, news.facts, news.about,
       news.user_id = '' AS is_of_operators, whose.*,
       coalesce(used.settled_tokens - used.from_packs + used.adjusted_tokens, 0) AS used_tokens,
       (SELECT coalesce(sum(left_tokens), 0)::bigint FROM pack_balances
        WHERE pack_balances.payer = news.payer AND live) AS pack_tokens,
       NOT EXISTS (SELECT FROM preferences AS wish
                   WHERE wish.user_id = news.user_id AND wish.kind = news.kind
                     AND wish.channel = tried.channel AND NOT wish.enabled) AS is_wanted
FROM tried JOIN notifications AS news USING (notification_id)
LEFT JOIN identities AS whose ON whose.user_id = news.user_id
LEFT JOIN period_usage AS used ON used.payer = news.payer AND used.period = news.period
"""

# Mails have an address each, a hook has one for all: each form has its index.
TAKE_MAIL = _TAKE.format(mine="channel = $2")
TAKE_OF_HOOK = _TAKE.format(mine="channel = $2 AND address = $3")

END = """
UPDATE deliveries SET state = $4, last_error = $5,
    sent_at = CASE WHEN $4 = 'sent' THEN now() ELSE sent_at END
WHERE notification_id = $1 AND channel = $2 AND address = $3
"""

PUT_OFF = """
UPDATE deliveries SET next_at = now() + make_interval(secs => $4::int), last_error = $5
WHERE notification_id = $1 AND channel = $2 AND address = $3
"""

WISHES = "SELECT kind, channel, enabled FROM preferences WHERE user_id = $1"

WISH = """
INSERT INTO preferences (user_id, kind, channel, enabled)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::boolean[])
ON CONFLICT (user_id, kind, channel) DO UPDATE SET enabled = excluded.enabled
"""
