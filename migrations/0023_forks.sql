-- Forks: runs that go on from a checkpoint of another one.

ALTER TABLE perdure.runs
    ADD COLUMN forked_from         uuid  REFERENCES perdure.runs ON DELETE SET NULL,
    ADD COLUMN forked_seq          int   CONSTRAINT forked_checkpoints_have_numbers CHECK (forked_seq >= 0),
    ADD COLUMN instructions        text,
    ADD COLUMN instructions_agent  text,
    ADD COLUMN initial_context     jsonb,
    ADD CONSTRAINT forks_say_from_where CHECK (forked_from IS NULL OR forked_seq IS NOT NULL),
    ADD CONSTRAINT instructions_are_an_agents
        CHECK ((instructions IS NULL) = (instructions_agent IS NULL)),
    DROP CONSTRAINT tools_run_or_ask,
    ADD CONSTRAINT tools_run_or_ask_or_answer CHECK (tools IN ('run', 'ask', 'ledger'));
CREATE INDEX runs_forked_from ON perdure.runs (forked_from, id) WHERE forked_from IS NOT NULL;
COMMENT ON COLUMN perdure.runs.forked_from IS 'The run it was forked from; null where it is no fork, or that run is deleted.';
COMMENT ON COLUMN perdure.runs.forked_seq IS 'The number of that run''s checkpoint it goes on from, 0 being its beginning; null where it is no fork.';
COMMENT ON COLUMN perdure.runs.instructions IS 'What one of its agents is told instead of its own instructions, in this run alone.';
COMMENT ON COLUMN perdure.runs.instructions_agent IS 'Which agent is told so: the one the fork went on with.';
COMMENT ON COLUMN perdure.runs.initial_context IS 'Its context as it began, once a checkpoint has another; null while it is the same.';
COMMENT ON COLUMN perdure.runs.tools IS 'ask: whatever its tools need, a person is asked before each call that is not of the effect read. ledger: the same, but for calls the run it was forked from has made since, which are answered with what came of them there.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (23, 'forks');
