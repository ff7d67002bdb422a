-- The moment before which runs of a status have to have ended.
-- name: moment
SELECT now() - %(age)s::interval AS before

-- Ended runs of a status by age, some of them, held; one that somebody is at is left out.
-- name: candidates
SELECT r.id, r.tenant_id, r.finished_at
  FROM perdure.runs r
 WHERE r.status = %(status)s AND r.finished_at < %(before)s
   AND (r.finished_at, r.id) > (%(after)s, %(after_id)s)
   AND (%(tenant_id)s::uuid IS NULL OR r.tenant_id = %(tenant_id)s)
 ORDER BY r.finished_at, r.id
 LIMIT %(most)s
   FOR UPDATE SKIP LOCKED

-- The same for who only looks.
-- name: to_look_at
SELECT r.id, r.tenant_id, r.finished_at
  FROM perdure.runs r
 WHERE r.status = %(status)s AND r.finished_at < %(before)s
   AND (r.finished_at, r.id) > (%(after)s, %(after_id)s)
   AND (%(tenant_id)s::uuid IS NULL OR r.tenant_id = %(tenant_id)s)
 ORDER BY r.finished_at, r.id
 LIMIT %(most)s

-- Those that still have the turn of their session.
-- name: have_a_turn
SELECT active_run_id AS id FROM perdure.sessions WHERE active_run_id = ANY (%(runs)s)

-- The workflows of runs, and of what told webhooks of them.
-- name: workflows
SELECT run_id, run_id::text || ':' || seq AS workflow_id
  FROM perdure.segments WHERE run_id = ANY (%(runs)s)
UNION ALL
SELECT d.run_id, d.id::text || ':' || n
  FROM perdure.webhook_deliveries d CROSS JOIN generate_series(1, d.attempt) n
 WHERE d.run_id = ANY (%(runs)s)

-- name: delete
WITH gone AS (DELETE FROM perdure.runs WHERE id = ANY (%(runs)s) RETURNING id)
SELECT count(pg_notify('perdure_events', id::text)) FROM gone

-- name: migration
SELECT max(version) AS version FROM perdure.schema_migrations
