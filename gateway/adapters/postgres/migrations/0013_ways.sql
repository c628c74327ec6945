-- News of operators, and more ways than mail. Only additions and wider rules: the release before
-- runs on beside it.

-- What news of operators are about, where there may be several of a kind: the name of a tier.
ALTER TABLE notifications ADD COLUMN about text NOT NULL DEFAULT '';
ALTER TABLE notifications
    DROP CONSTRAINT notifications_user_id_period_kind_threshold_armed_rev_key,
    ADD CONSTRAINT notifications_once
        UNIQUE (user_id, period, kind, threshold, armed_rev, about);

-- Nothing has the two names that go.
ALTER TABLE notifications
    DROP CONSTRAINT notifications_kind_check,
    ADD CONSTRAINT notifications_kind_check CHECK (kind IN (
        'crossing', 'exhausted', 'pack_low', 'pack_ends', 'payment_credited',
        'tier_cap_near', 'dead_rows', 'dead_deliveries', 'canary_failed')) NOT VALID;

-- Each way asks for its own: what waits for one that is away is not read by the others.
CREATE INDEX deliveries_by_way ON deliveries (channel, next_at, notification_id)
    WHERE state = 'pending';
CREATE INDEX deliveries_by_address ON deliveries (channel, address, next_at, notification_id)
    WHERE state = 'pending';
DROP INDEX deliveries_pending;
-- For whoever counts them: a delivery that has ended was tried just before its `next_at`.
CREATE INDEX deliveries_dead ON deliveries (next_at) WHERE state = 'dead';
