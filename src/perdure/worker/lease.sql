-- name: lock
SELECT pg_advisory_lock(hashtextextended('perdure:' || %(id)s, 0))

-- name: enter
INSERT INTO perdure.executors (id, host, pid, version) VALUES (%(id)s, %(host)s, %(pid)s, %(version)s)
    ON CONFLICT (id) DO NOTHING

-- name: leave
UPDATE perdure.executors SET stopped_at = now() WHERE id = %(id)s
