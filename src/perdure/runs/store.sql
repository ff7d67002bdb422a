-- name: start_run
WITH turn AS (
    -- Taken where it is free; whoever ends the run that has it gives it back.
    UPDATE perdure.sessions
    SET waiting_runs = waiting_runs + (active_run_id IS NOT NULL)::int,
        active_run_id = coalesce(active_run_id, %(id)s)
    WHERE id = %(session_id)s
    RETURNING active_run_id = %(id)s AS mine
), started AS (
    INSERT INTO perdure.runs (
        id, tenant_id, agent, current_agent, input, context, user_id, metadata, max_turns,
        priority, started_by, session_id, model, tools, replays_seq, task,
        agent_id)
    VALUES (
        %(id)s, %(tenant_id)s, %(agent)s, %(agent)s, %(input)s::jsonb, %(context)s::jsonb,
        %(user_id)s, %(metadata)s::jsonb, %(max_turns)s, %(priority)s,
        %(started_by)s::jsonb, %(session_id)s, %(model)s, %(tools)s, %(replays_seq)s,
        %(task)s,
        (SELECT a.id FROM perdure.agents a WHERE a.name = %(agent)s AND a.deleted_at IS NULL))
    RETURNING id, tenant_id
), budgeted AS (
    INSERT INTO perdure.budgets (id, tenant_id, scope, run_id, cost_usd, total_tokens)
    SELECT %(budget_id)s, tenant_id, 'run', id, %(budget_usd)s, %(budget_tokens)s
    FROM started WHERE %(budget_id)s::uuid IS NOT NULL
), first AS (
    INSERT INTO perdure.segments (run_id, seq, tenant_id, status, due_at)
    SELECT id, 1, tenant_id,
           CASE WHEN %(delay_seconds)s::float8 IS NULL AND turn.mine IS NOT FALSE
                THEN 'queued' ELSE 'scheduled' END,
           CASE WHEN turn.mine IS FALSE THEN 'infinity'
                ELSE now() + make_interval(secs => %(delay_seconds)s) END
    FROM started LEFT JOIN turn ON true
    RETURNING run_id, seq, tenant_id, status, due_at
), head AS (
    -- Nobody can see this run yet, let alone wait for an event of it: the first one needs no lock.
    INSERT INTO perdure.run_event_heads (run_id, seq) SELECT run_id, 1 FROM first
), event AS (
    INSERT INTO perdure.run_events (run_id, seq, tenant_id, kind, data)
    SELECT run_id, 1, tenant_id, 'run.queued', jsonb_build_object(
               'segment', seq, 'agent', %(agent)s::text, 'due_at', nullif(due_at, 'infinity'))
    FROM first
), queued AS (
    SELECT run_id, seq, %(priority)s::int AS priority FROM first WHERE status = 'queued'
)

-- A run whole: its pending interruptions and the sum of its usage with it; NULL where it is in one
-- of the statuses to leave out. `one_run` or `page_of_runs` follows.
-- name: select_runs
SELECT CASE WHEN r.status <> ALL (%(but)s) THEN (to_jsonb(r) - 'context' - 'initial_context' ||
       jsonb_build_object(
           'usage', perdure.usage_of(r.id),
           'budget', (
               SELECT jsonb_build_object(
                          'cost_usd', coalesce(p.cost_usd, b.cost_usd)::text,
                          'total_tokens', coalesce(p.total_tokens, b.total_tokens))
               FROM perdure.budgets b
               LEFT JOIN perdure.budget_periods p ON p.budget_id = b.id
               WHERE b.scope = 'run' AND b.run_id = r.id),
           'interruptions', (
               SELECT coalesce(jsonb_agg(to_jsonb(i) || jsonb_build_object('decisions', (
                          SELECT coalesce(jsonb_agg(to_jsonb(d) ORDER BY d.decided_at, d.id), '[]')
                          FROM perdure.decisions d WHERE d.run_id = i.run_id AND d.interruption_id = i.id),
                      'evidence', (
                          SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.created_at, e.id), '[]')
                          FROM perdure.tool_call_evidence e
                          WHERE e.run_id = i.run_id AND e.tool_call_id = i.tool_call_id))
                      ORDER BY i.id), '[]')
               FROM perdure.interruptions i
               WHERE i.run_id = r.id AND i.status = 'pending')))::text END AS run
FROM perdure.runs r

-- name: one_run
WHERE r.tenant_id = %(tenant_id)s AND r.id = %(id)s AND r.deleted_at IS NULL

-- name: page_of_runs
WHERE r.tenant_id = %(tenant_id)s
  AND r.deleted_at IS NULL
  AND (%(status)s::text IS NULL OR r.status = %(status)s)
  AND (%(agent)s::text IS NULL OR r.agent = %(agent)s)
  AND (%(user_id)s::text IS NULL OR r.user_id = %(user_id)s)
  AND (%(session_id)s::uuid IS NULL OR r.session_id = %(session_id)s)
  AND (%(task)s::text IS NULL OR r.task = %(task)s)
  AND (%(forked_from)s::uuid IS NULL OR r.forked_from = %(forked_from)s)
  AND (%(metadata)s::jsonb IS NULL OR (r.metadata @> %(metadata)s::jsonb AND r.metadata <> '{}'))
  AND (%(created_after)s::timestamptz IS NULL OR r.created_at > %(created_after)s)
  AND (%(created_before)s::timestamptz IS NULL OR r.created_at < %(created_before)s)
  AND (%(first_id)s::uuid IS NULL OR r.id >= %(first_id)s)
  AND (%(last_id)s::uuid IS NULL OR r.id < %(last_id)s)
  AND (%(after)s::uuid IS NULL OR r.id /*beyond*/ < %(after)s)
ORDER BY r.id /*order*/ DESC
LIMIT %(fetch)s

-- name: delete_run
WITH found AS MATERIALIZED (
    SELECT id, status FROM perdure.runs
    WHERE tenant_id = %(tenant_id)s AND id = %(id)s AND deleted_at IS NULL
    FOR UPDATE
), deleted AS (
    DELETE FROM perdure.runs r USING found f
    WHERE r.id = f.id AND f.status IN ('completed', 'failed', 'cancelled')
)
SELECT status, pg_notify('perdure_events', id::text) FROM found
