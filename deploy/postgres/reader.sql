-- The role with which dashboards read the ledger: no digest of a key, no mail address, no writing.
-- Run by psql as the owner of the tables, with the role's password in READER_PASSWORD; once more
-- after an upgrade that brings tables of interest. Repeating it changes nothing but the password.
\set ON_ERROR_STOP on
\getenv password READER_PASSWORD

SELECT 'CREATE ROLE grafana LOGIN'
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'grafana') \gexec

ALTER ROLE grafana WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 10
      PASSWORD :'password';
ALTER ROLE grafana SET default_transaction_read_only = on;
ALTER ROLE grafana SET statement_timeout = '15s';

GRANT USAGE ON SCHEMA public TO grafana;
GRANT SELECT ON ledger, ledger_gbp, usage_by_model, period_usage, tier_usage, packs, pack_balances,
                refunds, topup_faults, notifications, shards, ledger_dead
      TO grafana;
GRANT SELECT (user_id, payer, is_team, tier, limits, anchor_day, zone, since, created_at,
              blocked_at, disabled_at, rev, projected_rev) ON users
      TO grafana;
GRANT SELECT (notification_id, channel, state, attempts, next_at, last_error, sent_at) ON deliveries
      TO grafana;
