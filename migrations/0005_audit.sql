-- Who did what, when, from where and with what: rows that are only added, and what seals them.
--
-- The log has digests and pseudonyms; what is personal stands beside it in parts that can be
-- deleted. docs/audit.md says what that proves and what it does not.

-- Two UUIDs of random bits, hashed: what makes a pseudonym of a name, for each tenant another.
ALTER TABLE perdure.tenants ADD COLUMN audit_salt bytea NOT NULL
    DEFAULT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
COMMENT ON COLUMN perdure.tenants.audit_salt IS 'What pseudonyms of the audit are made with: without it nobody can tell whose they are.';

-- No foreign key to the run: the row outlives it.
CREATE TABLE perdure.audit_log (
    id              uuid        PRIMARY KEY,
    tenant_id       uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    kind            text        NOT NULL CONSTRAINT kinds_have_two_words CHECK (kind ~ '^[a-z_]+\.[a-z_]+$'),
    subject_type    text        NOT NULL CHECK (subject_type <> ''),
    subject_id      text        NOT NULL CHECK (subject_id <> ''),
    run_id          uuid,
    actor_type      text        NOT NULL CHECK (actor_type <> ''),
    actor           text        CHECK (actor ~ '^[0-9a-f]{64}$'),
    concerns        text        CHECK (concerns ~ '^[0-9a-f]{64}$'),
    way             text,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    shown_digest    text,
    executed_digest text,
    who_digest      text        CHECK (who_digest ~ '^sha256:[0-9a-f]{64}$'),
    details_digest  text        NOT NULL CHECK (details_digest ~ '^sha256:[0-9a-f]{64}$'),
    cluster         bigint      NOT NULL DEFAULT (pg_control_system()).system_identifier,
    tx              xid8        NOT NULL DEFAULT pg_current_xact_id(),
    CONSTRAINT actors_are_somebody CHECK ((actor IS NULL) = (who_digest IS NULL))
);
CREATE INDEX audit_log_sealing ON perdure.audit_log (cluster, tx, id);
CREATE INDEX audit_log_tenant ON perdure.audit_log (tenant_id, id);
CREATE INDEX audit_log_kind ON perdure.audit_log (tenant_id, kind, id);
CREATE INDEX audit_log_run ON perdure.audit_log (tenant_id, run_id, id) WHERE run_id IS NOT NULL;
CREATE INDEX audit_log_actor ON perdure.audit_log (tenant_id, actor, id) WHERE actor IS NOT NULL;
CREATE INDEX audit_log_concerns ON perdure.audit_log (tenant_id, concerns) WHERE concerns IS NOT NULL;
COMMENT ON TABLE perdure.audit_log IS 'What people and rules did, one row each, never changed.';
COMMENT ON COLUMN perdure.audit_log.subject_type IS 'What it was done to: interruption, run, key, policy, grant, …; subject_id is its id.';
COMMENT ON COLUMN perdure.audit_log.actor IS 'Pseudonym of who did it: the same person has the same one within a tenant. Null: nobody, a rule or a clock did.';
COMMENT ON COLUMN perdure.audit_log.concerns IS 'Pseudonym of whom it is about: the user the run was for, the subject of a key.';
COMMENT ON COLUMN perdure.audit_log.at IS 'The clock, not the transaction''s beginning: of two that waited for each other the later has the later time.';
COMMENT ON COLUMN perdure.audit_log.way IS 'The way in: api, local, program, cli. The address is personal and stands in the part who.';
COMMENT ON COLUMN perdure.audit_log.shown_digest IS 'Digest of what was shown to whoever decided.';
COMMENT ON COLUMN perdure.audit_log.executed_digest IS 'Digest of what that lets run.';
COMMENT ON COLUMN perdure.audit_log.cluster IS 'The Postgres cluster it was written in: transactions are numbered anew in another.';
COMMENT ON COLUMN perdure.audit_log.tx IS 'The transaction that wrote it: once all older ones have ended, nothing can come before it any more.';

