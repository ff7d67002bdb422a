-- Segments and the rows of their workflows, side by side. Each look is one statement, so that it sees
-- one moment: a start, a rest and a decision are one transaction each, and none is half there.

-- Open segments, `window_size` of them from `after` on in the order of their runs' ids: how many were
-- looked at, where the look ended, and beside that what is wrong with them, nothing or a row each.
-- name: open_segments
WITH living AS MATERIALIZED (
    SELECT id FROM perdure.executors WHERE stopped_at IS NULL AND lost_at IS NULL
), looked AS MATERIALIZED (
    SELECT run_id, seq, status, executor_id, COALESCE(started_at, created_at) AS since
      FROM perdure.segments
     WHERE status <> 'rested' AND run_id > %(after)s
     ORDER BY run_id
     LIMIT %(window_size)s
), joined AS (
    SELECT s.run_id, s.seq, s.executor_id AS begun_by, s.since,
           w.workflow_uuid, w.name, w.status, w.queue_name, w.executor_id, w.owner_xid,
           to_timestamp(COALESCE(w.completed_at, w.updated_at) / 1000.0) AS changed,
           to_timestamp(COALESCE(w.started_at_epoch_ms, w.updated_at) / 1000.0) AS claimed,
           s.status = 'running' AND COALESCE(s.executor_id IN (SELECT id FROM living), false)
               AS run_by_a_living_one,
           COALESCE(w.executor_id IN (SELECT id FROM living), false) AS held_by_a_living_one,
           s.status = 'queued' OR s.executor_id <> w.executor_id
               AND s.executor_id NOT IN (SELECT id FROM living) AS not_begun_by_its_holder,
           w.queue_name IS DISTINCT FROM 'perdure' OR w.status = 'DELAYED'
               OR w.application_version IS DISTINCT FROM 'perdure'
               OR w.application_name IS NOT NULL AND w.application_name <> 'perdure' AS misplaced
      FROM looked s
      JOIN perdure.runs r ON r.id = s.run_id AND r.segment = s.seq
       AND r.status IN ('queued', 'running')
      LEFT JOIN dbos.workflow_status w ON w.workflow_uuid = s.run_id::text || ':' || s.seq::text
     WHERE s.status IN ('queued', 'running')
), told AS (
    SELECT *, CASE
        WHEN name <> 'perdure_segment' THEN 'foreign_workflow'
        WHEN status = 'PENDING' THEN CASE
            WHEN NOT held_by_a_living_one THEN 'dead_executor'
            WHEN not_begun_by_its_holder THEN 'unheld_claim' END
        WHEN run_by_a_living_one THEN NULL
        WHEN workflow_uuid IS NULL THEN 'missing_workflow'
        WHEN status NOT IN ('ENQUEUED', 'DELAYED') THEN 'ended_workflow'
        WHEN misplaced THEN 'misplaced_workflow' END AS kind
      FROM joined
), found AS (
    SELECT kind, run_id, seq, status, queue_name, owner_xid,
           CASE WHEN kind IN ('unheld_claim', 'dead_executor') THEN executor_id ELSE begun_by END
               AS executor_id,
           CASE WHEN kind IN ('unheld_claim', 'dead_executor') THEN claimed
                WHEN workflow_uuid IS NULL THEN since ELSE changed END AS since
      FROM told WHERE kind IS NOT NULL
)
SELECT n.looked, n.reached, found.*
  FROM (SELECT count(*) AS looked,
               (SELECT run_id FROM looked ORDER BY run_id DESC LIMIT 1) AS reached FROM looked) n
  LEFT JOIN LATERAL (
       SELECT * FROM found
        WHERE since <= now() - make_interval(secs => CASE
              WHEN kind IN ('unheld_claim', 'dead_executor') THEN %(claim_seconds)s::float8
              ELSE %(seconds)s::float8 END)
        ORDER BY run_id LIMIT %(max_found)s) found ON true

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
