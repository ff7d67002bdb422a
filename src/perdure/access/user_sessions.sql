-- Held until the token is made: the setting does not change meanwhile.
-- name: setting
SELECT one_user_session AS only_one FROM perdure.tenants WHERE id = %(tenant_id)s FOR SHARE

-- No row where the user has got one that is the only one meanwhile.
-- name: make
INSERT INTO perdure.user_sessions AS s (
    id, tenant_id, user_id, token_hash, token_hint, label, metadata, only_one, created_by, expires_at)
VALUES (%(id)s, %(tenant_id)s, %(user_id)s, %(token_hash)s, %(token_hint)s, %(label)s,
        %(metadata)s::jsonb, %(only_one)s, %(by)s::jsonb,
        coalesce(%(expires_at)s, now() + make_interval(secs => %(seconds)s)))
ON CONFLICT (tenant_id, user_id) WHERE only_one AND revoked_at IS NULL DO NOTHING
RETURNING to_jsonb(s)::text AS shown, s.id, s.user_id, s.token_hint

-- name: in_time
SELECT %(expires_at)s > now() AND %(expires_at)s <= now() + make_interval(secs => %(most)s) AS fits

-- `one` or `page` follows.
-- name: select_some
SELECT to_jsonb(s)::text AS shown, s.revoked_at IS NULL AND s.expires_at > now() AS active
FROM perdure.user_sessions s

-- name: one
WHERE s.tenant_id = %(tenant_id)s AND s.id = %(id)s

-- name: page
WHERE s.tenant_id = %(tenant_id)s
  AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
  AND (%(active)s::boolean IS NULL
       OR (s.revoked_at IS NULL AND s.expires_at > now()) = %(active)s)
  AND (%(after)s::uuid IS NULL OR s.id /*beyond*/ < %(after)s)
ORDER BY s.id /*order*/ DESC
LIMIT %(fetch)s

-- name: revoke
UPDATE perdure.user_sessions s SET revoked_at = now(), revoked_by = %(by)s::jsonb
WHERE s.tenant_id = %(tenant_id)s AND s.revoked_at IS NULL
  AND (%(id)s::uuid IS NULL OR s.id = %(id)s)
  AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
RETURNING s.id, s.user_id, s.token_hint

-- name: authenticate
-- The use is noted once a minute, and never waits for another request that notes it just now.
WITH noted AS (
    UPDATE perdure.user_sessions
    SET last_used_at = now()
    WHERE id = (
        SELECT id FROM perdure.user_sessions
        WHERE token_hash = %(token_hash)s AND revoked_at IS NULL AND expires_at > now()
          AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
        FOR NO KEY UPDATE SKIP LOCKED)
)
SELECT id, tenant_id, user_id FROM perdure.user_sessions
WHERE token_hash = %(token_hash)s AND revoked_at IS NULL AND expires_at > now()
