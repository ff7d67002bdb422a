-- name: get
SELECT * FROM perdure.webhook_deliveries WHERE tenant_id = %(tenant_id)s AND id = %(id)s

-- name: page
SELECT * FROM perdure.webhook_deliveries
 WHERE tenant_id = %(tenant_id)s AND webhook_id = %(webhook_id)s
   AND (%(status)s::text IS NULL OR status = %(status)s)
   AND (%(after)s::uuid IS NULL OR id /*beyond*/ < %(after)s)
 ORDER BY id /*order*/ DESC
 LIMIT %(fetch)s

-- name: test
INSERT INTO perdure.webhook_deliveries (id, tenant_id, webhook_id, event)
SELECT perdure.uuid7(), tenant_id, id, 'webhook.test'
  FROM perdure.webhooks WHERE tenant_id = %(tenant_id)s AND id = %(webhook_id)s
   FOR KEY SHARE
RETURNING *, pg_notify('perdure_deliveries_due', '')

-- name: lock_for_resend
SELECT d.*, w.disabled_at
  FROM perdure.webhook_deliveries d JOIN perdure.webhooks w ON w.id = d.webhook_id
 WHERE d.tenant_id = %(tenant_id)s AND d.id = %(id)s
   FOR UPDATE OF d

-- name: resend
UPDATE perdure.webhook_deliveries
   SET status = 'pending', finished_at = NULL, tries = 0, due_at = now()
 WHERE id = %(id)s
RETURNING *, pg_notify('perdure_deliveries_due', '')

-- Begins an attempt: only the one the delivery is at, and only while it is not over.
-- name: begin
UPDATE perdure.webhook_deliveries d
   SET queued_at = now()
  FROM perdure.webhooks w
 WHERE d.id = %(id)s AND d.attempt = %(attempt)s AND d.status = 'pending' AND d.queued_at IS NOT NULL
   AND w.id = d.webhook_id AND w.disabled_at IS NULL
RETURNING d.tenant_id, d.webhook_id, d.event, d.run_id, d.interruption_id, d.payload, d.tries,
          d.created_at, w.url, w.secret, w.link_subject, w.link_groups,
          CASE WHEN w.old_secret_until > now() THEN w.old_secret END AS old_secret, now() AS now

-- Whoever is first makes what all attempts send.
-- name: lock_payload
SELECT payload FROM perdure.webhook_deliveries WHERE id = %(id)s FOR UPDATE

-- name: keep_payload
UPDATE perdure.webhook_deliveries SET payload = %(payload)s WHERE id = %(id)s AND payload IS NULL

-- An answer of success counts whoever brings it, also one that was given up for lost. What else became
-- of an attempt counts while the delivery is at that attempt.
-- name: finish
WITH finished AS (
    UPDATE perdure.webhook_deliveries
       SET status = %(status)s, status_code = %(status_code)s, error = %(error)s,
           response = %(response)s, latency_ms = %(latency_ms)s, queued_at = NULL,
           finished_at = CASE WHEN %(status)s <> 'pending' THEN now() END,
           due_at = CASE WHEN %(status)s = 'pending'
                         THEN now() + make_interval(secs => %(retry_seconds)s::float8)
                         ELSE due_at END,
           attempts = CASE WHEN jsonb_array_length(attempts) >= 25 THEN attempts - 0 ELSE attempts END
                      || jsonb_build_object(
                          'attempt', %(attempt)s::int, 'at', to_char(now() AT TIME ZONE 'UTC',
                              'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                          'status_code', %(status_code)s::int, 'error', %(error)s::text,
                          'latency_ms', %(latency_ms)s::int)
     WHERE id = %(id)s AND status = 'pending'
       AND (%(status)s = 'delivered' OR attempt = %(attempt)s AND queued_at IS NOT NULL)
    RETURNING id, webhook_id
), gone AS (
    UPDATE perdure.webhooks w
       SET disabled_at = now(), disabled_reason = %(error)s
      FROM finished f
     WHERE %(disable)s AND w.id = f.webhook_id AND w.disabled_at IS NULL
    RETURNING w.id, w.tenant_id, w.disabled_reason
), given_up AS (
    UPDATE perdure.webhook_deliveries d
       SET status = 'failed', finished_at = now(), queued_at = NULL,
           error = 'The webhook was disabled.'
      FROM gone
     WHERE d.webhook_id = gone.id AND d.status = 'pending' AND d.id <> %(id)s
)
SELECT pg_notify('perdure_deliveries_done', f.id::text),
       gone.id AS gone_id, gone.tenant_id, gone.disabled_reason
  FROM finished f LEFT JOIN gone ON gone.id = f.webhook_id
