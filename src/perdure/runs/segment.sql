-- Begins an execution: only of the run's current segment, and only while it is not over. The run
-- is locked before its segment, here as everywhere. Another executor's name in the row is that of
-- one that died, as who stops in good order takes it out: the death is counted, and what the run
-- has recorded is counted to tell whether it got anywhere since the one before. A process that ran
-- the segment alone has somebody who counts its deaths; here it only counts whether it got anywhere.
-- name: begin
WITH run AS (
    SELECT r.id, (SELECT s.executor_id FROM perdure.segments s
                   WHERE s.run_id = r.id AND s.seq = %(seq)s) AS held_by
      FROM perdure.runs r
     WHERE r.id = %(run_id)s AND r.segment = %(seq)s AND r.status IN ('queued', 'running')
       FOR NO KEY UPDATE OF r
), began AS (
    UPDATE perdure.segments s
       SET status = 'running', epoch = s.epoch + 1, executions = s.executions + 1,
           executor_id = %(executor_id)s, alone = %(alone)s,
           started_at = COALESCE(s.started_at, now()),
           (stalled, alone_deaths, recorded) = (
               SELECT s.stalled, s.alone_deaths, s.recorded
                WHERE (s.executor_id <> %(executor_id)s) IS NOT TRUE
                UNION ALL
               SELECT CASE WHEN c.recorded > s.recorded THEN CASE WHEN s.alone THEN 0 ELSE 1 END
                           WHEN s.alone THEN s.stalled
                           ELSE s.stalled + 1 END,
                      CASE WHEN c.recorded > s.recorded THEN 0 ELSE s.alone_deaths END,
                      c.recorded
                 FROM (SELECT (SELECT count(*) FROM perdure.model_responses
                                WHERE run_id = s.run_id)
                            + (SELECT count(*) FROM perdure.tool_calls
                                WHERE run_id = s.run_id AND finished_at IS NOT NULL)
                            + (SELECT count(*) FROM perdure.run_states
                                WHERE run_id = s.run_id) AS recorded) c
                WHERE s.executor_id <> %(executor_id)s)
      FROM run
     WHERE s.run_id = run.id AND s.seq = %(seq)s AND s.status IN ('queued', 'running')
       AND (%(after)s::int IS NULL OR s.epoch = %(after)s)
    RETURNING s.run_id, s.seq, s.epoch, s.executions, s.stalled, s.alone_deaths, s.mcp_tools,
              s.executor_id, s.started_at, run.held_by
), freed AS (
    -- What was reserved for calls of an execution before this one: none of them is under way.
    DELETE FROM perdure.budget_reservations x USING began WHERE x.run_id = began.run_id
    RETURNING pg_notify('perdure_budgets', '')
), moved AS (
    UPDATE perdure.runs r
       SET status = 'running', started_at = COALESCE(r.started_at, now()), updated_at = now(),
           -- The build that resumes it may have other agents; what it began with stands.
           agent_version = CASE WHEN r.started_at IS NULL THEN %(versions)s::jsonb ->> r.agent
                                ELSE r.agent_version END,
           agent_version_id = CASE WHEN r.started_at IS NULL THEN (
                   SELECT v.id FROM perdure.agents a JOIN perdure.agent_versions v ON v.agent_id = a.id
                    WHERE a.name = r.agent AND v.version = %(versions)s::jsonb ->> r.agent)
               ELSE r.agent_version_id END,
           -- Who started it may not have known the agent: this worker's engine came with it.
           agent_id = COALESCE(r.agent_id, (SELECT a.id FROM perdure.agents a WHERE a.name = r.agent))
      FROM began
     WHERE r.id = began.run_id
    RETURNING r.tenant_id, r.agent, r.current_agent, r.input::text AS input,
              r.context::text AS context, r.max_turns, r.model, r.tools,
              r.forked_seq, r.instructions, r.instructions_agent,
              r.session_id, r.cancel_requested_at IS NOT NULL AS cancel_requested,
              r.inputs_waiting > 0 AS inputs_waiting, began.*
)
SELECT tenant_id, agent, input, context, max_turns, model, tools, session_id, cancel_requested,
       forked_seq, instructions, instructions_agent, inputs_waiting, epoch, executions, stalled,
       alone_deaths, mcp_tools::text AS mcp_tools, started_at,
       CASE WHEN executions > 1 THEN after END AS after,
       (SELECT t.policies_revision FROM perdure.tenants t
         WHERE t.id = tenant_id) AS policies_revision,
       EXISTS (SELECT FROM perdure.budgets b WHERE b.scope = 'run' AND b.run_id = moved.run_id)
       OR EXISTS (SELECT FROM perdure.budgets b
                   WHERE b.tenant_id = moved.tenant_id AND b.scope <> 'run') AS budgeted,
       CASE WHEN executions > 1 THEN perdure.begin_streams(
                run_id, seq, epoch, ARRAY['run.recovered'],
                ARRAY[jsonb_build_object('segment', seq, 'execution', executions,
                                         'executor', executor_id, 'after', after)], after)
            WHEN seq > 1 THEN perdure.begin_streams(
                run_id, seq, epoch, ARRAY['run.resumed'],
                ARRAY[jsonb_build_object('segment', seq, 'execution', 1,
                                         'executor', executor_id)], NULL)
            ELSE perdure.begin_streams(
                run_id, seq, epoch, ARRAY['run.started', 'agent.started'],
                ARRAY[jsonb_build_object('segment', seq, 'execution', 1,
                                         'executor', executor_id),
                      jsonb_build_object('agent', current_agent)], NULL)
       END AS events
  FROM moved, LATERAL (
       SELECT CASE WHEN held_by IS NULL THEN 'handover'
                   WHEN held_by = executor_id THEN 'trouble' ELSE 'death' END AS after) _

