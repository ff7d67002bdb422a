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

-- As in 0012; a run that has ended for good, moreover, reads nothing any more. A failed one may be resumed.
CREATE OR REPLACE FUNCTION perdure.pass_session_turn() RETURNS trigger
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

INSERT INTO perdure.schema_migrations (version, name) VALUES (14, 'session_tidying');
