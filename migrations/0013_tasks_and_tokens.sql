-- What a run is for, in the program's own words; how many tokens an item took.

ALTER TABLE perdure.runs
    ADD COLUMN task text CHECK (length(task) BETWEEN 1 AND 255);
CREATE INDEX runs_task ON perdure.runs (tenant_id, task, id DESC) WHERE task IS NOT NULL;
COMMENT ON COLUMN perdure.runs.task IS 'What the run is for: one of the engine''s tasks, where it declares some.';

ALTER TABLE perdure.run_items
    ADD COLUMN token_count int CHECK (token_count >= 0);
COMMENT ON COLUMN perdure.run_items.token_count IS 'Tokens the model wrote for it, where its reply''s usage says so of this item alone.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (13, 'tasks_and_tokens');
