-- Declares dead who is silent, or whose process is known to be gone, and whose lock can be had (its
-- session is gone); and whose lease is over (it is paused, or its machine has vanished). Once, for
-- ever: it is never let in again. Its sessions are ended, as a paused one may hold locks on rows
-- that whoever goes on needs.
-- name: declare_lost
WITH silent AS MATERIALIZED (
    SELECT id, lease_until IS NOT NULL
               AND GREATEST(lease_until, %(since)s + make_interval(secs => %(lease)s)) < now() AS over
      FROM perdure.executors
     WHERE stopped_at IS NULL AND lost_at IS NULL AND id <> %(id)s
       AND (GREATEST(renewed_at, %(since)s) < now() - make_interval(secs => %(silence)s)
            OR id = ANY(%(gone)s))
       FOR UPDATE SKIP LOCKED
), dead AS MATERIALIZED (
    SELECT id FROM silent
     WHERE CASE WHEN over THEN true
                ELSE pg_try_advisory_xact_lock(hashtextextended('perdure:' || id, 0)) END
)
UPDATE perdure.executors e
   SET lost_at = now(), lost_to = %(id)s
  FROM dead WHERE e.id = dead.id
RETURNING e.id

-- name: end_sessions
SELECT count(pg_terminate_backend(pid)) AS ended
  FROM pg_stat_activity
 WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
   AND application_name LIKE 'perdure%%' AND right(application_name, 12) = right(%(id)s, 12)

-- Gives back to the queue what executors hold that are not alive: stopped, lost or unknown ones.
-- Doing it twice finds nothing the second time.
-- name: recover
WITH recovered AS (
    UPDATE dbos.workflow_status w
       SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL,
           updated_at = (extract(epoch FROM now()) * 1000)::bigint
     WHERE w.status = 'PENDING' AND w.name = 'perdure_segment'
       AND w.executor_id IS DISTINCT FROM %(executor_id)s
       AND NOT EXISTS (SELECT FROM perdure.executors e
                        WHERE e.id = w.executor_id AND e.stopped_at IS NULL AND e.lost_at IS NULL)
    RETURNING w.workflow_uuid, w.executor_id
), noted AS (
    INSERT INTO perdure.repairs (id, kind, run_id, segment, executor_id, repaired_by)
    SELECT gen_random_uuid(), 'taken_over', split_part(workflow_uuid, ':', 1)::uuid,
           split_part(workflow_uuid, ':', 2)::int, executor_id, %(executor_id)s
      FROM recovered
)
SELECT workflow_uuid, executor_id, pg_notify('perdure_segments', '') FROM recovered

-- A worker that stops gives back what it did not finish, and takes its name out of those
-- segments: it has not died.
-- name: hand_over
WITH handed AS (
    UPDATE dbos.workflow_status
       SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL,
           updated_at = (extract(epoch FROM now()) * 1000)::bigint
     WHERE executor_id = %(executor_id)s AND status = 'PENDING' AND name = 'perdure_segment'
    RETURNING workflow_uuid
), let_go AS (
    UPDATE perdure.segments s SET executor_id = NULL
      FROM handed
     WHERE s.run_id = split_part(handed.workflow_uuid, ':', 1)::uuid
       AND s.seq = split_part(handed.workflow_uuid, ':', 2)::int
       AND s.executor_id = %(executor_id)s AND s.status = 'running'
)
SELECT workflow_uuid, pg_notify('perdure_segments', '') FROM handed
