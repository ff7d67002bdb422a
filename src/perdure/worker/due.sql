-- Sessions whose turn is free, and who is next in each: due from now on. The run's row is locked
-- before its session's; one that somebody is at is looked for again.
-- name: take_turns
WITH next AS (
    SELECT n.id, s.id AS session_id
      FROM perdure.sessions s
     CROSS JOIN LATERAL (
           SELECT r.id FROM perdure.runs r
             JOIN perdure.segments g ON g.run_id = r.id AND g.seq = r.segment
            WHERE r.session_id = s.id AND r.status = 'queued' AND r.deleted_at IS NULL
              AND g.status = 'scheduled' AND g.due_at = 'infinity'
            ORDER BY r.id LIMIT 1) n
     WHERE s.active_run_id IS NULL AND s.waiting_runs > 0
     LIMIT 100
), held AS MATERIALIZED (
    SELECT r.id, next.session_id FROM perdure.runs r JOIN next ON next.id = r.id
     WHERE r.status = 'queued'
     ORDER BY r.id
       FOR NO KEY UPDATE OF r SKIP LOCKED
), turn AS (
    UPDATE perdure.sessions s SET active_run_id = held.id, waiting_runs = s.waiting_runs - 1
      FROM held
     WHERE s.id = held.session_id AND s.active_run_id IS NULL
    RETURNING s.active_run_id AS run_id
)
UPDATE perdure.segments g SET due_at = now()
  FROM turn
 WHERE g.run_id = turn.run_id AND g.status = 'scheduled' AND g.due_at = 'infinity'

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
  FROM perdure.segments WHERE status = 'scheduled' AND due_at < 'infinity'
