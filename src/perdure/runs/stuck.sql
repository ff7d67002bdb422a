-- What nobody runs. Each look is one statement, so that it sees one moment: a start, a rest and a
-- decision are one transaction each, and none of them is half there.

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

-- Runs that are interrupted and wait for nobody, in the same way.
-- name: parked_runs
WITH looked AS MATERIALIZED (
    SELECT id FROM perdure.runs
     WHERE status = 'interrupted' AND id > %(after)s
     ORDER BY id
     LIMIT %(window_size)s
), unasked AS MATERIALIZED (
    SELECT id FROM looked
     WHERE NOT EXISTS (SELECT FROM perdure.interruptions i
                        WHERE i.run_id = looked.id AND i.status = 'pending')
), found AS (
    SELECT CASE WHEN asked.closed_at IS NOT NULL AND NOT EXISTS (
                    SELECT FROM perdure.segments s
                     WHERE s.run_id = r.id AND (s.seq > r.segment OR s.status <> 'rested'))
                THEN 'missing_segment' ELSE 'nothing_to_wait_for' END AS kind,
           r.id AS run_id, r.segment AS seq, r.status, NULL::text AS queue_name,
           NULL::text AS executor_id, NULL::text AS owner_xid,
           COALESCE(asked.closed_at, r.updated_at) AS since
      FROM unasked
      JOIN perdure.runs r ON r.id = unasked.id
      LEFT JOIN LATERAL (SELECT max(i.closed_at) AS closed_at FROM perdure.interruptions i
                          WHERE i.run_id = r.id AND i.segment = r.segment) asked ON true
)
SELECT n.looked, n.reached, found.*
  FROM (SELECT count(*) AS looked,
               (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS reached FROM looked) n
  LEFT JOIN LATERAL (
       SELECT * FROM found
        WHERE since <= now() - make_interval(secs => %(seconds)s::float8)
        ORDER BY run_id LIMIT %(max_found)s) found ON true

-- Runs that say they are on their way while their segment does not: no statement of ours leaves
-- one behind.
-- name: without_segment
WITH active AS MATERIALIZED (
    SELECT id, segment, status, updated_at FROM perdure.runs WHERE status IN ('queued', 'running')
)
SELECT 'no_open_segment' AS kind, r.id AS run_id, r.segment AS seq, r.status,
       NULL::text AS queue_name, NULL::text AS executor_id, NULL::text AS owner_xid,
       r.updated_at AS since
  FROM active r
 WHERE NOT EXISTS (SELECT FROM perdure.segments s
                    WHERE s.run_id = r.id AND s.seq = r.segment AND s.status <> 'rested')
   AND r.updated_at <= now() - make_interval(secs => %(seconds)s::float8)
 ORDER BY r.id
 LIMIT %(max_found)s

-- name: count_repairs
SELECT kind, count(*)::int AS repairs FROM perdure.repairs
 WHERE repaired_at > now() - make_interval(secs => %(seconds)s::float8)
 GROUP BY kind
