-- Whose entitlement was changed lately: projected again to a server that may have lost it.
CREATE INDEX audit_at ON audit (at);
