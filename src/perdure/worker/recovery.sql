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
