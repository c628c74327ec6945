"""Statements that look at the database and change nothing, for whoever asks what is wrong.

Promise to work on a database of any age: what needs a table is asked only once it is there.
"""

from __future__ import annotations

SERVER = """
SELECT current_setting('server_version') AS version,
       floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms,
       to_regclass('schema_migrations') IS NOT NULL AS has_schema
"""

MIGRATIONS = "SELECT name, checksum FROM schema_migrations ORDER BY name"

# Partitions are made by whoever owns the table they belong to.
LACKING = """
SELECT privilege || ' on ' || name AS lacking
FROM unnest(
    ARRAY['ledger', 'ledger', 'shards', 'users', 'users', 'deliveries'],
    ARRAY['SELECT', 'INSERT', 'UPDATE', 'INSERT', 'UPDATE', 'UPDATE']) AS needed (name, privilege)
WHERE NOT has_table_privilege(name, privilege)
UNION ALL
SELECT 'ownership of ledger' FROM pg_class
WHERE oid = 'ledger'::regclass AND NOT pg_has_role(relowner, 'USAGE')
UNION ALL
SELECT 'CREATE on schema ' || current_schema()
WHERE NOT has_schema_privilege(current_schema(), 'CREATE')
"""

LEDGER = """
SELECT to_regclass('ledger_' || to_char(
           now() AT TIME ZONE 'UTC' + interval '1 month', 'YYYY_MM')) IS NOT NULL
           AS has_next_month,
       EXISTS (SELECT FROM ledger_default) AS has_strays,
       (SELECT count(*) FROM ledger_dead) AS dead_rows
"""

SENDING = """
SELECT sent.kind, epoch_ms(sent.sent_at) AS sent_ms, waiting, dead
FROM (SELECT count(*) FILTER (WHERE state = 'pending') AS waiting,
             count(*) FILTER (WHERE state = 'dead') AS dead FROM deliveries) AS counts
LEFT JOIN LATERAL (
    SELECT kind, sent_at FROM deliveries JOIN notifications USING (notification_id)
    WHERE state = 'sent' ORDER BY sent_at DESC LIMIT 1) AS sent ON true
"""