-- name: load
WITH base AS (
    SELECT seq, state::text AS state, body, turn, kind
      FROM perdure.run_states WHERE run_id = %(run_id)s AND is_active
), number AS (
    SELECT COALESCE((SELECT seq FROM base), 0) AS seq
)
SELECT number.seq AS base_seq,
       (SELECT state FROM base) AS state,
       (SELECT body FROM base) AS body,
       ARRAY(SELECT perdure.state_parts(%(run_id)s, number.seq)) AS parts,
       perdure.state_quotes(%(run_id)s, number.seq)::text AS quotes,
       (SELECT kind FROM base) AS kind,
       COALESCE((SELECT turn FROM base), 0) AS turn,
       (SELECT COALESCE(max(seq), 0) FROM perdure.run_items WHERE run_id = %(run_id)s) AS items,
       (SELECT COALESCE(jsonb_agg(jsonb_build_object(
                   'id', m.id, 'scope', m.scope, 'agent', m.agent, 'input_hash', m.input_hash,
                   'response_id', m.response_id, 'request_id', m.request_id, 'output', m.output,
                   'usage', perdure.usage_of_reply(m.run_id, m.id)) ORDER BY m.position), '[]')::text
          FROM perdure.model_responses m
         WHERE m.run_id = %(run_id)s AND m.base_seq = number.seq AND NOT m.superseded) AS replies,
       (SELECT COALESCE(jsonb_agg(jsonb_build_object(
                   'id', t.id, 'scope', t.scope, 'call_id', t.call_id, 'tool', t.tool,
                   'kind', t.kind, 'agent', t.agent, 'effect', t.effect, 'status', t.status,
                   'attempt', t.attempt, 'epoch', t.epoch, 'output', t.output, 'error', t.error,
                   'arguments', t.arguments, 'arguments_raw', t.arguments_raw)
                   ORDER BY t.id), '[]')::text
          FROM perdure.tool_calls t
         WHERE t.run_id = %(run_id)s AND t.base_seq = number.seq) AS calls,
       (SELECT t.context::text FROM perdure.tool_calls t
         WHERE t.run_id = %(run_id)s AND t.base_seq = number.seq AND t.context IS NOT NULL
         ORDER BY t.finished_at DESC LIMIT 1) AS context,
       (SELECT COALESCE(jsonb_agg(jsonb_build_object(
                   'interruption_id', i.id, 'scope', i.scope, 'call_id', i.tool ->> 'call_id',
                   'tool', i.tool, 'digest', i.digest, 'base_seq', i.base_seq,
                   'tool_call_id', i.tool_call_id, 'decision', d.decision, 'message', d.message,
                   'executes', d.executes, 'answer', d.answer) ORDER BY i.ordinal), '[]')::text
          FROM perdure.interruptions i
          JOIN LATERAL (
               -- Of several people's the last that fits how it was closed: it closed it.
               SELECT one.* FROM perdure.decisions one
                WHERE one.run_id = i.run_id AND one.interruption_id = i.id
                  AND one.decision = CASE i.status WHEN 'approved' THEN 'approve'
                                                   WHEN 'answered' THEN 'answer' ELSE 'reject' END
                ORDER BY one.decided_at DESC, one.id DESC LIMIT 1) d ON true
         WHERE i.run_id = %(run_id)s AND i.base_seq = number.seq
           AND i.type IN ('tool_approval', 'question')
           AND i.status NOT IN ('pending', 'cancelled')) AS decisions,
       (SELECT COALESCE(jsonb_agg(g.input ORDER BY g.seq), '[]')::text
          FROM perdure.run_inputs g
         WHERE g.run_id = %(run_id)s AND g.given_seq = 0) AS first_inputs,
       -- What tools said, and no message has followed.
       (SELECT COALESCE(jsonb_agg(i.metadata ORDER BY i.seq), '[]')::text
          FROM perdure.run_items i
         WHERE i.run_id = %(run_id)s AND i.metadata <> '{}' AND i.type = 'tool_call_output'
           AND NOT EXISTS (SELECT FROM perdure.run_items m
                            WHERE m.run_id = i.run_id AND m.seq > i.seq
                              AND m.type = 'message_output')) AS annotations
  FROM number

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

-- name: mark_resumed
UPDATE perdure.run_states SET resumed_at = COALESCE(resumed_at, now())
 WHERE run_id = %(run_id)s AND is_active AND kind = 'interrupted' AND resumed_at IS NULL

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
