-- Tokens by which people's browsers act as their user, and nobody else.

ALTER TABLE perdure.tenants
    ADD COLUMN one_user_session boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN perdure.tenants.one_user_session IS 'Whether a user has one active token at most; change it by perdure.set_one_user_session.';

CREATE TABLE perdure.user_sessions (
    id            uuid        PRIMARY KEY,
    tenant_id     uuid        NOT NULL REFERENCES perdure.tenants ON DELETE CASCADE,
    user_id       text        NOT NULL CHECK (length(user_id) BETWEEN 1 AND 255),
    token_hash    bytea       NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    token_hint    text        NOT NULL,
    label         text        CHECK (length(label) BETWEEN 1 AND 255),
    metadata      jsonb       NOT NULL DEFAULT '{}',
    only_one      boolean     NOT NULL,
    created_by    jsonb       NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    revoked_by    jsonb,
    CONSTRAINT tokens_expire_in_the_future CHECK (expires_at > created_at),
    CONSTRAINT revoked_by_somebody CHECK (revoked_at IS NOT NULL OR revoked_by IS NULL),
    CONSTRAINT metadata_is_an_object CHECK (jsonb_typeof(metadata) = 'object')
);
CREATE UNIQUE INDEX user_sessions_one_active ON perdure.user_sessions (tenant_id, user_id)
    WHERE only_one AND revoked_at IS NULL;
CREATE INDEX user_sessions_tenant ON perdure.user_sessions (tenant_id, id DESC);
CREATE INDEX user_sessions_user ON perdure.user_sessions (tenant_id, user_id, id DESC);
CREATE INDEX user_sessions_expiry ON perdure.user_sessions (least(expires_at, revoked_at));
COMMENT ON TABLE perdure.user_sessions IS 'Tokens of people''s browsers: each acts as its user until it expires or is revoked.';
COMMENT ON COLUMN perdure.user_sessions.token_hash IS 'SHA-256 of a random 256-bit token; the token itself is shown once and never stored.';
COMMENT ON COLUMN perdure.user_sessions.token_hint IS 'The first characters of the token, to tell tokens apart in a list.';
COMMENT ON COLUMN perdure.user_sessions.only_one IS 'The tenant''s one_user_session when it was made: of such a user has one that is not revoked.';
COMMENT ON COLUMN perdure.user_sessions.revoked_by IS 'Who revoked it; null where the tenant''s setting did.';

-- Who makes a token holds the tenant's row, so that none is made by the setting before.
CREATE FUNCTION perdure.set_one_user_session(tenant uuid, one boolean) RETURNS bigint
    LANGUAGE plpgsql AS $$
DECLARE
    revoked bigint;
BEGIN
    UPDATE perdure.tenants SET one_user_session = one WHERE id = tenant;
    UPDATE perdure.user_sessions s SET revoked_at = now()
     WHERE one AND s.tenant_id = tenant AND s.revoked_at IS NULL
       AND (s.expires_at <= now()
            OR EXISTS (SELECT FROM perdure.user_sessions o
                        WHERE o.tenant_id = s.tenant_id AND o.user_id = s.user_id
                          AND o.revoked_at IS NULL AND o.expires_at > now() AND o.id > s.id));
    GET DIAGNOSTICS revoked = ROW_COUNT;
    UPDATE perdure.user_sessions SET only_one = one
     WHERE tenant_id = tenant AND revoked_at IS NULL AND only_one <> one;
    RETURN revoked;
END
$$;
COMMENT ON FUNCTION perdure.set_one_user_session IS 'Says whether a user has one active token at most. True revokes all but each user''s newest; returns how many.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (18, 'user_sessions');
