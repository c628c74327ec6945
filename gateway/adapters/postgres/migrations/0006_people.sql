-- Teams, blocks, limits of a user's own, and one view that says who a user is. Only additions with
-- defaults: the release before runs on beside it.

-- A team is a row like a user, without keys; whoever is in it names it as payer, and keeps a tier
-- and a calendar for the day it leaves. `tier_set_at`: up to when claims of a tier are out of date.
-- `limits`: what the user has instead of its tier's limits, as core/overrides.py reads it.
ALTER TABLE users
    ADD COLUMN is_team      boolean     NOT NULL DEFAULT false,
    ADD COLUMN email        text        CHECK (length(email) <= 320),
    ADD COLUMN blocked_at   timestamptz,
    ADD COLUMN block_reason text,
    ADD COLUMN tier_set_at  timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN limits       jsonb       NOT NULL DEFAULT '{}',
    ADD CONSTRAINT users_payer_is_there FOREIGN KEY (payer) REFERENCES users;

-- A user beside its payer: revision, tier, period and allowance are the payer's. `member_rev` and
-- `member_limits` are null where the user is the payer.
CREATE VIEW identities AS
SELECT u.user_id, u.payer, p.tier, p.rev, p.anchor_day, p.zone, epoch_ms(p.since) AS since_ms,
       p.prior_anchor_day, p.prior_zone, epoch_ms(p.prior_since) AS prior_since_ms,
       CASE WHEN u.user_id <> u.payer THEN u.rev END AS member_rev,
       u.email,
       u.blocked_at IS NOT NULL OR p.blocked_at IS NOT NULL AS is_blocked,
       u.disabled_at IS NOT NULL OR p.disabled_at IS NOT NULL AS is_disabled,
       u.is_team, epoch_ms(p.tier_set_at) AS tier_set_ms,
       p.limits AS limits,
       CASE WHEN u.user_id <> u.payer THEN u.limits END AS member_limits,
       u.rev > u.projected_rev AS is_unprojected
FROM users u JOIN users p ON p.user_id = u.payer;
