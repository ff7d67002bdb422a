-- name: overdue
SELECT i.id, i.run_id, i.tenant_id, i.expires_at
  FROM perdure.interruptions i
 WHERE i.status = 'pending' AND i.expires_at <= now()
   AND (%(after_time)s::timestamptz IS NULL
        OR (i.expires_at, i.id) > (%(after_time)s::timestamptz, %(after)s::uuid))
 ORDER BY i.expires_at, i.id
 LIMIT %(batch)s

-- The run first, as everywhere. Who has it now decides, or does this very thing.
-- name: lock_run
SELECT r.id FROM perdure.runs r
 WHERE r.id = %(run_id)s AND r.status = 'interrupted' AND r.deleted_at IS NULL
   FOR NO KEY UPDATE SKIP LOCKED

-- name: read_overdue
SELECT i.type, i.digest, i.rules::text AS rules, coalesce(i.tool ->> 'name', i.type) AS about,
       coalesce(i.tool ? 'original_arguments', false) AS edited
  FROM perdure.interruptions i
 WHERE i.run_id = %(run_id)s AND i.id = %(id)s AND i.status = 'pending' AND i.expires_at <= now()
   FOR NO KEY UPDATE

-- name: escalate
UPDATE perdure.interruptions
   SET rules = %(rules)s::jsonb, escalated = escalated + 1,
       expires_at = now() + make_interval(secs => %(expires_after)s),
       remind_at = now() + make_interval(secs => %(remind_every)s)
 WHERE run_id = %(run_id)s AND id = %(id)s

-- Whatever else the run waits for is asked again when it is resumed.
-- name: fail_run
WITH closed AS (
    UPDATE perdure.interruptions
       SET status = CASE WHEN id = %(id)s THEN 'expired' ELSE 'cancelled' END, closed_at = now(),
           reason = CASE WHEN id = %(id)s THEN 'expired' ELSE 'run_failed' END
     WHERE run_id = %(run_id)s AND status = 'pending'
    RETURNING id, tenant_id, run_id, digest, reason, interruptions AS one
), failed AS (
    UPDATE perdure.runs
       SET status = 'failed', error_type = 'abandoned', error_message = %(message)s,
           finished_at = now(), updated_at = now()
     WHERE id = %(run_id)s AND status = 'interrupted'
    RETURNING id, segment, agent, error_type, error_message
), told AS MATERIALIZED (
    SELECT perdure.add_events(%(run_id)s,
                              array_agg(kind ORDER BY step, id),
                              array_agg(data ORDER BY step, id)) AS events
      FROM (SELECT 0 AS step, id, 'interruption.decided' AS kind,
                   perdure.closed_event(one) AS data
              FROM closed
             UNION ALL
            SELECT 1, id, 'run.failed',
                   perdure.rest_event(segment, error_type, error_message)
              FROM failed) AS event
)
SELECT pg_notify('perdure_runs', id::text), agent, (SELECT events FROM told) AS events,
       (SELECT coalesce(jsonb_agg(to_jsonb(c) - 'one' ORDER BY c.id), '[]') FROM closed c) AS closed
  FROM failed

-- name: remind
WITH due AS (
    SELECT run_id, id FROM perdure.interruptions
     WHERE status = 'pending' AND remind_at <= now()
     ORDER BY remind_at
     LIMIT %(batch)s
       FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE perdure.interruptions i
   SET reminded = i.reminded + 1,
       remind_at = now() + make_interval(secs => (i.rules ->> 'remind_every')::float8)
  FROM due
 WHERE i.run_id = due.run_id AND i.id = due.id
RETURNING i.id, i.run_id, i.tenant_id

-- name: next_due
SELECT extract(epoch FROM least(
           (SELECT min(expires_at) FROM perdure.interruptions
             WHERE status = 'pending' AND expires_at IS NOT NULL),
           (SELECT min(remind_at) FROM perdure.interruptions
             WHERE status = 'pending' AND remind_at IS NOT NULL)) - now())::float8 AS seconds

-- name: can_tell
SELECT to_regprocedure('perdure.emit_webhooks(uuid,text,uuid,uuid)') IS NOT NULL AS can_tell

-- name: tell
SELECT perdure.emit_webhooks(%(tenant_id)s, %(event)s, %(run_id)s, %(id)s)
