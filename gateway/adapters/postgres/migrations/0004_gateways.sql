-- Gateways that are alive, by their own word: after Redis lost something, all of them are waited
-- for to bring back what they know.
CREATE TABLE gateways (
    gateway_id text        PRIMARY KEY,
    seen_at    timestamptz NOT NULL
);

-- Where the cursor was when the epoch began: what came after it and is not booked, Redis has lost.
ALTER TABLE shards ADD COLUMN raised_at text NOT NULL DEFAULT '0-0';
