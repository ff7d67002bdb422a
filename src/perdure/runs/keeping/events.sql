-- Months of events, all of whose runs ended so long ago, or with null are gone: dropped whole.
-- name: drop_months
SELECT partition, bytes FROM perdure.drop_events(%(age)s::interval, %(dry)s)

-- The next runs that have events, by age, with whether they ended so long ago: a look at the index
-- for each. Those begun later cannot have.
-- name: runs_with_events
WITH RECURSIVE walk AS (
    (SELECT e.run_id, 1 AS n FROM perdure.run_events e
      WHERE e.run_id > %(after)s AND e.run_id < perdure.first_id_at(now() - %(age)s::interval)
      ORDER BY e.run_id LIMIT 1)
    UNION ALL
    SELECT (SELECT e.run_id FROM perdure.run_events e
             WHERE e.run_id > w.run_id
               AND e.run_id < perdure.first_id_at(now() - %(age)s::interval)
             ORDER BY e.run_id LIMIT 1), w.n + 1
      FROM walk w WHERE w.run_id IS NOT NULL AND w.n < %(most)s
)
SELECT w.run_id, coalesce(r.finished_at < now() - %(age)s::interval, false) AS old
  FROM walk w LEFT JOIN perdure.runs r ON r.id = w.run_id
 WHERE w.run_id IS NOT NULL
 ORDER BY w.run_id

-- name: count
SELECT count(*) AS rows FROM perdure.run_events WHERE run_id = ANY (%(runs)s)

-- name: delete
DELETE FROM perdure.run_events WHERE run_id = ANY (%(runs)s)
