-- Watching a run: every change of it is a row, numbered per run, written with the change.
--
-- The head of a run is locked last, after the run and its segment, and held to the end of the
-- transaction. So numbers commit in their order: who has seen n finds nothing smaller later.

CREATE TYPE perdure.event_kind AS ENUM (
    'run.queued', 'run.started', 'run.recovered', 'run.interrupted', 'run.resumed',
    'run.completed', 'run.failed', 'run.cancelled', 'agent.started', 'handoff',
    'model.started', 'model.delta', 'model.completed', 'model.superseded',
    'tool.started', 'tool.completed', 'tool.failed', 'tool.uncertain',
    'interruption.created', 'interruption.decided', 'input.added', 'input.given',
    'checkpoint.saved');

CREATE TABLE perdure.run_event_heads (
    run_id   uuid    PRIMARY KEY REFERENCES perdure.runs ON DELETE CASCADE,
    seq      int     NOT NULL CHECK (seq > 0),
    segment  int,
    epoch    int,
    batch    bigint,
    thin_at  timestamptz,
    CONSTRAINT an_execution_has_an_epoch CHECK ((segment IS NULL) = (epoch IS NULL))
) WITH (fillfactor = 50);
CREATE INDEX run_event_heads_thin_at ON perdure.run_event_heads (thin_at)
    WHERE thin_at IS NOT NULL;
COMMENT ON TABLE perdure.run_event_heads IS 'The number of each run''s last event. Whoever writes events holds its row to the end of the transaction, and waits for no run or segment after it.';
COMMENT ON COLUMN perdure.run_event_heads.segment IS 'Of which segment what a model streams is taken; null while the run rests.';
COMMENT ON COLUMN perdure.run_event_heads.epoch IS 'Of which execution of it: what an earlier one still sends is not.';
COMMENT ON COLUMN perdure.run_event_heads.batch IS 'The last batch of streamed text that was written, so that one sent again is not written twice.';

COMMENT ON COLUMN perdure.run_event_heads.thin_at IS 'When to look for streamed text that need not be kept any more; null where there is none.';

-- No key to the run: its check would lock the run once an event. A row goes with its head.
CREATE TABLE perdure.run_events (
    run_id      uuid               NOT NULL,
    seq         int                NOT NULL CHECK (seq > 0),
    kind        perdure.event_kind NOT NULL,
    tenant_id   uuid               NOT NULL,
    data        jsonb              NOT NULL,
    created_at  timestamptz        NOT NULL DEFAULT clock_timestamp(),
    written_by  xid8               NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (run_id, seq)
) PARTITION BY RANGE (run_id);
CREATE TABLE perdure.run_events_default PARTITION OF perdure.run_events DEFAULT;
-- What is new in a tenant, for who follows all of its runs; streamed text is read a run at a time.
CREATE INDEX run_events_written ON perdure.run_events (tenant_id, written_by)
    WHERE kind <> 'model.delta';
COMMENT ON TABLE perdure.run_events IS 'What happened in a run, in order, without gaps but for streamed text that was thinned away. Small: ids, names and short texts; what they are about stands in its own table.';
COMMENT ON COLUMN perdure.run_events.tenant_id IS 'That of the run.';
COMMENT ON COLUMN perdure.run_events.created_at IS 'Taken under the lock on the head: never before that of a smaller number.';
COMMENT ON COLUMN perdure.run_events.written_by IS 'The transaction: what a snapshot of the database does not show yet is new to who had read up to it.';

CREATE FUNCTION perdure.forget_events() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM perdure.run_events WHERE run_id = OLD.run_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER forget_events AFTER DELETE ON perdure.run_event_heads
    FOR EACH ROW EXECUTE FUNCTION perdure.forget_events();

-- Writes events of a run, in the order given, with its next numbers; how many. Workers use this one
-- and tell readers themselves, after the commit (ledger/streams.py): NOTIFY makes commits wait for
-- each other. The ledger's statement (writer.sql) and a start number their own.
CREATE FUNCTION perdure.write_events(run uuid, kinds text[], about jsonb[]) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    n    int := coalesce(cardinality(kinds), 0);
    last int;
