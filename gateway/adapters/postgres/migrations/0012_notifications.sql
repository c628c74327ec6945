-- Who is to be told of what, and what was sent. Only additions: the release before runs on beside
-- it, and what it books tells nobody.

-- One row for each thing that happened, whoever finds it and however often. `user_id` is who is
-- told; '' are the operators. Of a pack, `period` is the moment at which it was credited, else the
-- start of the payer's period. `armed_rev`: see below. `dealt_at`: its deliveries are made.
CREATE TABLE notifications (
    notification_id bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id         text        NOT NULL,
    payer           text        NOT NULL,
    period          timestamptz NOT NULL,
    kind            text        NOT NULL CHECK (kind IN (
        'crossing', 'exhausted', 'pack_low', 'pack_ends', 'payment_credited',
        'tier_cap_near', 'dead_rows', 'canary')),
    threshold       smallint    NOT NULL DEFAULT 0,
    armed_rev       bigint      NOT NULL DEFAULT 0,
    at              timestamptz NOT NULL,
    facts           jsonb       NOT NULL DEFAULT '{}',
    dealt_at        timestamptz,
    UNIQUE (user_id, period, kind, threshold, armed_rev)
);
CREATE INDEX notifications_new ON notifications (notification_id) WHERE dealt_at IS NULL;

-- What goes to one address. `next_at`: not to be tried before; whoever tries puts it off first.
CREATE TABLE deliveries (
    notification_id bigint      NOT NULL REFERENCES notifications,
    channel         text        NOT NULL,
    address         text        NOT NULL,
    state           text        NOT NULL DEFAULT 'pending'
                    CHECK (state IN ('pending', 'sent', 'dead', 'dropped')),
    attempts        int         NOT NULL DEFAULT 0,
    next_at         timestamptz NOT NULL DEFAULT now(),
    last_error      text,
    sent_at         timestamptz,
    PRIMARY KEY (notification_id, channel, address)
);
CREATE INDEX deliveries_pending ON deliveries (next_at) WHERE state = 'pending';

-- What a user does not want, or wants again. Without a row: wanted.
CREATE TABLE preferences (
    user_id text    NOT NULL REFERENCES users,
    kind    text    NOT NULL,
    channel text    NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    PRIMARY KEY (user_id, kind, channel)
);

-- The entry of `audit` by which the warnings of a payer, or of a member of one, were armed last, up
-- to `moment`: a pack, another tier, other limits, tokens given. 0: never. What a member is
-- given counts for its payer.
CREATE FUNCTION armed_rev(of_user text, moment timestamptz) RETURNS bigint
LANGUAGE sql STABLE
RETURN (
    SELECT coalesce(max(audit_id), 0) FROM audit
    WHERE user_id = ANY (ARRAY(
            SELECT of_user UNION ALL SELECT users.user_id FROM users WHERE users.payer = of_user))
      AND at <= moment
      AND (what = 'credit_pack' OR what = 'adjust' AND (detail->>'tokens')::bigint < 0
           OR user_id = of_user AND what IN ('set_tier', 'claim_tier', 'set_limits'))
);
