-- name: insert
INSERT INTO perdure.webhooks (id, tenant_id, url, events, description, link_subject, link_groups,
                              secret)
VALUES (%(id)s, %(tenant_id)s, %(url)s, %(events)s, %(description)s, %(link_subject)s,
        %(link_groups)s, %(secret)s)
RETURNING *

-- name: get
SELECT * FROM perdure.webhooks WHERE tenant_id = %(tenant_id)s AND id = %(id)s

-- name: page
SELECT * FROM perdure.webhooks
 WHERE tenant_id = %(tenant_id)s AND (%(after)s::uuid IS NULL OR id /*beyond*/ < %(after)s)
 ORDER BY id /*order*/ DESC
 LIMIT %(fetch)s

-- name: lock
SELECT * FROM perdure.webhooks WHERE tenant_id = %(tenant_id)s AND id = %(id)s FOR UPDATE

-- name: change
UPDATE perdure.webhooks
   SET url = %(url)s, events = %(events)s, description = %(description)s,
       link_subject = %(link_subject)s, link_groups = %(link_groups)s,
       disabled_at = CASE WHEN NOT %(enabled)s THEN COALESCE(disabled_at, now()) END,
       disabled_reason = CASE WHEN NOT %(enabled)s
                              THEN COALESCE(disabled_reason, 'It was disabled by hand.') END
 WHERE tenant_id = %(tenant_id)s AND id = %(id)s
RETURNING *

-- Of a webhook that is disabled nothing waits any more: it can be sent again once it is enabled.
-- name: give_up
UPDATE perdure.webhook_deliveries
   SET status = 'failed', finished_at = now(), queued_at = NULL,
       error = 'The webhook was disabled.'
 WHERE webhook_id = %(id)s AND status = 'pending'

-- name: rotate
UPDATE perdure.webhooks
   SET old_secret = secret, old_secret_until = now() + make_interval(secs => %(seconds)s::float8),
       secret = %(secret)s
 WHERE tenant_id = %(tenant_id)s AND id = %(id)s
RETURNING *

-- name: delete
DELETE FROM perdure.webhooks WHERE tenant_id = %(tenant_id)s AND id = %(id)s
