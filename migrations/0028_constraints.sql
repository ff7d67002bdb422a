-- What was still open to say wrong, and runs found by what their metadata holds.

-- Updates of a run write to this index again only where its metadata is not empty.
CREATE INDEX runs_metadata ON perdure.runs USING gin (metadata jsonb_path_ops)
    WHERE metadata <> '{}';
ALTER TABLE perdure.runs
    ADD CONSTRAINT metadata_is_an_object CHECK (jsonb_typeof(metadata) = 'object');

-- Runs of a period. Written in the order of time: no entry for each row, and none for its updates.
CREATE INDEX runs_times ON perdure.runs USING brin (created_at, started_at)
    WITH (pages_per_range = 16);

-- Effects of which nobody knows whether they happened, decided or not: few.
CREATE INDEX interruptions_doubts ON perdure.interruptions (tenant_id, id DESC)
    WHERE type = 'uncertain_effect';

-- The question another one took the place of. Questions go with their run, and never one alone.
ALTER TABLE perdure.interruptions
    ADD CONSTRAINT interruptions_replace_one_of_their_run
        FOREIGN KEY (run_id, replaces) REFERENCES perdure.interruptions (run_id, id) ON DELETE CASCADE;
CREATE INDEX interruptions_replaces ON perdure.interruptions (run_id, replaces)
    WHERE replaces IS NOT NULL;

ALTER TABLE perdure.decisions
    ADD CONSTRAINT decisions_are_somebodys CHECK (by_type <> ''),
    ADD CONSTRAINT decisions_name_their_source CHECK (source <> '');
ALTER TABLE perdure.run_inputs
    ADD CONSTRAINT inputs_are_somebodys CHECK (added_by_type <> '');

INSERT INTO perdure.schema_migrations (version, name) VALUES (28, 'constraints');
