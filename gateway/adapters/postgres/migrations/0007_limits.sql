-- Caps of whole tiers: which period of a capped tier an entry is charged to, and what each shard
-- has settled of it in each epoch of Redis. Only additions with defaults: the release before runs
-- on beside it.

-- Null: the tier was not capped when the call began.
ALTER TABLE ledger ADD COLUMN tier_period timestamptz;

-- Sums of `ledger`, kept in the transaction that adds the entries. By epoch, because a shard that
-- has lost its counters counts its new epoch itself, and is told the epochs before.
CREATE TABLE tier_usage (
    tier           text        NOT NULL,
    tier_period    timestamptz NOT NULL,
    shard          smallint    NOT NULL,
    epoch          int         NOT NULL,
    settled_tokens bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (tier, tier_period, shard, epoch)
);

-- Rounds in which caps are handed out: each has a number larger than all before, whoever makes it.
CREATE SEQUENCE tier_rounds;
