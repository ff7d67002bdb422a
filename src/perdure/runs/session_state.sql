-- How a conversation stands, from the run whose turn it is, else its newest one: no row where there
-- is no such session.
-- name: state
SELECT jsonb_build_object(
           'session_id', s.id,
           'waiting_runs', s.waiting_runs,
           'last_activity', greatest(s.updated_at, run.updated_at, calls.at, replies.at),
           'run', run.shown,
           'turn', run.turn + replies.since,
           'memory', coalesce(calls.context, run.context),
           'under_way', calls.under_way,
           'questions', run.questions,
           'tool_outputs', outputs.shown)::text AS state
FROM perdure.sessions s
LEFT JOIN LATERAL (
    SELECT r.id, r.updated_at, r.turn, r.context, base.seq AS base,
           jsonb_build_object('id', r.id, 'status', r.status, 'agent', r.current_agent,
                              'task', r.task) AS shown,
           (SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'id', i.id, 'type', i.type, 'tool', i.tool ->> 'name') ORDER BY i.id), '[]')
            FROM perdure.interruptions i
            WHERE i.run_id = r.id AND i.status = 'pending') AS questions
    FROM perdure.runs r
    CROSS JOIN LATERAL (
        SELECT coalesce(max(x.seq), 0) AS seq FROM perdure.run_states x
        WHERE x.run_id = r.id AND x.is_active) base
    WHERE r.id = coalesce(s.active_run_id, (
        SELECT n.id FROM perdure.runs n
        WHERE n.session_id = s.id AND n.deleted_at IS NULL ORDER BY n.id DESC LIMIT 1))
) run ON true
LEFT JOIN LATERAL (
    SELECT max(greatest(t.requested_at, t.finished_at)) AS at,
           jsonb_agg(t.tool ORDER BY t.started_at, t.id)
               FILTER (WHERE t.status = 'executing') AS under_way,
           -- What tools changed since the state it would go on from is kept with their calls.
           (array_agg(t.context ORDER BY t.finished_at DESC)
               FILTER (WHERE t.context IS NOT NULL AND t.base_seq = run.base))[1] AS context
    FROM perdure.tool_calls t WHERE t.run_id = run.id
) calls ON true
LEFT JOIN LATERAL (
    SELECT max(m.created_at) AS at,
           count(*) FILTER (WHERE m.base_seq = run.base AND m.scope = '' AND NOT m.superseded)
               AS since
    FROM perdure.model_responses m WHERE m.run_id = run.id
) replies ON true
LEFT JOIN LATERAL (
    SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.finished_at DESC, x.id DESC), '[]') AS shown
    FROM (
        SELECT t.id, t.run_id, t.call_id, t.tool, t.agent, t.status, t.arguments, t.output, t.error,
               t.finished_at
        FROM perdure.tool_calls t
        WHERE t.finished_at IS NOT NULL AND t.run_id IN (
            SELECT n.id FROM perdure.runs n
            WHERE n.session_id = s.id AND n.deleted_at IS NULL
            ORDER BY n.id DESC LIMIT %(runs)s)
        ORDER BY t.finished_at DESC, t.id DESC LIMIT %(outputs)s) x
) outputs ON true
WHERE s.id = %(session_id)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL
  AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
