-- The run it is forked from, held only so that it is not deleted meanwhile: it may be running.
-- name: hold_parent
SELECT r.agent, r.current_agent, r.input::text AS input, r.user_id, r.metadata::text AS metadata,
       COALESCE(r.initial_context, r.context)::text AS context, r.max_turns, r.priority, r.model,
       r.task, r.instructions, r.instructions_agent, r.session_id, r.session_upto,
       r.session_prompt, b.id IS NOT NULL AS budgeted,
       COALESCE(p.cost_usd, b.cost_usd) AS cost_usd,
       COALESCE(p.total_tokens, b.total_tokens) AS total_tokens,
       (SELECT COALESCE(jsonb_agg(g.input ORDER BY g.seq), '[]')::text
          FROM perdure.run_inputs g
         WHERE g.run_id = r.id AND g.given_seq = 0) AS first_inputs
  FROM perdure.runs r
  LEFT JOIN perdure.budgets b ON b.scope = 'run' AND b.run_id = r.id
  LEFT JOIN perdure.budget_periods p ON p.budget_id = b.id
 WHERE r.id = %(parent)s AND r.tenant_id = %(tenant_id)s AND r.deleted_at IS NULL
   FOR KEY SHARE OF r

-- The one asked for, or the latest that is not final.
-- name: find_checkpoint
SELECT seq, kind, schema_version, sdk_version, current_agent, turn
  FROM perdure.run_states
 WHERE run_id = %(parent)s
   AND CASE WHEN %(seq)s::int IS NULL THEN kind <> 'final' ELSE seq = %(seq)s END
 ORDER BY seq DESC
 LIMIT 1

-- name: last_checkpoint
SELECT COALESCE(max(seq), 0) AS seq FROM perdure.run_states WHERE run_id = %(parent)s

-- What its start has no place for. Of its session it is given what the other run was, if that had
-- begun: up to where it branched.
-- name: mark_fork
UPDATE perdure.runs r
   SET forked_from = %(parent)s, forked_seq = %(seq)s, current_agent = %(current_agent)s,
       turn = %(turn)s, instructions = %(instructions)s,
       instructions_agent = %(instructions_agent)s, session_prompt = %(session_prompt)s,
       (session_upto, session_version) = (
           SELECT s.last_seq, s.version FROM perdure.sessions s
            WHERE s.id = r.session_id AND %(begun)s)
 WHERE r.id = %(run_id)s

-- Items are stored in the transaction of the state they came with, which has one time.
-- name: items
SELECT (to_jsonb(i) || jsonb_build_object(
           'item', perdure.whole_item(i), 'text', perdure.item_text(i), 'output_of', NULL))::text AS item
  FROM perdure.run_items i
 WHERE i.run_id = %(parent)s
   AND i.seq <= (SELECT max(o.seq)
                   FROM perdure.run_items o
                   JOIN perdure.run_states s ON s.run_id = o.run_id AND s.seq = %(seq)s
                  WHERE o.run_id = %(parent)s AND o.created_at <= s.created_at)
 ORDER BY i.seq

-- name: insert_items
INSERT INTO perdure.run_items
SELECT (jsonb_populate_record(NULL::perdure.run_items, i)).*
  FROM jsonb_array_elements(%(rows)s::jsonb) i

-- The calls its state waits with, which are asked about anew, and the agents used as tools that they
-- stand beneath, whose runs go on.
-- name: open_calls
SELECT (to_jsonb(t) || jsonb_build_object('waits', bool_or(i.tool_call_id = t.id)))::text AS call
  FROM perdure.tool_calls t
  JOIN perdure.interruptions i
    ON i.run_id = t.run_id AND i.base_seq = %(seq)s AND i.type IN ('tool_approval', 'question')
   AND (i.tool_call_id = t.id
        OR starts_with(i.scope || '/', concat_ws('/', NULLIF(t.scope, ''), t.call_id) || '/'))
 WHERE t.run_id = %(parent)s
 GROUP BY t.run_id, t.id
 ORDER BY t.id

-- name: insert_calls
INSERT INTO perdure.tool_calls (
       id, run_id, tenant_id, segment, base_seq, scope, call_id, tool, kind, agent, arguments,
       arguments_raw, effect, status, idempotency_key)
SELECT c.id, %(run_id)s, %(tenant_id)s, 1, 1, c.scope, c.call_id, c.tool, c.kind, c.agent,
       c.arguments, c.arguments_raw, c.effect, c.status, c.idempotency_key
  FROM jsonb_to_recordset(%(rows)s::jsonb) AS c(
       id uuid, scope text, call_id text, tool text, kind text, agent text, arguments jsonb,
       arguments_raw text, effect text, status text, idempotency_key text)
