-- Every statement here begins from the run's row, locked; segments come after it.

-- name: lock_run
SELECT id, status, segment, priority
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
)
INSERT INTO perdure.segments (run_id, seq, tenant_id, epoch)
SELECT id, segment, tenant_id,
       -- Goes on from where the last one ended: calls that were begun there carry its epoch, and
       -- whoever begins them again has to be told from who did then.
       (SELECT coalesce(max(s.epoch), 0) FROM perdure.segments s WHERE s.run_id = moved.id)
FROM moved
RETURNING seq

-- name: find_abandonment
SELECT coalesce(d.by_subject, d.by_id, d.by_type) AS who,
       coalesce(t.call_id, '') AS call_id, coalesce(t.tool, 'a tool') AS tool
FROM perdure.interruptions i
JOIN perdure.decisions d ON d.run_id = i.run_id AND d.interruption_id = i.id AND d.outcome = 'abandon'
LEFT JOIN perdure.tool_calls t ON t.id = i.tool_call_id
WHERE i.run_id = %(id)s AND i.segment = %(segment)s
ORDER BY d.id
LIMIT 1

-- name: abandon_run
WITH failed AS (
    UPDATE perdure.runs
    SET status = 'failed', error_type = 'abandoned', error_message = %(message)s,
        finished_at = now(), updated_at = now()
    WHERE id = %(id)s AND status = 'interrupted'
    RETURNING id
)
SELECT pg_notify('perdure_runs', id::text) FROM failed

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
    RETURNING id
), rested AS (
    UPDATE perdure.segments s
    SET status = 'rested', outcome = 'cancelled', rested_at = now()
    FROM cancelled c
    WHERE s.run_id = c.id AND s.status <> 'rested'
), withdrawn AS (
    UPDATE perdure.interruptions i
    SET status = 'cancelled', closed_at = now(), reason = 'run_cancelled'
    FROM cancelled c
    WHERE i.run_id = c.id AND i.status = 'pending'
), ended AS (
    UPDATE perdure.tool_calls t
    SET status = CASE WHEN t.status = 'executing' THEN 'failed' ELSE 'rejected' END,
        finished_at = now(),
        error = CASE WHEN t.status = 'executing'
            THEN '{"type": "CancelledError", "message": "It was cancelled before it finished.", "raised": true}'
            ELSE '{"type": "cancelled", "message": "The run was cancelled before anybody decided."}' END::jsonb
    FROM cancelled c
    WHERE t.run_id = c.id AND t.status IN ('executing', 'awaiting_approval')
)
SELECT pg_notify('perdure_runs', id::text) FROM cancelled

-- name: ask_to_cancel
WITH asked AS (
    UPDATE perdure.runs
    SET cancel_requested_at = coalesce(cancel_requested_at, now()), updated_at = now()
    WHERE id = %(id)s AND status = 'running'
    RETURNING id
)
SELECT pg_notify('perdure_cancel', id::text) FROM asked