BEGIN
    IF n = 0 THEN
        RETURN 0;
    END IF;
    INSERT INTO perdure.run_event_heads AS h (run_id, seq) VALUES (run, n)
        ON CONFLICT (run_id) DO UPDATE SET seq = h.seq + excluded.seq
    RETURNING h.seq INTO last;
    INSERT INTO perdure.run_events (run_id, seq, tenant_id, kind, data)
    SELECT run, last - n + i, r.tenant_id, kinds[i]::perdure.event_kind, about[i]
      FROM perdure.runs r, generate_series(1, n) i
     WHERE r.id = run
     ORDER BY i;
    RETURN n;
END
$$;

-- The same for who writes seldom: readers are told with the commit.
CREATE FUNCTION perdure.add_events(run uuid, kinds text[], about jsonb[]) RETURNS int
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('perdure_events', run::text);
    RETURN perdure.write_events(run, kinds, about);
END
$$;

CREATE FUNCTION perdure.add_event(run uuid, kind text, about jsonb) RETURNS int
LANGUAGE sql AS $$ SELECT perdure.add_events(run, ARRAY[kind], ARRAY[about]) $$;

-- Takes no more of what models stream; what they had begun and did not end is closed, where some
-- may be.
CREATE FUNCTION perdure.end_streams(run uuid, because text, open boolean) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    kinds text[];
    about jsonb[];
BEGIN
    UPDATE perdure.run_event_heads
       SET segment = NULL, epoch = NULL, thin_at = coalesce(thin_at, now() + interval '1 hour')
     WHERE run_id = run;
    IF NOT open THEN
        RETURN 0;
    END IF;
    SELECT array_agg('model.superseded'::text ORDER BY s.began),
           array_agg(s.data || jsonb_build_object('reason', because) ORDER BY s.began)
      INTO kinds, about
      FROM (SELECT min(e.seq) AS began, (array_agg(e.data ORDER BY e.seq))[1] AS data
              FROM perdure.run_events e
             WHERE e.run_id = run
               AND e.kind IN ('model.started', 'model.completed', 'model.superseded')
               AND e.seq > (SELECT coalesce(max(b.seq), 0) FROM perdure.run_events b
                             WHERE b.run_id = run
                               AND b.kind IN ('run.started', 'run.resumed', 'run.recovered'))
             GROUP BY e.data ->> 'model_response_id', e.data ->> 'attempt'
            HAVING bool_and(e.kind = 'model.started')) s;
    RETURN perdure.write_events(run, kinds, about);
END
$$;

-- An execution of a segment begins: what the one before it streamed is closed, what this one
-- streams is taken.
CREATE FUNCTION perdure.begin_streams(
    run uuid, new_segment int, new_epoch int, kinds text[], about jsonb[], because text) RETURNS int
LANGUAGE plpgsql AS $$
BEGIN
    IF because IS NOT NULL THEN
        PERFORM perdure.end_streams(run, because, true);
    END IF;
    UPDATE perdure.run_event_heads SET segment = new_segment, epoch = new_epoch
     WHERE run_id = run;
    RETURN perdure.write_events(run, kinds, about);
END
$$;

-- What a tool call's event says of it.
CREATE FUNCTION perdure.call_event(c perdure.tool_calls) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
               'tool_call_id', c.id, 'call_id', c.call_id, 'tool', c.tool, 'agent', c.agent,
               'scope', c.scope, 'attempt', c.attempt)
        || CASE WHEN c.status = 'executing' THEN jsonb_build_object(
                     'arguments', left(coalesce(c.arguments::text, c.arguments_raw), 500))
                WHEN c.error IS NOT NULL THEN jsonb_build_object(
                     'error', left(c.error ->> 'message', 500))
                WHEN c.output IS NOT NULL THEN jsonb_build_object(
                     'output', left(coalesce(c.output ->> 'text', c.output ->> 'value'), 500))
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
INSERT INTO perdure.run_event_heads (run_id, seq, segment, epoch)
SELECT r.id, 1, s.seq, s.epoch
  FROM perdure.runs r
  LEFT JOIN perdure.segments s
    ON s.run_id = r.id AND s.seq = r.segment AND s.status = 'running';
INSERT INTO perdure.run_events (run_id, seq, tenant_id, kind, data)
SELECT id, 1, tenant_id,
       (CASE status WHEN 'running' THEN 'run.started' ELSE 'run.' || status END)::perdure.event_kind,
       perdure.rest_event(segment, error_type, error_message)
  FROM perdure.runs;

INSERT INTO perdure.schema_migrations (version, name) VALUES (9, 'events');
