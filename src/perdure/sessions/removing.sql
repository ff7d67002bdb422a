-- A session's row, locked: what follows sees whatever was before it. A fork locks it too.
-- name: lock
SELECT s.id, s.user_id FROM perdure.sessions s
WHERE s.id = %(session_id)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL
  AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
FOR NO KEY UPDATE

-- Behind `chain`: the newest so many items, or a certain one. Of its own, those a branch or a run may
-- read are hidden and the others deleted; of its ancestors', a hole is made. What is removed comes back.
-- name: remove_some
, gone AS (
    SELECT i.session_id, i.id, i.seq, i.item
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT i.session_id, i.id, i.seq, i.item
        FROM perdure.session_items i
        WHERE i.session_id = c.id AND i.seq <= c.upto
          AND (i.removed_version IS NULL OR i.removed_version > c.version)
          AND NOT i.seq <@ c.holes
          AND (%(item_id)s::uuid IS NULL OR i.id = %(item_id)s)
        ORDER BY i.seq DESC
        LIMIT %(limit)s
    ) i
    ORDER BY i.seq DESC
    LIMIT %(limit)s
), raised AS (
    UPDATE perdure.sessions s
    SET version = s.version + 1, updated_at = clock_timestamp(), updated_by = %(by)s::jsonb
    WHERE s.id = %(session_id)s AND EXISTS (SELECT FROM gone)
    RETURNING s.id, s.tenant_id, s.version,
              greatest(
                  (SELECT coalesce(max(b.fork_seq), 0) FROM perdure.sessions b
                    WHERE b.parent_session_id = s.id),
                  (SELECT coalesce(max(r.session_upto), 0) FROM perdure.runs r
                    WHERE r.session_id = s.id
                      AND r.status NOT IN ('completed', 'cancelled'))) AS read_upto
), hidden AS (
    UPDATE perdure.session_items i SET removed_version = r.version
    FROM gone g, raised r
    WHERE i.session_id = r.id AND g.session_id = r.id AND i.seq = g.seq AND i.seq <= r.read_upto
), deleted AS (
    DELETE FROM perdure.session_items i USING gone g, raised r
    WHERE i.session_id = r.id AND g.session_id = r.id AND i.seq = g.seq AND i.seq > r.read_upto
), holes AS (
    INSERT INTO perdure.session_holes (session_id, version, from_seq, to_seq, tenant_id)
    SELECT r.id, r.version, lower(h.hole), upper(h.hole) - 1, r.tenant_id
    FROM raised r,
         (SELECT unnest(range_agg(int4range(g.seq, g.seq, '[]'))) AS hole
          FROM gone g WHERE g.session_id <> %(session_id)s) h
)
SELECT g.id, g.seq, g.item::text AS item FROM gone g ORDER BY g.seq

-- All of them, without looking at each: of its ancestors, one hole from end to end.
-- name: remove_all
WITH raised AS (
    UPDATE perdure.sessions s
    SET version = s.version + 1, updated_at = clock_timestamp(), updated_by = %(by)s::jsonb
    WHERE s.id = %(session_id)s
    RETURNING s.id, s.tenant_id, s.version, s.fork_seq,
              greatest(
                  (SELECT coalesce(max(b.fork_seq), 0) FROM perdure.sessions b
                    WHERE b.parent_session_id = s.id),
                  (SELECT coalesce(max(r.session_upto), 0) FROM perdure.runs r
                    WHERE r.session_id = s.id
                      AND r.status NOT IN ('completed', 'cancelled'))) AS read_upto
), hidden AS (
    UPDATE perdure.session_items i SET removed_version = r.version
    FROM raised r
    WHERE i.session_id = r.id AND i.seq <= r.read_upto AND i.removed_version IS NULL
), deleted AS (
    DELETE FROM perdure.session_items i USING raised r
    WHERE i.session_id = r.id AND i.seq > r.read_upto
)
INSERT INTO perdure.session_holes (session_id, version, from_seq, to_seq, tenant_id)
SELECT r.id, r.version, 1, r.fork_seq, r.tenant_id
FROM raised r
WHERE r.fork_seq > 0
  AND NOT EXISTS (SELECT FROM perdure.session_holes h
                  WHERE h.session_id = r.id AND h.from_seq = 1 AND h.to_seq = r.fork_seq)
