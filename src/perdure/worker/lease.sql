-- name: lock
SELECT pg_try_advisory_lock(hashtextextended('perdure:' || %(id)s, 0))

-- Also the moment from which this session can tell who is silent: before it, others may have been
-- renewing without being seen, or the server was down.
-- name: enter
INSERT INTO perdure.executors AS e (id, host, pid, version, lease_until)
VALUES (%(id)s, %(host)s, %(pid)s, %(version)s, now() + make_interval(secs => %(lease)s))
    ON CONFLICT (id) DO UPDATE
       SET renewed_at = now(), lease_until = now() + make_interval(secs => %(lease)s)
     WHERE e.lost_at IS NULL
RETURNING now() AS entered_at, pg_postmaster_start_time() AS server_started_at

-- Renews, and tells whether anybody is silent and who else is on this host: in one round trip.
-- name: renew
WITH renewed AS (
    UPDATE perdure.executors
       SET renewed_at = now(), lease_until = now() + make_interval(secs => %(lease)s)
     WHERE id = %(id)s AND lost_at IS NULL
    RETURNING id
)
SELECT EXISTS (SELECT FROM renewed) AS held,
       EXISTS (SELECT FROM perdure.executors
                WHERE stopped_at IS NULL AND lost_at IS NULL AND id <> %(id)s
                  AND GREATEST(renewed_at, %(since)s) < now() - make_interval(secs => %(silence)s))
           AS somebody_is_silent,
       (SELECT jsonb_object_agg(id, pid) FROM perdure.executors
         WHERE stopped_at IS NULL AND lost_at IS NULL AND id <> %(id)s AND host = %(host)s)
           AS neighbours

-- name: leave
UPDATE perdure.executors SET stopped_at = now() WHERE id = %(id)s AND lost_at IS NULL
