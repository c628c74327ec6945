-- The ledger: append-only entries, the sums and cursors derived from them, and what could not be
-- booked. Tokens are raw or weighted counts, money is integer nano-GBP, instants are timestamptz.

-- Milliseconds since the Unix epoch as an instant. Exact: a double holds every millisecond.
CREATE FUNCTION instant(ms bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN to_timestamp(ms::double precision / 1000);

-- The way back, exact as well.
CREATE FUNCTION epoch_ms(moment timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (extract(epoch FROM moment) * 1000)::bigint;

-- A stream id "ms-seq" in the order in which Redis gave it out. As text, '9-0' would follow '10-0'.
CREATE FUNCTION stream_position(stream_id text) RETURNS bigint[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN string_to_array(stream_id, '-')::bigint[];

CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % refused: its rows are never edited; book an adjustment or a correction',
        TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TABLE ledger (
    event_id         uuid        NOT NULL,
    period           timestamptz NOT NULL,
    kind             text        NOT NULL CHECK (kind IN
        ('usage', 'topup', 'refund', 'adjustment', 'correction', 'period_close')),
    at               timestamptz NOT NULL,
    payer            text        NOT NULL,
    user_id          text        NOT NULL,
    tier             text,
    route            text,
    model            text,
    stream           boolean     NOT NULL DEFAULT false,
    tag              text,
    prompt_tokens    bigint      NOT NULL DEFAULT 0,
    cached_tokens    bigint      NOT NULL DEFAULT 0,
    output_tokens    bigint      NOT NULL DEFAULT 0,
    reasoning_tokens bigint      NOT NULL DEFAULT 0,
    charged_tokens   bigint      NOT NULL DEFAULT 0,
    held_tokens      bigint      NOT NULL DEFAULT 0,
    from_allowance   bigint      NOT NULL DEFAULT 0,
    from_packs       bigint      NOT NULL DEFAULT 0,
    pack_split       jsonb,
    overdraft_tokens bigint      NOT NULL DEFAULT 0,
    cost_nano_gbp    bigint      NOT NULL DEFAULT 0,
    price_id         text,
    service_tier     text,
    quality          text        NOT NULL CHECK (quality IN ('measured', 'estimated', 'partial')),
    outcome          text        NOT NULL CHECK (outcome IN
        ('done', 'client_gone', 'upstream_error', 'expired', 'recorded', 'outage',
         'unknown_upstream')),
    status           smallint,
    sdk_retry        smallint,
    upstream_id      text,
    client_id        text,
    corrects         uuid,
    reason           text,
    author           text,
    shard            smallint,
    epoch            int,
    stream_id        text,
    account_seq      bigint,
    PRIMARY KEY (event_id, period)
) PARTITION BY RANGE (period);

-- One account's month is read as a whole when its counters are rebuilt. There is no index on `at`:
-- nothing here asks for it, and it would cost a tenth of the rate at which entries are booked.
CREATE INDEX ledger_payer_period ON ledger (payer, period);

-- For everybody, the owner included: a right that is not granted can be granted by mistake.
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_is_never_emptied BEFORE TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The net under the monthly partitions: no entry is lost because its month was not prepared.
CREATE TABLE ledger_default PARTITION OF ledger DEFAULT;
CREATE TRIGGER ledger_is_never_emptied BEFORE TRUNCATE ON ledger_default
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Makes the monthly partitions (UTC) from the month before `moment` to the third after it.
-- The month before: a call may be booked into a period that began up to a month ago. A month
-- whose entries already fell into the net stays there.
CREATE FUNCTION prepare_ledger_partitions(moment timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    month_start timestamptz;
    month_end timestamptz;
    partition_name text;
BEGIN
    FOR months_ahead IN -1..3 LOOP
        month_start := (date_trunc('month', moment AT TIME ZONE 'UTC')
            + make_interval(months => months_ahead)) AT TIME ZONE 'UTC';
        month_end := (date_trunc('month', moment AT TIME ZONE 'UTC')
            + make_interval(months => months_ahead + 1)) AT TIME ZONE 'UTC';
        partition_name := 'ledger_' || to_char(month_start AT TIME ZONE 'UTC', 'YYYY_MM');
        CONTINUE WHEN to_regclass(partition_name) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE TABLE %I PARTITION OF ledger FOR VALUES FROM (%L) TO (%L)',
                partition_name, month_start, month_end);
        EXCEPTION
            -- The net has entries of this month; or another process was faster.
            WHEN check_violation OR duplicate_table OR unique_violation THEN CONTINUE;
        END;
        EXECUTE format('CREATE TRIGGER ledger_is_never_emptied BEFORE TRUNCATE ON %I '
            'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', partition_name);
    END LOOP;
END
$$;
SELECT prepare_ledger_partitions(now());

-- How far each shard's outbox is booked. The epoch rises when Redis lost its counters.
CREATE TABLE shards (
    shard  smallint PRIMARY KEY,
    epoch  int      NOT NULL,
    cursor text     NOT NULL
);

-- How many shards the ledger was begun with: another number would send payers to other shards.
CREATE TABLE shard_count (
    shards   smallint NOT NULL,
    only_row boolean  PRIMARY KEY DEFAULT true CHECK (only_row)
);

-- Sums of `ledger`, kept in the transaction that adds the entries; never a source of their own.
CREATE TABLE period_usage (
    payer           text        NOT NULL,
    period          timestamptz NOT NULL,
    settled_tokens  bigint      NOT NULL DEFAULT 0,
    adjusted_tokens bigint      NOT NULL DEFAULT 0,
    cost_nano_gbp   bigint      NOT NULL DEFAULT 0,
    rows            bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (payer, period)
);

-- Outbox entries that cannot become a row, raw, until somebody looks.
CREATE TABLE ledger_dead (
    shard       smallint    NOT NULL,
    stream_id   text        NOT NULL,
    event_json  bytea       NOT NULL,
    script_part bytea       NOT NULL,
    reason      text        NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);
-- The content belongs to the key: after a rollback Redis may give out a stream id again.
CREATE UNIQUE INDEX ledger_dead_once
    ON ledger_dead (shard, stream_id, sha256(event_json || script_part));

-- For people: the same entries with money in pounds, exact to the nano.
CREATE VIEW ledger_gbp AS
SELECT event_id, at, period, kind, payer, user_id, tier, route, model, tag,
       prompt_tokens, cached_tokens, output_tokens, reasoning_tokens,
       charged_tokens, overdraft_tokens, cost_nano_gbp * 0.000000001 AS cost_gbp,
       price_id, service_tier, quality, outcome, reason, author, corrects
FROM ledger;

-- For finance: who used which model in which period. Adjustments cost nothing and have no model.
CREATE VIEW usage_by_model AS
SELECT payer, period, model, count(*) AS rows,
       sum(prompt_tokens) AS prompt_tokens, sum(output_tokens) AS output_tokens,
       sum(charged_tokens) AS charged_tokens, sum(cost_nano_gbp) * 0.000000001 AS cost_gbp
FROM ledger
WHERE kind IN ('usage', 'correction')
GROUP BY payer, period, model;
