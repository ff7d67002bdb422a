-- Runs in sessions: one after the other, each reading its session as it was when it began.

ALTER TABLE perdure.runs
    ADD COLUMN session_id       uuid  REFERENCES perdure.sessions ON DELETE SET NULL,
    ADD COLUMN session_upto     int   CHECK (session_upto >= 0),
    ADD COLUMN session_version  int   CHECK (session_version >= 0),
    ADD COLUMN session_prompt   text,
    ADD CONSTRAINT a_session_is_read_at_a_moment
        CHECK ((session_upto IS NULL) = (session_version IS NULL));
CREATE INDEX runs_session ON perdure.runs (session_id, id DESC) WHERE session_id IS NOT NULL;
COMMENT ON COLUMN perdure.runs.session_id IS 'The conversation it belongs to; its items are appended there as they are stored here.';
COMMENT ON COLUMN perdure.runs.session_upto IS 'The last number of the session''s items it was given, set when it was first begun: every execution is given the same.';
COMMENT ON COLUMN perdure.runs.session_prompt IS 'The session''s system prompt then.';
COMMENT ON COLUMN perdure.runs.session_version IS 'The session''s version then: what is removed later it is still given.';

ALTER TABLE perdure.sessions
    ADD COLUMN active_run_id  uuid  REFERENCES perdure.runs ON DELETE SET NULL,
    ADD COLUMN waiting_runs   int   NOT NULL DEFAULT 0 CHECK (waiting_runs >= 0);
CREATE INDEX sessions_active_run ON perdure.sessions (active_run_id)
    WHERE active_run_id IS NOT NULL;
CREATE INDEX sessions_turn_free ON perdure.sessions (id)
    WHERE active_run_id IS NULL AND waiting_runs > 0;
COMMENT ON COLUMN perdure.sessions.active_run_id IS 'The run whose turn it is, from its start to its end; the others wait.';
COMMENT ON COLUMN perdure.sessions.waiting_runs IS 'How many runs wait for their turn: queued, their segment due at infinity.';

-- What nobody can read any more of a session goes with the last run or branch that could.
CREATE FUNCTION perdure.tidy_session(session uuid) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM perdure.session_items i
     WHERE i.session_id = session AND i.removed_version IS NOT NULL
       AND NOT EXISTS (SELECT FROM perdure.sessions b
                        WHERE b.parent_session_id = i.session_id AND b.fork_seq >= i.seq
                          AND b.fork_version < i.removed_version)
       AND NOT EXISTS (SELECT FROM perdure.runs r
                        WHERE r.session_id = i.session_id AND r.session_upto >= i.seq
                          AND r.session_version < i.removed_version
                          AND r.status NOT IN ('completed', 'cancelled'));
$$;
COMMENT ON FUNCTION perdure.tidy_session IS 'Deletes items that were removed and that no branch and no unfinished run reads. The caller holds the session''s row.';

-- A run that ends gives its turn back; one that had none waits no more. A failed one that is resumed
-- takes the turn again; one that has ended for good, moreover, reads nothing any more. The run's row is
-- locked before its session's, here as everywhere.
CREATE FUNCTION perdure.pass_session_turn() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status IN ('completed', 'failed', 'cancelled') THEN
        UPDATE perdure.sessions
           SET waiting_runs = waiting_runs - (active_run_id IS DISTINCT FROM NEW.id)::int,
               active_run_id = nullif(active_run_id, NEW.id)
         WHERE id = NEW.session_id;
        IF NEW.status <> 'failed' THEN
            PERFORM perdure.tidy_session(NEW.session_id);
        END IF;
        -- Who enqueues what is due looks who is next.
        PERFORM pg_notify('perdure_due', '');
    ELSE
        UPDATE perdure.sessions SET active_run_id = NEW.id
         WHERE id = NEW.session_id AND active_run_id IS NULL;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'it is another run''s turn in session %', NEW.session_id;
        END IF;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER pass_session_turn AFTER UPDATE OF status ON perdure.runs FOR EACH ROW
    WHEN (NEW.session_id IS NOT NULL
          AND (OLD.status IN ('completed', 'failed', 'cancelled'))
              <> (NEW.status IN ('completed', 'failed', 'cancelled')))
    EXECUTE FUNCTION perdure.pass_session_turn();

INSERT INTO perdure.schema_migrations (version, name) VALUES (12, 'session_runs');
