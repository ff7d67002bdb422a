-- How many of the tool calls a state names have returned what it holds them to have.
-- name: fence
SELECT r.cancel_requested_at IS NOT NULL AS cancel_requested,
       r.inputs_waiting > 0 AS inputs_waiting,
       (SELECT count(*)
          FROM unnest(%(calls)s::uuid[], %(digests)s::bytea[]) AS quoted(id, digest)
          JOIN perdure.tool_calls t ON t.run_id = %(run_id)s AND t.id = quoted.id
         WHERE t.status = 'succeeded'
           AND sha256(convert_to(t.output ->> 'text', 'UTF8')) = quoted.digest) AS quoted
  FROM perdure.runs r
  JOIN perdure.segments s ON s.run_id = r.id AND s.seq = %(seq)s
 WHERE r.id = %(run_id)s AND s.epoch = %(epoch)s AND s.status = 'running'
   FOR NO KEY UPDATE

-- name: insert_items
INSERT INTO perdure.run_items (
       id, run_id, seq, tenant_id, type, role, agent, text, item, output_of, token_count, metadata)
SELECT i.id, %(run_id)s, i.seq, r.tenant_id, i.type, i.role, i.agent, i.text, i.item, i.output_of,
       i.token_count, coalesce(i.metadata, '{}')
  FROM perdure.runs r,
       jsonb_to_recordset(%(items)s::jsonb) AS i(
           id uuid, seq int, type text, role text, agent text, text text, item jsonb,
           output_of uuid, token_count int, metadata jsonb)
 WHERE r.id = %(run_id)s
    ON CONFLICT (run_id, seq) DO NOTHING

-- Calls still open go on under the new state.
-- name: carry_calls
UPDATE perdure.tool_calls SET base_seq = %(state_seq)s
 WHERE run_id = %(run_id)s AND base_seq < %(state_seq)s AND finished_at IS NULL

-- name: await_approval
UPDATE perdure.tool_calls SET status = 'awaiting_approval', approved_arguments = NULL
 WHERE run_id = %(run_id)s AND id = ANY(%(ids)s) AND status IN ('proposed', 'executing', 'approved')

-- Calls a reply's commit marked as begun and that never were.
-- name: not_begun
UPDATE perdure.tool_calls
   SET status = 'proposed', attempt = attempt - 1,
       started_at = CASE WHEN attempt > 1 THEN started_at END
 WHERE run_id = %(run_id)s AND id = ANY(%(ids)s) AND status = 'executing'
   AND epoch = %(epoch)s

-- name: doubt
WITH changed AS (
    UPDATE perdure.tool_calls t
       SET status = 'uncertain', started_at = COALESCE(started_at, now())
     WHERE run_id = %(run_id)s AND id = ANY(%(ids)s) AND status IN ('executing', 'proposed')
    RETURNING t AS call
)
SELECT perdure.add_events(%(run_id)s, array_agg('tool.uncertain'::text),
                          array_agg(perdure.call_event(call) ORDER BY (call).id)) AS events
  FROM changed

-- Failed in a way that a resumed run makes them again.
-- name: cut_short
WITH changed AS (
    UPDATE perdure.tool_calls t
       SET status = 'failed', finished_at = now(),
           error = '{"type": "CancelledError", "message": "It was cancelled before it finished.", "raised": true}'
     WHERE run_id = %(run_id)s AND id = ANY(%(ids)s) AND status = 'executing'
    RETURNING t AS call
)
SELECT perdure.add_events(%(run_id)s, array_agg('tool.failed'::text),
                          array_agg(perdure.call_event(call) ORDER BY (call).id)) AS events
  FROM changed

-- name: supersede
UPDATE perdure.model_responses SET superseded = true
 WHERE run_id = %(run_id)s AND id = ANY(%(ids)s)

-- name: insert_interruptions
WITH asked AS (
INSERT INTO perdure.interruptions (
       id, run_id, tenant_id, segment, base_seq, ordinal, tool_call_id, type, agent, scope, tool,
       question, schema, digest, replaces, rules, required, expires_at, remind_at, budget)
SELECT i.id, %(run_id)s, r.tenant_id, %(seq)s, i.base_seq, i.ordinal, i.tool_call_id, i.type,
       i.agent, i.scope, i.tool, i.question, i.schema, i.digest, i.replaces, i.rules, i.required,
       now() + make_interval(secs => i.expires_after),
       now() + make_interval(secs => i.remind_every), i.budget
  FROM perdure.runs r,
       jsonb_to_recordset(%(interruptions)s::jsonb) AS i(
           id uuid, base_seq int, ordinal int, tool_call_id uuid, type text, agent text,
           scope text, tool jsonb, question text, schema jsonb, digest text, replaces uuid,
           rules jsonb, required int, expires_after float8, remind_every float8, budget jsonb)
 WHERE r.id = %(run_id)s
RETURNING *
)
SELECT perdure.add_events(
           %(run_id)s, array_agg('interruption.created'::text),
           array_agg(jsonb_build_object(
               'interruption_id', id, 'type', type, 'agent', agent, 'scope', scope,
               'tool', tool ->> 'name', 'call_id', tool ->> 'call_id',
               'question', left(question, 500), 'required', required,
               'expires_at', expires_at) ORDER BY ordinal, id)) AS events
  FROM asked

-- What was decided no longer stands: another question takes its place.
-- name: void_interruptions
WITH voided AS (
    UPDATE perdure.interruptions i SET status = 'cancelled', reason = v.reason
      FROM jsonb_to_recordset(%(voided)s::jsonb) AS v(id uuid, reason text)
     WHERE i.run_id = %(run_id)s AND i.id = v.id
    RETURNING i AS one
)
SELECT perdure.add_events(%(run_id)s, array_agg('interruption.decided'::text),
                          array_agg(perdure.closed_event(one) ORDER BY (one).id)) AS events
  FROM voided

-- name: checkpoint_run
UPDATE perdure.runs
   SET turn = %(turn)s, current_agent = %(current_agent)s, context = %(context)s::jsonb,
       initial_context = CASE WHEN initial_context IS NULL AND context <> %(context)s::jsonb
                              THEN context ELSE initial_context END,
       updated_at = now()
 WHERE id = %(run_id)s

-- name: rest_run
WITH rested AS (
    UPDATE perdure.segments SET status = 'rested', outcome = %(outcome)s, rested_at = now()
     WHERE run_id = %(run_id)s AND seq = %(seq)s
), freed AS (
    DELETE FROM perdure.budget_reservations WHERE run_id = %(run_id)s
    RETURNING pg_notify('perdure_budgets', '')
), moved AS (
    UPDATE perdure.runs
       SET status = %(outcome)s, updated_at = now(), turn = GREATEST(turn, %(turn)s),
           finished_at = CASE WHEN %(outcome)s IN ('completed', 'failed', 'cancelled') THEN now() END,
           output = %(output)s::jsonb, error_type = %(error_type)s,
           error_message = %(error_message)s
     WHERE id = %(run_id)s
    RETURNING id, status, segment, turn, error_type, error_message
)
SELECT pg_notify('perdure_runs', id::text),
       perdure.end_streams(id, status, %(streaming)s),
       perdure.add_event(id, 'run.' || status,
           perdure.rest_event(segment, error_type, error_message)
           || jsonb_build_object('turn', turn)) AS events
  FROM moved
