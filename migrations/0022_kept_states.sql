-- Run states that programs keep for their own Runner.run: RunStateStore.

CREATE TABLE perdure.kept_states (
    id             uuid        PRIMARY KEY,
    tenant_id      uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    user_id        text        CONSTRAINT kept_states_user_id CHECK (length(user_id) BETWEEN 1 AND 255),
    key            text        NOT NULL CONSTRAINT kept_states_key CHECK (length(key) BETWEEN 1 AND 255),
    agent          text        NOT NULL CONSTRAINT kept_states_agent CHECK (agent <> ''),
    state_type     text        NOT NULL CONSTRAINT kept_states_state_type
                       CHECK (state_type IN ('interrupted', 'checkpoint', 'final')),
    schema_version text        NOT NULL,
    sdk_version    text        NOT NULL,
    current_agent  text        NOT NULL,
    turn           int         NOT NULL CONSTRAINT kept_states_turn CHECK (turn >= 0),
    state          jsonb       NOT NULL,
    size_bytes     int         NOT NULL CONSTRAINT kept_states_size_bytes CHECK (size_bytes > 0),
    is_active      boolean     NOT NULL DEFAULT true,
    created_at     timestamptz NOT NULL DEFAULT now(),
    resumed_at     timestamptz
);
ALTER TABLE perdure.kept_states ALTER COLUMN state SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX kept_states_one_active ON perdure.kept_states (tenant_id, key, user_id)
    NULLS NOT DISTINCT WHERE is_active;
CREATE INDEX kept_states_of_a_key ON perdure.kept_states (tenant_id, key, user_id, id DESC);
CREATE INDEX kept_states_user ON perdure.kept_states (tenant_id, user_id) WHERE user_id IS NOT NULL;
COMMENT ON TABLE perdure.kept_states IS 'States of runs that are not Perdure''s own: what RunStateStore saves for a program''s Runner.run.';
COMMENT ON COLUMN perdure.kept_states.id IS 'UUIDv7, by when it was saved.';
COMMENT ON COLUMN perdure.kept_states.tenant_id IS 'Whose it is.';
COMMENT ON COLUMN perdure.kept_states.user_id IS 'The user the key is of; null: of nobody. The same key of another user is another one.';
COMMENT ON COLUMN perdure.kept_states.key IS 'What it is saved and loaded by: a session''s key, or any other name.';
COMMENT ON COLUMN perdure.kept_states.agent IS 'The agent the run began with, by which the state is restored.';
COMMENT ON COLUMN perdure.kept_states.state_type IS 'interrupted: it waits for approvals. checkpoint: it goes on with another turn. final: the run is over.';
COMMENT ON COLUMN perdure.kept_states.schema_version IS 'The format of the state: its $schemaVersion.';
COMMENT ON COLUMN perdure.kept_states.sdk_version IS 'The version of the Agents SDK that wrote it.';
COMMENT ON COLUMN perdure.kept_states.current_agent IS 'The agent whose turn it is.';
COMMENT ON COLUMN perdure.kept_states.turn IS 'How many turns the run has taken.';
COMMENT ON COLUMN perdure.kept_states.state IS 'The SDK''s serialized RunState.';
COMMENT ON COLUMN perdure.kept_states.size_bytes IS 'Characters of the state as it was written.';
COMMENT ON COLUMN perdure.kept_states.is_active IS 'Whether it is the one load gives: one at most of a tenant, key and user.';
COMMENT ON COLUMN perdure.kept_states.created_at IS 'When it was saved.';
COMMENT ON COLUMN perdure.kept_states.resumed_at IS 'When somebody took it to go on with: mark_resumed.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (22, 'kept_states');
