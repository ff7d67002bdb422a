-- name: tenants
SELECT id, name FROM perdure.tenants ORDER BY created_at, id

-- name: seals
SELECT tenant_id, seq, cluster, from_tx::text AS from_tx, to_tx::text AS to_tx, ids, kinds, ats,
       hashes, previous, hash, key_id, mac, sealed_at
FROM perdure.audit_seals
WHERE tenant_id = %(tenant_id)s AND seq > %(after)s
ORDER BY seq
LIMIT %(most)s

-- Rows with what is left beside them, and since when it is known that it may be gone.
-- name: rows
SELECT l.id, l.tenant_id, l.kind, l.subject_type, l.subject_id, l.run_id, l.actor_type, l.actor,
       l.concerns, l.way, l.at, l.shown_digest, l.executed_digest, l.who_digest, l.details_digest,
       l.cluster, l.tx::text AS tx, t.audit_salt,
       (SELECT p.payload::text FROM perdure.audit_payloads p
        WHERE p.id = l.id AND p.part = 'who') AS who,
       (SELECT p.payload::text FROM perdure.audit_payloads p
        WHERE p.id = l.id AND p.part = 'details') AS details,
       l.run_id IS NOT NULL AND EXISTS (
           SELECT FROM perdure.audit_log d
           WHERE d.tenant_id = l.tenant_id AND d.run_id = l.run_id AND d.kind = 'run.deleted'
             AND d.at >= l.at) AS run_deleted
FROM perdure.audit_log l
JOIN perdure.tenants t ON t.id = l.tenant_id
WHERE l.id = ANY(%(ids)s::uuid[])

-- name: erasures
SELECT subject_id AS person, max(at) AS at
FROM perdure.audit_log
WHERE tenant_id = %(tenant_id)s AND kind = 'audit.erased'
GROUP BY subject_id

-- Rows no seal has, although everything up to there was sealed, by the seal they should be in: the
-- first of their tenant that ends behind them. `late` are others, which wait for the next one.
-- name: unsealed
SELECT l.id, l.kind, l.at,
       (SELECT s.seq FROM perdure.audit_seals s
        WHERE s.tenant_id = l.tenant_id AND s.cluster = l.cluster AND s.to_tx > l.tx
        ORDER BY s.to_tx, s.seq LIMIT 1) AS seal,
       l.tx < coalesce((SELECT s.to_tx FROM perdure.audit_seals s
                        WHERE s.cluster = l.cluster ORDER BY s.to_tx DESC LIMIT 1), '0') AS inserted
FROM perdure.audit_log l
WHERE l.tenant_id = %(tenant_id)s
  AND NOT EXISTS (
      SELECT FROM (SELECT unnest(s.ids) AS id FROM perdure.audit_seals s
                   WHERE s.tenant_id = %(tenant_id)s) sealed
      WHERE sealed.id = l.id)
ORDER BY inserted DESC, seal NULLS LAST, l.cluster, l.tx, l.id
LIMIT %(most)s
