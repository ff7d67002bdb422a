-- Which sessions: behind `matching` of store.sql.
-- name: these
  AND (%(ids)s::uuid[] IS NULL OR s.id = ANY(%(ids)s::uuid[]))

-- A parent before its branches. `apart`: a branch whose parent is not exported with it. `these` follow
-- it, `chosen`, and again behind that; then `in_trees`.
-- name: sessions
SELECT (to_jsonb(c) || jsonb_build_object('holes', (
           SELECT coalesce(jsonb_agg(jsonb_build_object(
                      'version', h.version, 'from_seq', h.from_seq, 'to_seq', h.to_seq)
                      ORDER BY h.version, h.from_seq), '[]')
           FROM perdure.session_holes h WHERE h.session_id = c.id)))::text AS shown,
       c.id,
       c.parent_session_id IS NOT NULL AND NOT EXISTS (
           SELECT FROM perdure.sessions s

-- name: chosen
             AND s.id = c.parent_session_id) AS apart
FROM (SELECT s.* FROM perdure.sessions s

-- name: in_trees
) c
ORDER BY c.root_session_id, c.depth, c.id

-- `these` and `with_the_id` follow.
-- name: missing
SELECT g.id FROM unnest(%(ids)s::uuid[]) AS g(id)
WHERE NOT EXISTS (SELECT FROM perdure.sessions s

-- name: with_the_id
  AND s.id = g.id)
LIMIT 1

-- Their own items. `read_below` follows, then `in_order`.
-- name: own
SELECT row_to_json(x)::text AS shown
FROM (
    SELECT i.id, i.session_id, i.seq, i.role, i.sender, i.text, i.item, i.agent, i.run_id,
           i.user_id, i.token_count, i.metadata, i.created_at, i.removed_version, o.place
    FROM unnest(%(sessions)s::uuid[]) WITH ORDINALITY AS o(id, place)
    JOIN perdure.session_items i ON i.session_id = o.id
) x

-- All that a branch read when it had removed nothing yet, behind `chain` as of its version 0. What
-- it removed of its ancestors' is said as of its own: it becomes a root.
-- name: all_it_read
SELECT row_to_json(x)::text AS shown
FROM (
    SELECT i.id, %(session_id)s::uuid AS session_id, i.seq, i.role, i.sender, i.text, i.item,
           i.agent, i.run_id, i.user_id, i.token_count, i.metadata, i.created_at,
           CASE WHEN c.id = %(session_id)s THEN i.removed_version
                ELSE (SELECT min(h.version) FROM perdure.session_holes h
                      WHERE h.session_id = %(session_id)s
                        AND i.seq BETWEEN h.from_seq AND h.to_seq)
           END AS removed_version, 1 AS place
    FROM chain c
    JOIN perdure.session_items i ON i.session_id = c.id AND i.seq <= c.upto
     AND (i.removed_version IS NULL OR i.removed_version > c.version) AND NOT i.seq <@ c.holes
) x

-- What was removed goes along for branches that are exported and read it; `matching` follows.
-- name: read_below
WHERE x.removed_version IS NULL OR EXISTS (
    SELECT FROM perdure.sessions s

-- name: in_order
      AND s.parent_session_id = x.session_id AND s.fork_seq >= x.seq
      AND s.fork_version < x.removed_version)
ORDER BY x.place, x.seq

-- name: declare_sessions
DECLARE exported_sessions NO SCROLL CURSOR FOR

-- name: fetch_sessions
FETCH 100 FROM exported_sessions

-- name: close_sessions
CLOSE exported_sessions

-- name: declare_items
DECLARE exported_items NO SCROLL CURSOR FOR

-- name: fetch_items
FETCH 200 FROM exported_items

-- name: close_items
CLOSE exported_items
