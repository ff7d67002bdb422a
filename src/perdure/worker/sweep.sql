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

-- name: record
INSERT INTO perdure.repairs (id, kind, run_id, segment, executor_id, repaired_by)
VALUES (%(id)s, %(kind)s, %(run_id)s, %(segment)s, %(executor_id)s, %(by)s)

-- It has not died: whoever begins the segment next is not to count a death of this executor.
-- name: let_go
UPDATE perdure.segments SET executor_id = NULL
 WHERE run_id = %(run_id)s AND seq = %(segment)s AND executor_id = %(by)s AND status = 'running'
