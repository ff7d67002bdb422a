-- What is due, so many at once for each webhook: one that does not answer does not keep the others
-- from theirs.
-- name: enqueue_due
WITH due AS (
    SELECT d.id
      FROM perdure.webhooks w
     CROSS JOIN LATERAL (
           SELECT o.id FROM perdure.webhook_deliveries o
            WHERE o.webhook_id = w.id AND o.status = 'pending' AND o.queued_at IS NULL
              AND o.due_at <= now()
            ORDER BY o.due_at
            LIMIT greatest(0, %(at_once)s - (
                  SELECT count(*) FROM perdure.webhook_deliveries f
                   WHERE f.webhook_id = w.id AND f.status = 'pending' AND f.queued_at IS NOT NULL))
              FOR UPDATE SKIP LOCKED) d
     WHERE w.disabled_at IS NULL
     LIMIT 500
), queued AS (
    UPDATE perdure.webhook_deliveries d
       SET attempt = attempt + 1, tries = tries + 1, queued_at = now()
      FROM due WHERE d.id = due.id
    RETURNING d.id, d.attempt
)

-- What waits for room is looked at when an attempt ends.
-- name: next_due
SELECT extract(epoch FROM min(d.due_at) - now())::float8 AS seconds
  FROM perdure.webhooks w
 CROSS JOIN LATERAL (
       SELECT o.due_at FROM perdure.webhook_deliveries o
        WHERE o.webhook_id = w.id AND o.status = 'pending' AND o.queued_at IS NULL
          AND o.due_at > now()
        ORDER BY o.due_at LIMIT 1) d
 WHERE w.disabled_at IS NULL

-- name: try_again
UPDATE perdure.webhook_deliveries d
   SET queued_at = NULL, due_at = now(),
       attempts = CASE WHEN jsonb_array_length(attempts) >= 25 THEN attempts - 0 ELSE attempts END
                  || jsonb_build_object(
                      'attempt', d.attempt, 'at', to_char(now() AT TIME ZONE 'UTC',
                          'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                      'status_code', NULL, 'error', 'Nothing was heard of it.', 'latency_ms', NULL)
  FROM unnest(%(ids)s::uuid[], %(attempts)s::int[]) AS lost (id, attempt)
 WHERE d.id = lost.id AND d.attempt = lost.attempt AND d.status = 'pending'
   AND d.queued_at < now() - make_interval(secs => %(seconds)s::float8)
RETURNING d.id

-- name: give_up
UPDATE perdure.webhook_deliveries
   SET status = 'failed', finished_at = now(), queued_at = NULL, error = %(error)s
 WHERE id = %(id)s AND status = 'pending'
RETURNING pg_notify('perdure_deliveries_done', id::text)

-- name: purge_links
DELETE FROM perdure.decision_links
 WHERE expires_at < now() - make_interval(secs => %(seconds)s::float8)

-- Those that ended so long ago, some at a time, with the ids of their workflows.
-- name: purge
WITH old AS (
    SELECT id FROM perdure.webhook_deliveries
     WHERE finished_at < now() - make_interval(secs => %(seconds)s::float8)
     ORDER BY finished_at LIMIT 1000
       FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM perdure.webhook_deliveries d WHERE d.id = ANY (ARRAY (SELECT id FROM old))
    RETURNING d.id, d.attempt
)
SELECT id::text || ':' || n AS workflow_id FROM gone CROSS JOIN generate_series(1, attempt) n
