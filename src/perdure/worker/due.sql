-- name: enqueue_due
WITH due AS (
    SELECT s.run_id, s.seq, r.priority
      FROM perdure.segments s JOIN perdure.runs r ON r.id = s.run_id
     WHERE s.status = 'scheduled' AND s.due_at <= now()
     ORDER BY s.due_at
     LIMIT 100
       FOR UPDATE OF s SKIP LOCKED
), moved AS (
    UPDATE perdure.segments s SET status = 'queued' FROM due
     WHERE s.run_id = due.run_id AND s.seq = due.seq
    RETURNING s.run_id, s.seq, due.priority
), queued AS MATERIALIZED (
    -- In the order of their ids: two that write for the same runs wait, and do not lock up.
    SELECT run_id, seq, priority,
           perdure.add_event(run_id, 'run.queued', jsonb_build_object('segment', seq)) AS events
      FROM moved ORDER BY run_id
)

-- name: next_due
SELECT extract(epoch FROM min(due_at) - now())::float8 AS seconds
  FROM perdure.segments WHERE status = 'scheduled'
