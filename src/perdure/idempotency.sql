-- Whoever inserts the key does the work; another one with the same key waits on the unique index
-- until that transaction ends, and then finds its answer, or inserts itself.
-- name: claim
INSERT INTO perdure.idempotency_keys AS k (tenant_id, route, key, request_hash)
VALUES (%(tenant_id)s, %(route)s, %(key)s, %(request_hash)s)
ON CONFLICT (tenant_id, route, key) DO UPDATE
SET request_hash = excluded.request_hash, status_code = NULL, headers = NULL, body = NULL,
    created_at = now(), expires_at = now() + interval '24 hours'
WHERE k.expires_at <= now()
RETURNING true AS claimed

-- name: find
SELECT request_hash, status_code, headers::text AS headers, body
FROM perdure.idempotency_keys
WHERE tenant_id = %(tenant_id)s AND route = %(route)s AND key = %(key)s

-- name: record
UPDATE perdure.idempotency_keys
SET status_code = %(status_code)s, headers = %(headers)s::jsonb, body = %(body)s
WHERE tenant_id = %(tenant_id)s AND route = %(route)s AND key = %(key)s

-- name: purge
DELETE FROM perdure.idempotency_keys WHERE expires_at <= now()
