-- What a person approves once for more than one call: bounded in time, revocable, each use recorded.

CREATE TABLE perdure.grants (
    id               uuid        PRIMARY KEY,
    tenant_id        uuid        NOT NULL REFERENCES perdure.tenants ON DELETE CASCADE,
    agent            text        NOT NULL,
    tool             text        NOT NULL,
    schema_digest    text        NOT NULL CHECK (schema_digest ~ '^sha256:[0-9a-f]{64}$'),
    scope            text        NOT NULL CHECK (scope IN ('run', 'session', 'user', 'agent')),
    scope_id         text        NOT NULL,
    arguments_digest text        CHECK (arguments_digest ~ '^sha256:[0-9a-f]{64}$'),
    conditions       jsonb,
    until            timestamptz NOT NULL,
    granted_by       jsonb       NOT NULL,
    run_id           uuid        NOT NULL,
    interruption_id  uuid        NOT NULL,
    decision_id      uuid        NOT NULL UNIQUE,
    created_at       timestamptz NOT NULL DEFAULT now(),
    revoked_at       timestamptz,
    revoked_by       jsonb,
    CONSTRAINT grants_are_about_arguments_or_conditions
        CHECK (num_nonnulls(arguments_digest, conditions) = 1),
    CONSTRAINT grants_name_a_condition
        CHECK (jsonb_typeof(conditions) = 'object' AND conditions <> '{}'),
    CONSTRAINT grants_end
        CHECK (until > created_at AND until <= created_at + interval '8784 hours'),
    CONSTRAINT revocations_are_somebodys CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE INDEX grants_tenant ON perdure.grants (tenant_id, id DESC);
CREATE INDEX grants_run ON perdure.grants (run_id);
CREATE INDEX grants_covering ON perdure.grants (tenant_id, scope, scope_id, agent, tool)
    WHERE revoked_at IS NULL;
COMMENT ON TABLE perdure.grants IS 'Approvals that stand for later calls of the same tool too. The run and the decision one came from may be deleted; it stays, as evidence.';
COMMENT ON COLUMN perdure.grants.agent IS 'The agent whose calls it covers.';
COMMENT ON COLUMN perdure.grants.schema_digest IS 'Digest of the tool''s schema when it was given: with another the tool is another.';
COMMENT ON COLUMN perdure.grants.scope_id IS 'Id of the run, the session or the user, or the agent''s name.';
COMMENT ON COLUMN perdure.grants.arguments_digest IS 'Digest of the canonical arguments it covers, where they have to be exactly those.';
COMMENT ON COLUMN perdure.grants.conditions IS 'Conditions the arguments have to fulfil, otherwise: JSON pointer, operator, operand.';
COMMENT ON COLUMN perdure.grants.granted_by IS 'Who gave it, as they were then: type, id, subject, roles, groups. It answers for nobody else.';
COMMENT ON COLUMN perdure.grants.until IS 'No later than a year after it was given; on this database''s clock.';

ALTER TABLE perdure.decisions
    ADD COLUMN grant_id uuid REFERENCES perdure.grants ON DELETE SET NULL;
CREATE INDEX decisions_grant ON perdure.decisions (grant_id) WHERE grant_id IS NOT NULL;
COMMENT ON COLUMN perdure.decisions.grant_id IS 'The grant given with it, for calls to come.';

CREATE TABLE perdure.grant_uses (
    id               uuid        NOT NULL,
    run_id           uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    tenant_id        uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    grant_id         uuid        NOT NULL REFERENCES perdure.grants ON DELETE CASCADE,
    interruption_id  uuid        NOT NULL,
    tool_call_id     uuid,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, id),
    FOREIGN KEY (run_id, interruption_id)
        REFERENCES perdure.interruptions (run_id, id) ON DELETE CASCADE,
    FOREIGN KEY (run_id, tool_call_id) REFERENCES perdure.tool_calls (run_id, id) ON DELETE CASCADE,
    CONSTRAINT one_grant_per_interruption UNIQUE (run_id, interruption_id)
);
CREATE INDEX grant_uses_grant ON perdure.grant_uses (grant_id, id DESC);
CREATE INDEX grant_uses_tool_call ON perdure.grant_uses (run_id, tool_call_id);
COMMENT ON TABLE perdure.grant_uses IS 'Each interruption a grant closed. Written in the transaction that closes it, under a lock on the grant that a revocation waits for.';
COMMENT ON COLUMN perdure.grant_uses.created_at IS 'Taken under that lock: never after the grant''s revoked_at.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (8, 'grants');
