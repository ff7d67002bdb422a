-- Replay: a conversation's messages again, as runs of a branch, under another model if so wished.

ALTER TABLE perdure.runs
    ADD COLUMN model        text  CONSTRAINT models_have_names CHECK (length(model) BETWEEN 1 AND 255),
    ADD COLUMN tools        text  NOT NULL DEFAULT 'run'
                                  CONSTRAINT tools_run_or_ask CHECK (tools IN ('run', 'ask')),
    ADD COLUMN replays_seq  int   CONSTRAINT replayed_items_have_numbers CHECK (replays_seq > 0);
COMMENT ON COLUMN perdure.runs.model IS 'The model all its agents are run with, by name; null: each with its own.';
COMMENT ON COLUMN perdure.runs.tools IS 'ask: whatever its tools need, a person is asked before each call that is not of the effect read.';
COMMENT ON COLUMN perdure.runs.replays_seq IS 'The number of the first message it replays, in the session its own is a branch of.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (17, 'replay');
