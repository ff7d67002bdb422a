-- One worker at a time looks, and none before it is due; one that stops in the middle, or waits for
-- somebody who did, is cut off, so that it does not keep the others from it.
-- name: take
SELECT reached, set_config('idle_in_transaction_session_timeout', '10s', true),
       set_config('lock_timeout', '5s', true)
  FROM perdure.sweeps
 WHERE name = %(name)s AND due_at <= now()
   FOR UPDATE SKIP LOCKED

-- name: done
UPDATE perdure.sweeps
   SET due_at = now() + make_interval(secs => %(seconds)s::float8), reached = %(reached)s
 WHERE name = %(name)s

-- Nothing moves a run on while this lock is held; who holds it already is at the run.
-- name: lock_open_run
SELECT r.priority
  FROM perdure.runs r
  JOIN perdure.segments s ON s.run_id = r.id AND s.seq = r.segment
   AND s.status IN ('queued', 'running')
 WHERE r.id = %(run_id)s AND r.segment = %(segment)s AND r.status IN ('queued', 'running')
   FOR NO KEY UPDATE OF r SKIP LOCKED

-- name: has_workflow
SELECT FROM dbos.workflow_status
 WHERE workflow_uuid = %(run_id)s::uuid::text || ':' || %(segment)s::int::text

-- What a workflow left whose own row was deleted: enqueued again it would go on from it.
-- name: clear_inputs
DELETE FROM dbos.workflow_input
 WHERE workflow_uuid = %(run_id)s::uuid::text || ':' || %(segment)s::int::text

-- name: clear_outputs
DELETE FROM dbos.workflow_output
 WHERE workflow_uuid = %(run_id)s::uuid::text || ':' || %(segment)s::int::text

-- name: record
INSERT INTO perdure.repairs (id, kind, run_id, segment, executor_id, repaired_by)
VALUES (%(id)s, %(kind)s, %(run_id)s, %(segment)s, %(executor_id)s, %(by)s)

-- What has this executor's name on it, as its claims or the segments it began; only it knows which
-- of them it really runs.
-- name: claims
SELECT 'unheld_claim' AS kind, split_part(workflow_uuid, ':', 1)::uuid AS run_id,
       split_part(workflow_uuid, ':', 2)::int AS seq, workflow_uuid, owner_xid, status, queue_name,
       to_timestamp(COALESCE(started_at_epoch_ms, updated_at) / 1000.0) AS since,
       executor_id, clock_timestamp() AS seen_at
  FROM dbos.workflow_status
 WHERE status = 'PENDING' AND executor_id = %(executor_id)s AND name = 'perdure_segment'
   AND workflow_uuid ~ '^[0-9a-f-]{36}:[0-9]{1,9}$'

-- name: begun_here
SELECT CASE WHEN w.workflow_uuid IS NULL THEN 'missing_workflow'
            WHEN w.status IN ('ENQUEUED', 'DELAYED') THEN 'misplaced_workflow'
            ELSE 'ended_workflow' END AS kind,
       s.run_id, s.seq, w.status, w.owner_xid, w.queue_name, s.executor_id,
       s.run_id::text || ':' || s.seq::text AS workflow_uuid,
       COALESCE(to_timestamp(COALESCE(w.completed_at, w.updated_at) / 1000.0), s.started_at) AS since
  FROM perdure.runs r
  JOIN perdure.segments s ON s.run_id = r.id AND s.seq = r.segment
  LEFT JOIN dbos.workflow_status w ON w.workflow_uuid = s.run_id::text || ':' || s.seq::text
 WHERE r.status = 'running' AND s.status = 'running' AND s.executor_id = %(executor_id)s
   AND (w.workflow_uuid IS NULL
        OR w.name = 'perdure_segment' AND w.status <> 'PENDING'
           AND (w.status <> 'ENQUEUED' OR w.queue_name IS DISTINCT FROM 'perdure'
                OR w.application_version IS DISTINCT FROM 'perdure'
                OR w.application_name IS NOT NULL AND w.application_name <> 'perdure')
           AND COALESCE(w.completed_at, w.updated_at)
               <= (extract(epoch FROM now()) - %(seconds)s::float8) * 1000)
 LIMIT %(max_found)s

-- It has not died: whoever begins the segment next is not to count a death of this executor.
-- name: let_go
UPDATE perdure.segments SET executor_id = NULL
 WHERE run_id = %(run_id)s AND seq = %(segment)s AND executor_id = %(by)s AND status = 'running'
