-- The session and its ancestors, each with what of it is read: numbers up to `upto`, less what it
-- had removed at `version`, less what those between removed of it (`holes`). Numbers only rise along
-- the chain, so a hole's number is one item's. A read as of an earlier moment is one more fork.
-- name: chain
WITH RECURSIVE chain AS (
    SELECT s.id, s.parent_session_id, s.fork_seq, s.fork_version, %(upto)s::int AS upto,
           %(version)s::int AS version,
           coalesce((SELECT range_agg(int4range(h.from_seq, h.to_seq, '[]'))
                     FROM perdure.session_holes h
                     WHERE h.session_id = s.id AND h.version <= %(version)s), '{}') AS holes
    FROM perdure.sessions s
    WHERE s.id = %(session_id)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL
      AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
    UNION ALL
    SELECT p.id, p.parent_session_id, p.fork_seq, p.fork_version, least(c.upto, c.fork_seq),
           c.fork_version,
           c.holes + coalesce((SELECT range_agg(int4range(h.from_seq, h.to_seq, '[]'))
                               FROM perdure.session_holes h
                               WHERE h.session_id = p.id AND h.version <= c.fork_version), '{}')
    FROM chain c
    JOIN perdure.sessions p ON p.id = c.parent_session_id
    WHERE NOT c.holes @> int4range(1, least(c.upto, c.fork_seq) + 1)
)

-- Each session of the chain gives its own newest, of which the newest are taken. One row without an
-- item where there is none, no row where there is no session.
-- name: newest
SELECT x.id, x.seq, x.item::text AS item
FROM (SELECT FROM chain LIMIT 1) there
LEFT JOIN (
    SELECT i.id, i.seq, i.item
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT i.id, i.seq, i.item
        FROM perdure.session_items i
        WHERE i.session_id = c.id AND i.seq <= c.upto
          AND (i.removed_version IS NULL OR i.removed_version > c.version)
          AND NOT i.seq <@ c.holes
        ORDER BY i.seq DESC
        LIMIT %(limit)s
    ) i
    ORDER BY i.seq DESC
    LIMIT %(limit)s
) x ON true
ORDER BY x.seq

-- name: page
SELECT row_to_json(x)::text AS shown
FROM chain c
CROSS JOIN LATERAL (
    SELECT i.id, i.session_id, i.seq, i.role, i.sender, i.text, i.item, i.agent, i.run_id,
           i.user_id, i.token_count, i.metadata, i.created_at
    FROM perdure.session_items i
    WHERE i.session_id = c.id AND i.seq <= c.upto
      AND (i.removed_version IS NULL OR i.removed_version > c.version)
      AND NOT i.seq <@ c.holes
      AND (%(beyond)s::int IS NULL OR i.seq /*beyond*/ < %(beyond)s)
    ORDER BY i.seq /*order*/ DESC
    LIMIT %(fetch)s
) x
ORDER BY x.seq /*order*/ DESC
LIMIT %(fetch)s

-- name: one
SELECT row_to_json(x)::text AS shown
FROM chain c
CROSS JOIN LATERAL (
    SELECT i.id, i.session_id, i.seq, i.role, i.sender, i.text, i.item, i.agent, i.run_id,
           i.user_id, i.token_count, i.metadata, i.created_at
    FROM perdure.session_items i
    WHERE i.session_id = c.id AND i.id = %(item_id)s AND i.seq <= c.upto
      AND (i.removed_version IS NULL OR i.removed_version > c.version)
      AND NOT i.seq <@ c.holes
) x

-- What users said, and whether it goes on what was said just before, in the same run or by hand.
-- name: messages
SELECT x.seq, x.item::text AS item, x.goes_on
FROM (
    SELECT i.seq, i.item, i.is_message,
           coalesce(lag(i.is_message) OVER told
                    AND lag(i.run_id) OVER told IS NOT DISTINCT FROM i.run_id, false) AS goes_on
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT i.seq, i.item, i.run_id,
               coalesce(i.role = 'user', false)
               AND coalesce(i.item ->> 'type', 'message') = 'message' AS is_message
        FROM perdure.session_items i
        WHERE i.session_id = c.id AND i.seq <= c.upto
          AND i.seq BETWEEN %(from_seq)s AND %(to_seq)s
          AND (i.removed_version IS NULL OR i.removed_version > c.version)
          AND NOT i.seq <@ c.holes
    ) i
    WINDOW told AS (ORDER BY i.seq)
) x
WHERE x.is_message
ORDER BY x.seq
LIMIT %(limit)s

-- Also of one that is removed, as long as its row is there: a page may end with it.
-- name: number
SELECT i.seq FROM chain c JOIN perdure.session_items i ON i.session_id = c.id
WHERE i.id = %(item_id)s

-- name: moment
SELECT s.last_seq, s.version FROM perdure.sessions s
WHERE s.id = %(session_id)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL
  AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
