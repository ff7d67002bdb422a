-- Runs that no segment moves on. Each look is one statement, so that it sees one moment: a start, a
-- rest and a decision are one transaction each, and none of them is half there.

-- Runs that are interrupted and wait for nobody; windows as in dbos_inside/looks.sql.
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
