-- Every statement here begins from the run's row, locked; segments come after it.

-- name: lock_run
SELECT id, status, segment, priority, session_id
FROM perdure.runs
WHERE id = %(id)s AND tenant_id = %(tenant_id)s AND deleted_at IS NULL
FOR NO KEY UPDATE

-- name: lock_runs
SELECT FROM perdure.runs
WHERE id IN (SELECT run_id FROM perdure.interruptions
             WHERE id = ANY(%(ids)s) AND tenant_id = %(tenant_id)s)
  AND deleted_at IS NULL
ORDER BY id
FOR NO KEY UPDATE

-- An interrupted run all of whose questions are closed, and that never went on. Whoever closes one
-- holds this lock, and goes on himself if it was the last: who is at it is left to it.
-- name: lock_decided_run
SELECT r.priority
FROM perdure.runs r
WHERE r.id = %(id)s AND r.segment = %(segment)s AND r.status = 'interrupted'
  AND r.deleted_at IS NULL
  AND EXISTS (SELECT FROM perdure.interruptions i
              WHERE i.run_id = r.id AND i.segment = r.segment)
  AND NOT EXISTS (SELECT FROM perdure.interruptions i
                  WHERE i.run_id = r.id AND i.status = 'pending')
  AND NOT EXISTS (SELECT FROM perdure.segments s
                  WHERE s.run_id = r.id AND (s.seq > r.segment OR s.status <> 'rested'))
FOR NO KEY UPDATE OF r SKIP LOCKED

-- name: next_segment
WITH moved AS (
    UPDATE perdure.runs
    SET status = 'queued', segment = segment + 1, updated_at = now(),
        error_type = NULL, error_message = NULL, finished_at = NULL, cancel_requested_at = NULL
    WHERE id = %(id)s AND status = %(from_status)s
    RETURNING id, tenant_id, segment, priority
), next AS (
    INSERT INTO perdure.segments (run_id, seq, tenant_id, epoch)
    SELECT id, segment, tenant_id,
           -- Goes on from where the last one ended: calls that were begun there carry its epoch,
           -- and whoever begins them again has to be told from who did then.
           (SELECT coalesce(max(s.epoch), 0) FROM perdure.segments s WHERE s.run_id = moved.id)
    FROM moved
    RETURNING run_id, seq
)
SELECT seq, perdure.add_event(run_id, 'run.queued', jsonb_build_object('segment', seq)) AS events
FROM next

-- name: session_turn
SELECT active_run_id FROM perdure.sessions WHERE id = %(session_id)s FOR NO KEY UPDATE

-- name: find_abandonment
SELECT coalesce(d.by_subject, d.by_id, d.by_type) AS who,
       coalesce(t.call_id, '') AS call_id, coalesce(t.tool, 'a tool') AS tool
FROM perdure.interruptions i
JOIN perdure.decisions d ON d.run_id = i.run_id AND d.interruption_id = i.id AND d.outcome = 'abandon'
LEFT JOIN perdure.tool_calls t ON t.run_id = i.run_id AND t.id = i.tool_call_id
WHERE i.run_id = %(id)s AND i.segment = %(segment)s
ORDER BY d.id
LIMIT 1

-- name: find_refused_budget
SELECT coalesce(d.by_subject, d.by_id, d.by_type) AS who, d.message, i.question
FROM perdure.interruptions i
JOIN perdure.decisions d ON d.run_id = i.run_id AND d.interruption_id = i.id AND d.decision = 'reject'
WHERE i.run_id = %(id)s AND i.segment = %(segment)s AND i.type = 'budget' AND i.status = 'rejected'
LIMIT 1

-- name: fail_run
WITH failed AS (
    UPDATE perdure.runs
    SET status = 'failed', error_type = %(type)s, error_message = %(message)s,
        finished_at = now(), updated_at = now()
    WHERE id = %(id)s AND status = 'interrupted'
    RETURNING id, segment, agent, error_type, error_message
)
SELECT pg_notify('perdure_runs', id::text), agent,
       perdure.add_event(
           id, 'run.failed', perdure.rest_event(segment, error_type, error_message)) AS events
FROM failed

-- name: repeat_failed_calls
UPDATE perdure.tool_calls
SET status = 'proposed', finished_at = NULL, output = NULL, error = NULL
WHERE run_id = %(id)s
  AND base_seq = coalesce((SELECT seq FROM perdure.run_states
                           WHERE run_id = %(id)s AND is_active), 0)
  AND status = 'failed'
  AND error -> 'raised' = 'true'

-- name: cancel_resting
WITH cancelled AS (
    UPDATE perdure.runs
    SET status = 'cancelled', finished_at = now(), updated_at = now(),
        cancel_requested_at = coalesce(cancel_requested_at, now())
    WHERE id = %(id)s AND status IN ('queued', 'interrupted')
    RETURNING id, segment, agent
), rested AS (
    UPDATE perdure.segments s
    SET status = 'rested', outcome = 'cancelled', rested_at = now()
    FROM cancelled c
    WHERE s.run_id = c.id AND s.status <> 'rested'
    RETURNING s.run_id
), withdrawn AS (
    UPDATE perdure.interruptions i
    SET status = 'cancelled', closed_at = now(), reason = 'run_cancelled'
    FROM cancelled c
    WHERE i.run_id = c.id AND i.status = 'pending'
    RETURNING i.id, i.digest, i AS one
), ended AS (
    UPDATE perdure.tool_calls t
    SET status = CASE WHEN t.status = 'executing' THEN 'failed' ELSE 'rejected' END,
        finished_at = now(),
        error = CASE WHEN t.status = 'executing'
            THEN '{"type": "CancelledError", "message": "It was cancelled before it finished.", "raised": true}'
            ELSE '{"type": "cancelled", "message": "The run was cancelled before anybody decided."}' END::jsonb
    FROM cancelled c
    WHERE t.run_id = c.id AND t.status IN ('executing', 'awaiting_approval')
    RETURNING t AS call
), told AS MATERIALIZED (
    SELECT perdure.add_events(%(id)s,
                              array_agg(kind ORDER BY step, id),
                              array_agg(data ORDER BY step, id)) AS events
    FROM (SELECT 0 AS step, (call).id, 'tool.failed' AS kind,
                 perdure.call_event(call) AS data
          FROM ended WHERE (call).status = 'failed'
          UNION ALL
          SELECT 1, id, 'interruption.decided', perdure.closed_event(one)
          FROM withdrawn
          UNION ALL
          SELECT 2, id, 'run.cancelled', perdure.rest_event(segment)
          -- The segment first, as everywhere: who has a head waits for no segment.
          FROM cancelled LEFT JOIN (SELECT count(*) FROM rested) AS _ ON true) AS event
)
SELECT pg_notify('perdure_runs', id::text), agent, (SELECT events FROM told) AS events,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('id', w.id, 'digest', w.digest)
                                  ORDER BY w.id), '[]') FROM withdrawn w) AS withdrawn
FROM cancelled

-- name: ask_to_cancel
WITH asked AS (
    UPDATE perdure.runs
    SET cancel_requested_at = coalesce(cancel_requested_at, now()), updated_at = now()
    WHERE id = %(id)s AND status = 'running'
    RETURNING id
)
SELECT pg_notify('perdure_cancel', id::text) FROM asked
