-- `page_of_entries` or `entries_after` follows.
-- name: select_entries
SELECT l.id, l.kind, l.subject_type, l.subject_id, l.run_id, l.actor_type, l.actor, l.concerns,
       l.way, l.at, l.shown_digest, l.executed_digest, l.who_digest, l.details_digest,
       l.cluster::text AS cluster, l.tx::text AS tx,
       (SELECT p.payload::text FROM perdure.audit_payloads p
        WHERE p.id = l.id AND p.part = 'who') AS who,
       (SELECT p.payload::text FROM perdure.audit_payloads p
        WHERE p.id = l.id AND p.part = 'details') AS details,
       (SELECT s.seq FROM perdure.audit_seals s
        WHERE s.tenant_id = l.tenant_id AND s.cluster = l.cluster AND s.to_tx > l.tx
        ORDER BY s.to_tx, s.seq LIMIT 1) AS seal
FROM perdure.audit_log l

-- name: page_of_entries
WHERE l.tenant_id = %(tenant_id)s
  AND (%(run_id)s::uuid IS NULL OR l.run_id = %(run_id)s)
  AND (%(kind)s::text IS NULL OR l.kind = %(kind)s)
  AND (%(actor)s::text IS NULL OR l.actor = (
      SELECT encode(sha256(t.audit_salt || convert_to(%(actor)s::text, 'UTF8')), 'hex')
      FROM perdure.tenants t WHERE t.id = %(tenant_id)s))
  AND (%(after)s::uuid IS NULL OR l.id /*beyond*/ < %(after)s)
ORDER BY l.id /*order*/ DESC
LIMIT %(fetch)s

-- name: entries_after
WHERE l.tenant_id = %(tenant_id)s AND l.id > %(after)s
ORDER BY l.id
LIMIT %(fetch)s

-- name: seals_after
SELECT seq, cluster::text AS cluster, from_tx::text AS from_tx, to_tx::text AS to_tx,
       ids, hashes, kinds, ats, previous, hash, key_id, mac, sealed_at
FROM perdure.audit_seals
WHERE tenant_id = %(tenant_id)s AND seq > %(after)s
ORDER BY seq
LIMIT %(fetch)s

-- name: run_was_deleted
SELECT EXISTS (
    SELECT FROM perdure.audit_log
    WHERE tenant_id = %(tenant_id)s AND run_id = %(run_id)s AND kind = 'run.deleted') AS deleted
