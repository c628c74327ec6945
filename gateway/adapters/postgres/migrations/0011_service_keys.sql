-- Keys that speak for other users where usage is reported and asked about, and make no calls.
ALTER TABLE api_keys ADD COLUMN is_service boolean NOT NULL DEFAULT false;
