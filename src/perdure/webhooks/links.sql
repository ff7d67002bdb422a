-- name: question
SELECT i.run_id, i.type, i.status, i.digest, now() AS now,
       LEAST(now() + make_interval(secs => %(seconds)s::float8),
             COALESCE(i.expires_at, 'infinity')) AS expires_at
  FROM perdure.interruptions i JOIN perdure.runs r ON r.id = i.run_id AND r.deleted_at IS NULL
 WHERE i.tenant_id = %(tenant_id)s AND i.id = %(interruption_id)s

-- name: insert
INSERT INTO perdure.decision_links (
       id, tenant_id, run_id, interruption_id, delivery_id, nonce, token_hash, key_id, mac, digest,
       subject, groups, decisions, created_by, expires_at)
VALUES (%(id)s, %(tenant_id)s, %(run_id)s, %(interruption_id)s, %(delivery_id)s, %(nonce)s,
       %(token_hash)s, %(key_id)s, %(mac)s, %(digest)s, %(subject)s, %(groups)s, %(decisions)s,
       %(created_by)s::jsonb, %(expires_at)s)

-- name: by_token
SELECT *, expires_at <= now() AS expired FROM perdure.decision_links
 WHERE token_hash = %(token_hash)s

-- name: by_id
SELECT nonce, key_id FROM perdure.decision_links WHERE tenant_id = %(tenant_id)s AND id = %(id)s

-- name: by_delivery
SELECT nonce, key_id FROM perdure.decision_links WHERE delivery_id = %(id)s

-- name: use
UPDATE perdure.decision_links SET used_at = now()
 WHERE id = %(id)s AND used_at IS NULL AND expires_at > now()
