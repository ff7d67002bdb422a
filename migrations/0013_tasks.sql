-- What a run is for, in the program's own words.

ALTER TABLE perdure.runs
    ADD COLUMN task text CHECK (length(task) BETWEEN 1 AND 255);
CREATE INDEX runs_task ON perdure.runs (tenant_id, task, id DESC) WHERE task IS NOT NULL;
COMMENT ON COLUMN perdure.runs.task IS 'What the run is for: one of the engine''s tasks, where it declares some.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (13, 'tasks');
