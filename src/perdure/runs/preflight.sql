-- What a build that comes is asked of runs that have not ended. Nothing here locks or writes.

-- The oldest first, so many at a time; each status has its own stretch of an index.
-- name: unfinished
SELECT r.id, r.tenant_id, r.status, r.agent, r.current_agent, r.task,
       r.input::text AS input, r.context::text AS context, r.max_turns, r.model, r.tools,
       r.forked_seq, r.instructions, r.instructions_agent,
       coalesce(s.started_at, now()) AS started_at, 'handover' AS after,
       r.session_id, r.segment, r.cancel_requested_at IS NOT NULL AS cancel_requested,
       r.inputs_waiting > 0 AS inputs_waiting, s.epoch, s.executions, s.stalled, s.alone_deaths,
       CASE WHEN r.status = 'interrupted' THEN '{}' ELSE s.mcp_tools::text END AS mcp_tools,
       0 AS policies_revision, false AS budgeted
  FROM perdure.runs r
  JOIN perdure.segments s ON s.run_id = r.id AND s.seq = r.segment
 WHERE r.id IN (
       SELECT x.id FROM (
           (SELECT id FROM perdure.runs
             WHERE status = 'queued' AND id > %(after)s ORDER BY id LIMIT %(fetch)s)
            UNION ALL
           (SELECT id FROM perdure.runs
             WHERE status = 'running' AND id > %(after)s ORDER BY id LIMIT %(fetch)s)
            UNION ALL
           (SELECT id FROM perdure.runs
             WHERE status = 'interrupted' AND id > %(after)s ORDER BY id LIMIT %(fetch)s)) x
        ORDER BY x.id LIMIT %(fetch)s)
 ORDER BY r.id

-- What a run waits for, as if a person let all of it run; in the shape of what was decided.
-- name: asked
SELECT COALESCE(jsonb_agg(jsonb_build_object(
           'interruption_id', i.id, 'scope', i.scope, 'call_id', i.tool ->> 'call_id',
           'tool', i.tool, 'digest', i.digest, 'base_seq', i.base_seq,
           'tool_call_id', i.tool_call_id,
           'decision', CASE i.type WHEN 'question' THEN 'answer' ELSE 'approve' END,
           'message', NULL, 'executes', NULL, 'answer', NULL) ORDER BY i.ordinal), '[]')::text AS asked
  FROM perdure.interruptions i
 WHERE i.run_id = %(run_id)s AND i.base_seq = %(base_seq)s AND i.status = 'pending'
   AND i.type IN ('tool_approval', 'question')
