-- Steering: what is said to a run after its start.

CREATE TABLE perdure.run_inputs (
    id                uuid        NOT NULL,
    run_id            uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    tenant_id         uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    seq               int         NOT NULL CHECK (seq > 0),
    input             jsonb       NOT NULL,
    added_by_type     text        NOT NULL,
    added_by_id       text,
    added_by_subject  text,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    given_seq         int,
    given_at          timestamptz,
    PRIMARY KEY (run_id, id),
    CONSTRAINT one_input_after_the_other UNIQUE (run_id, seq),
    CONSTRAINT inputs_are_messages CHECK (jsonb_typeof(input) = 'array' AND input <> '[]'),
    CONSTRAINT given_inputs_say_when CHECK ((given_seq IS NULL) = (given_at IS NULL)),
    CONSTRAINT inputs_are_given_to_a_state CHECK (given_seq >= 0)
);
CREATE INDEX run_inputs_waiting ON perdure.run_inputs (run_id, seq) WHERE given_seq IS NULL;
COMMENT ON TABLE perdure.run_inputs IS 'Messages added to a run after its start. Accepted under a lock on the run; each is part of one of its states, or waits to be.';
COMMENT ON COLUMN perdure.run_inputs.seq IS 'Their order: as they were accepted.';
COMMENT ON COLUMN perdure.run_inputs.input IS 'Responses input items: messages of the role user.';
COMMENT ON COLUMN perdure.run_inputs.created_at IS 'When it was accepted; taken under the lock on the run.';
COMMENT ON COLUMN perdure.run_inputs.given_seq IS 'Number of the run state it became part of, in the transaction that wrote that; 0: it stands behind the run''s own input, as no model had been asked yet. What later states have of it came from there.';

ALTER TABLE perdure.runs
    ADD COLUMN inputs_waiting int NOT NULL DEFAULT 0,
    ADD CONSTRAINT runs_wait_for_inputs_there_are CHECK (inputs_waiting >= 0);
COMMENT ON COLUMN perdure.runs.inputs_waiting IS 'How many of its inputs are in no state yet. Changes with them: whoever has locked the run knows without looking, above all who would complete it.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (10, 'inputs');