-- The tenant is that of the log's row: a foreign key of its own would only cost.
CREATE TABLE perdure.audit_payloads (
    id         uuid  NOT NULL REFERENCES perdure.audit_log ON DELETE RESTRICT,
    part       text  NOT NULL CHECK (part IN ('who', 'details')),
    tenant_id  uuid  NOT NULL,
    run_id     uuid,
    payload    json  NOT NULL,
    PRIMARY KEY (id, part)
);
CREATE INDEX audit_payloads_run ON perdure.audit_payloads (run_id) WHERE run_id IS NOT NULL;
COMMENT ON TABLE perdure.audit_payloads IS 'What the digests of audit_log are of: who it was and from where, and what it was about. Deleted to erase a person, or with the run.';
COMMENT ON COLUMN perdure.audit_payloads.payload IS 'The very text the digest is of: json and not jsonb, which would write it otherwise.';

CREATE TABLE perdure.audit_seals (
    tenant_id  uuid          NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    seq        bigint        NOT NULL CHECK (seq > 0),
    cluster    bigint        NOT NULL,
    from_tx    xid8          NOT NULL,
    to_tx      xid8          NOT NULL,
    ids        uuid[]        NOT NULL,
    kinds      text[]        NOT NULL,
    ats        timestamptz[] NOT NULL,
    hashes     bytea[]       NOT NULL,
    previous   bytea         NOT NULL CHECK (length(previous) = 32),
    hash       bytea         NOT NULL CHECK (length(hash) = 32),
    key_id     text,
    mac        bytea         CHECK (length(mac) = 32),
    sealed_at  timestamptz   NOT NULL,
    PRIMARY KEY (tenant_id, seq),
    CONSTRAINT a_hash_for_each_row CHECK (
        cardinality(ids) = cardinality(hashes) AND cardinality(ids) = cardinality(kinds)
        AND cardinality(ids) = cardinality(ats)),
    CONSTRAINT macs_name_their_key CHECK ((mac IS NULL) = (key_id IS NULL))
);
CREATE INDEX audit_seals_reached ON perdure.audit_seals (cluster, to_tx);
CREATE INDEX audit_seals_range ON perdure.audit_seals (tenant_id, cluster, to_tx);
COMMENT ON TABLE perdure.audit_seals IS 'A chain for each tenant: every seal has the hashes of some rows and the hash of the seal before.';
COMMENT ON COLUMN perdure.audit_seals.from_tx IS 'Together with to_tx: in it are all rows of the tenant that transactions from here, of this cluster, wrote …';
COMMENT ON COLUMN perdure.audit_seals.to_tx IS '… up to before this one. Nothing can be added there any more.';
COMMENT ON COLUMN perdure.audit_seals.previous IS 'Hash of the seal before; zeros in the first.';
COMMENT ON COLUMN perdure.audit_seals.mac IS 'HMAC-SHA256 over the hash by a key of PERDURE_SECRET_KEYS; null where there was none.';

CREATE FUNCTION perdure.audit_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'perdure.% is only added to: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'To erase a person: perdure audit erase --subject WHO.';
END $$;
CREATE TRIGGER audit_log_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON perdure.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION perdure.audit_is_final();
CREATE TRIGGER audit_seals_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON perdure.audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION perdure.audit_is_final();
CREATE TRIGGER audit_payloads_stand BEFORE UPDATE OR TRUNCATE ON perdure.audit_payloads
    FOR EACH STATEMENT EXECUTE FUNCTION perdure.audit_is_final();
-- In sessions too that skip ordinary triggers (session_replication_role).
ALTER TABLE perdure.audit_log ENABLE ALWAYS TRIGGER audit_log_is_final;
ALTER TABLE perdure.audit_seals ENABLE ALWAYS TRIGGER audit_seals_are_final;
ALTER TABLE perdure.audit_payloads ENABLE ALWAYS TRIGGER audit_payloads_stand;

INSERT INTO perdure.schema_migrations (version, name) VALUES (5, 'audit');
