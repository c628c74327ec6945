-- Packs that are taken back, and payments by which they are bought. Only additions: the release
-- before runs on beside it, and what it books of a refunded pack is reclaimed like anything else.

-- The figures of a refund: what it says is not a charge.
ALTER TABLE ledger ADD COLUMN refund jsonb;

-- One for each pack with `refunded_at`. `reclaimed_tokens` is what of the pack's `spent_tokens` was
-- booked as adjustments, which name the refund in `corrects`: a sum of `ledger`, kept in the
-- transaction that adds them. The drain never writes here, so the two do not wait for each other.
CREATE TABLE refunds (
    pack_id          text        PRIMARY KEY REFERENCES packs,
    event_id         uuid        NOT NULL UNIQUE,
    reason           text        NOT NULL,
    author           text        NOT NULL,
    reclaimed_tokens bigint      NOT NULL DEFAULT 0
);

-- What is asked of a payer, fixed before they are sent to the provider. open: not paid yet · paid:
-- its pack is credited · refunded. `problem` is what an operator is to look at.
CREATE TABLE payments (
    order_id     text        PRIMARY KEY,
    user_id      text        NOT NULL,
    payer        text        NOT NULL,
    packs        int         NOT NULL CHECK (packs > 0),
    tokens       bigint      NOT NULL CHECK (tokens > 0 AND tokens < 10 ^ 15),
    valid_days   int         NOT NULL CHECK (valid_days > 0),
    amount_pence bigint      NOT NULL CHECK (amount_pence > 0),
    currency     text        NOT NULL,
    state        text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'paid', 'refunded')),
    session_id   text,
    payment_ref  text        UNIQUE,
    problem      text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    changed_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX payments_open ON payments (user_id, created_at) WHERE state = 'open';
CREATE INDEX payments_problem ON payments (changed_at) WHERE problem IS NOT NULL;

-- What the provider said about packs, each event once. `order_id` is the order that it names; there
-- may be none of that name, which is a problem too.
CREATE TABLE payment_events (
    event_id     text        PRIMARY KEY,
    kind         text        NOT NULL,
    object_id    text        NOT NULL,
    order_id     text,
    payment_ref  text        NOT NULL,
    amount_pence bigint      NOT NULL,
    currency     text        NOT NULL,
    outcome      text        NOT NULL,
    problem      text,
    received_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX payment_events_problem ON payment_events (received_at) WHERE problem IS NOT NULL;

-- What should not be, one line each; empty when all is well. Finance may ask it as well.
CREATE VIEW topup_faults AS
SELECT pack_id, payer, payment_ref, 'no topup entry in the ledger' AS fault
FROM packs WHERE NOT EXISTS (
    SELECT FROM ledger WHERE kind = 'topup' AND topup->>'pack_id' = pack_id
      AND topup->>'payment_ref' = payment_ref AND (topup->>'tokens')::bigint = granted_tokens)
UNION ALL
SELECT topup->>'pack_id', payer, topup->>'payment_ref', 'a topup entry without its pack'
FROM ledger WHERE kind = 'topup' AND NOT EXISTS (
    SELECT FROM packs WHERE pack_id = topup->>'pack_id')
UNION ALL
SELECT pack_id, payer, payment_ref, 'spent_tokens is not the sum of the entries'
FROM packs LEFT JOIN (
    SELECT split.key, sum(split.value::bigint) AS tokens
    FROM ledger CROSS JOIN jsonb_each_text(pack_split) AS split WHERE pack_split IS NOT NULL
    GROUP BY split.key
) AS paid ON paid.key = pack_id
WHERE spent_tokens <> coalesce(paid.tokens, 0)
UNION ALL
SELECT pack_id, payer, payment_ref, 'refunded, without a refund entry'
FROM packs LEFT JOIN refunds USING (pack_id)
WHERE refunded_at IS NOT NULL AND NOT EXISTS (
    SELECT FROM ledger WHERE kind = 'refund' AND ledger.event_id = refunds.event_id)
UNION ALL
SELECT pack_id, payer, payment_ref, 'reclaimed_tokens is not the sum of the adjustments'
FROM refunds JOIN packs USING (pack_id) LEFT JOIN (
    SELECT corrects, sum(charged_tokens) AS tokens FROM ledger
    WHERE kind = 'adjustment' AND corrects IS NOT NULL GROUP BY corrects
) AS reclaimed ON reclaimed.corrects = refunds.event_id
WHERE reclaimed_tokens <> coalesce(reclaimed.tokens, 0);
