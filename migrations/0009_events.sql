-- Watching a run: every change of it is a row, numbered per run, written with the change.
--
-- The head of a run is locked last, after the run and its segment, and held to the end of the
-- transaction. So numbers commit in their order: who has seen n finds nothing smaller later.

CREATE TABLE perdure.run_event_heads (
    run_id  uuid  PRIMARY KEY REFERENCES perdure.runs ON DELETE CASCADE,
    seq     int   NOT NULL CHECK (seq > 0)
) WITH (fillfactor = 50);
COMMENT ON TABLE perdure.run_event_heads IS 'The number of each run''s last event. Whoever writes events holds its row to the end of the transaction, and waits for no run or segment after it.';

CREATE TABLE perdure.run_events (
    run_id      uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    seq         int         NOT NULL CHECK (seq > 0),
    tenant_id   uuid        NOT NULL,
    kind        text        NOT NULL CHECK (kind IN (
                    'run.queued', 'run.started', 'run.recovered', 'run.interrupted', 'run.resumed',
                    'run.completed', 'run.failed', 'run.cancelled', 'agent.started', 'handoff',
                    'model.started', 'model.delta', 'model.completed', 'model.superseded',
                    'tool.started', 'tool.completed', 'tool.failed', 'tool.uncertain',
                    'interruption.created', 'interruption.decided', 'checkpoint.saved')),
    data        jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, seq)
);
COMMENT ON TABLE perdure.run_events IS 'What happened in a run, in order, without gaps. Small: ids, names and short texts; what they are about stands in its own table.';
COMMENT ON COLUMN perdure.run_events.tenant_id IS 'That of the run, whose key holds the row: a key of its own would cost a lookup an event.';
COMMENT ON COLUMN perdure.run_events.created_at IS 'Taken under the lock on the head: never before that of a smaller number.';

-- Writes events of a run, in the order given, with its next numbers; how many. Whoever reads them is
-- told at the commit. The ledger's statement (writer.sql) and a start number their own.
CREATE FUNCTION perdure.add_events(run uuid, kinds text[], about jsonb[]) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    n    int := cardinality(kinds);
    last int;
BEGIN
    IF n IS NULL THEN
        RETURN 0;
    END IF;
    INSERT INTO perdure.run_event_heads AS h (run_id, seq) VALUES (run, n)
        ON CONFLICT (run_id) DO UPDATE SET seq = h.seq + excluded.seq
    RETURNING h.seq INTO last;
    INSERT INTO perdure.run_events (run_id, seq, tenant_id, kind, data)
    SELECT run, last - n + i, r.tenant_id, kinds[i], about[i]
      FROM perdure.runs r, generate_series(1, n) i
     WHERE r.id = run
     ORDER BY i;
    PERFORM pg_notify('perdure_events', run::text);
    RETURN n;
END
$$;

CREATE FUNCTION perdure.add_event(run uuid, kind text, about jsonb) RETURNS int
LANGUAGE sql AS $$ SELECT perdure.add_events(run, ARRAY[kind], ARRAY[about]) $$;

-- What a tool call's event says of it.
CREATE FUNCTION perdure.call_event(c perdure.tool_calls) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
               'tool_call_id', c.id, 'call_id', c.call_id, 'tool', c.tool, 'agent', c.agent,
               'scope', c.scope, 'attempt', c.attempt)
        || CASE WHEN c.status = 'executing' THEN jsonb_build_object(
                     'arguments', left(coalesce(c.arguments::text, c.arguments_raw), 200))
                WHEN c.error IS NOT NULL THEN jsonb_build_object(
                     'error', left(c.error ->> 'message', 200))
                WHEN c.output IS NOT NULL THEN jsonb_build_object(
                     'output', left(coalesce(c.output ->> 'text', c.output ->> 'value'), 200))
                ELSE '{}' END
$$;

-- What is said of a question that was decided, in part or whole, or that closed by itself.
CREATE FUNCTION perdure.closed_event(i perdure.interruptions) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
               'interruption_id', i.id, 'type', i.type, 'status', i.status, 'agent', i.agent,
               'scope', i.scope, 'tool', i.tool ->> 'name', 'call_id', i.tool ->> 'call_id',
               'reason', i.reason)
$$;

-- What is said of a run that rests.
CREATE FUNCTION perdure.rest_event(segment int, error_type text DEFAULT NULL, message text DEFAULT NULL)
RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('segment', segment, 'error', CASE WHEN error_type IS NOT NULL
               THEN jsonb_build_object('type', error_type, 'message', left(message, 500)) END)
$$;

-- Runs there are already begin with how they stand.
INSERT INTO perdure.run_event_heads (run_id, seq) SELECT id, 1 FROM perdure.runs;
INSERT INTO perdure.run_events (run_id, seq, tenant_id, kind, data)
SELECT id, 1, tenant_id, CASE status WHEN 'running' THEN 'run.started' ELSE 'run.' || status END,
       perdure.rest_event(segment, error_type, error_message)
  FROM perdure.runs;

INSERT INTO perdure.schema_migrations (version, name) VALUES (9, 'events');
