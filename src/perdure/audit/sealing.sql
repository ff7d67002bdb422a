-- One seals at a time; one that stops in the middle, or waits for somebody, is cut off.
-- name: take
SELECT pg_try_advisory_xact_lock(%(key)s) AS mine,
       set_config('idle_in_transaction_session_timeout', '30s', true),
       set_config('lock_timeout', '5s', true)

-- For each cluster that rows were written in: up to where they are sealed, and up to where they can
-- be. A transaction older than all that still run has ended, so nothing of it can appear any more.
-- Of another cluster (before an upgrade, or where a dump came from) all there is has come.
-- name: horizons
WITH RECURSIVE clusters (cluster) AS (
    (SELECT l.cluster FROM perdure.audit_log l ORDER BY l.cluster LIMIT 1)
    UNION ALL
    SELECT (SELECT l.cluster FROM perdure.audit_log l
            WHERE l.cluster > c.cluster ORDER BY l.cluster LIMIT 1)
    FROM clusters c WHERE c.cluster IS NOT NULL
)
SELECT c.cluster, now() AS now,
       coalesce((SELECT s.to_tx FROM perdure.audit_seals s
                 WHERE s.cluster = c.cluster ORDER BY s.to_tx DESC LIMIT 1), '0')::text AS reached,
       CASE WHEN c.cluster = (SELECT system_identifier FROM pg_control_system())
            THEN pg_snapshot_xmin(pg_current_snapshot())::text END AS ended
FROM clusters c
WHERE c.cluster IS NOT NULL
ORDER BY c.cluster

-- The oldest of them, whole transactions: those of the last one come along however many they are.
-- name: rows_due
WITH last AS (
    SELECT l.tx FROM perdure.audit_log l
    WHERE l.cluster = %(cluster)s AND l.tx >= %(reached)s::xid8
      AND (%(ended)s::xid8 IS NULL OR l.tx < %(ended)s::xid8)
    ORDER BY l.tx, l.id OFFSET %(most)s LIMIT 1
)
SELECT l.id, l.tenant_id, l.kind, l.subject_type, l.subject_id, l.run_id, l.actor_type, l.actor,
       l.concerns, l.way, l.at, l.shown_digest, l.executed_digest, l.who_digest, l.details_digest,
       l.cluster, l.tx::text AS tx, EXISTS (SELECT FROM last) AS more
FROM perdure.audit_log l
WHERE l.cluster = %(cluster)s AND l.tx >= %(reached)s::xid8
  AND (%(ended)s::xid8 IS NULL OR l.tx < %(ended)s::xid8)
  AND (NOT EXISTS (SELECT FROM last) OR l.tx <= (SELECT tx FROM last))
ORDER BY l.tx, l.id

-- name: heads
SELECT t.id AS tenant_id, coalesce(h.seq, 0) AS seq, h.hash,
       coalesce((SELECT s.to_tx FROM perdure.audit_seals s
                 WHERE s.tenant_id = t.id AND s.cluster = %(cluster)s
                 ORDER BY s.to_tx DESC LIMIT 1), '0')::text AS sealed_to
FROM unnest(%(tenants)s::uuid[]) AS t (id)
LEFT JOIN LATERAL (SELECT s.seq, s.hash FROM perdure.audit_seals s
                   WHERE s.tenant_id = t.id ORDER BY s.seq DESC LIMIT 1) h ON true

-- Chains whose end nobody signed.
-- name: unsigned_heads
SELECT t.id AS tenant_id, h.seq, h.hash, h.cluster, h.to_tx::text AS sealed_to, now() AS now
FROM perdure.tenants t
CROSS JOIN LATERAL (SELECT s.seq, s.hash, s.cluster, s.to_tx, s.mac FROM perdure.audit_seals s
                    WHERE s.tenant_id = t.id ORDER BY s.seq DESC LIMIT 1) h
WHERE h.mac IS NULL

-- name: insert_seal
INSERT INTO perdure.audit_seals (
    tenant_id, seq, cluster, from_tx, to_tx, ids, kinds, ats, hashes, previous, hash, key_id, mac,
    sealed_at)
VALUES (
    %(tenant_id)s, %(seq)s, %(cluster)s, %(from_tx)s::xid8, %(to_tx)s::xid8, %(ids)s::uuid[],
    %(kinds)s::text[], %(ats)s::timestamptz[], %(hashes)s::bytea[], %(previous)s, %(hash)s,
    %(key_id)s, %(mac)s, %(sealed_at)s)

-- What no seal has, counted up to so many: of each cluster, what stands beyond its last seal.
-- name: waiting
WITH RECURSIVE clusters (cluster) AS (
    (SELECT l.cluster FROM perdure.audit_log l ORDER BY l.cluster LIMIT 1)
    UNION ALL
    SELECT (SELECT l.cluster FROM perdure.audit_log l
            WHERE l.cluster > c.cluster ORDER BY l.cluster LIMIT 1)
    FROM clusters c WHERE c.cluster IS NOT NULL
), waiting AS (
    SELECT l.at
    FROM clusters c
    CROSS JOIN LATERAL (
        SELECT l.at FROM perdure.audit_log l
        WHERE l.cluster = c.cluster
          AND l.tx >= coalesce((SELECT s.to_tx FROM perdure.audit_seals s
                                WHERE s.cluster = c.cluster ORDER BY s.to_tx DESC LIMIT 1), '0')
        ORDER BY l.tx, l.id LIMIT %(most)s) l
    WHERE c.cluster IS NOT NULL
)
SELECT count(*)::int AS rows, extract(epoch FROM now() - min(at))::float8 AS oldest_seconds
FROM waiting
