-- name: find_or_make_tenant
WITH made AS (
    INSERT INTO perdure.tenants (id, name)
    VALUES (%(id)s, %(name)s)
    ON CONFLICT (name) DO NOTHING
    RETURNING id
)
SELECT id FROM made
UNION ALL
SELECT id FROM perdure.tenants WHERE name = %(name)s
LIMIT 1

-- name: find_tenant
SELECT id FROM perdure.tenants WHERE name = %(name)s

-- name: insert_key
INSERT INTO perdure.api_keys (id, tenant_id, name, subject, roles, groups, key_hash, key_hint)
VALUES (%(id)s, %(tenant_id)s, %(name)s, %(subject)s, %(roles)s, %(groups)s, %(key_hash)s, %(key_hint)s)
RETURNING id, tenant_id, name, subject, roles, groups, key_hint, created_at, last_used_at, revoked_at

-- name: list_keys
SELECT id, tenant_id, name, subject, roles, groups, key_hint, created_at, last_used_at, revoked_at
FROM perdure.api_keys
WHERE tenant_id = %(tenant_id)s
ORDER BY created_at, id

-- name: revoke_key
UPDATE perdure.api_keys
SET revoked_at = coalesce(revoked_at, now())
WHERE tenant_id = %(tenant_id)s AND id = %(id)s
RETURNING id, tenant_id, name, subject, roles, groups, key_hint, created_at, last_used_at, revoked_at

-- name: authenticate
-- The use is noted once a minute, and never waits for another request that notes it just now.
WITH noted AS (
    UPDATE perdure.api_keys
    SET last_used_at = now()
    WHERE id = (
        SELECT id FROM perdure.api_keys
        WHERE key_hash = %(key_hash)s AND revoked_at IS NULL
          AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
        FOR NO KEY UPDATE SKIP LOCKED)
)
SELECT id, subject, tenant_id, roles, groups
FROM perdure.api_keys
WHERE key_hash = %(key_hash)s AND revoked_at IS NULL
