-- Of a run. Held: it is not deleted before what is thought of it is there.
-- name: find_run
SELECT r.id AS run_id, NULL::uuid AS session_id, NULL::uuid AS item_id, r.agent, r.agent_version
FROM perdure.runs r
WHERE r.id = %(run_id)s AND r.tenant_id = %(tenant_id)s AND r.deleted_at IS NULL
  AND (%(user_id)s::text IS NULL OR r.user_id IS NULL OR r.user_id = %(user_id)s)
FOR KEY SHARE

-- name: find_item_of_run
SELECT i.run_id, NULL::uuid AS session_id, i.id AS item_id, coalesce(i.agent, r.agent) AS agent,
       r.agent_version
FROM perdure.run_items i
JOIN perdure.runs r ON r.id = i.run_id
WHERE i.id = %(item_id)s AND i.tenant_id = %(tenant_id)s AND r.deleted_at IS NULL
  AND (%(user_id)s::text IS NULL OR r.user_id IS NULL OR r.user_id = %(user_id)s)
FOR KEY SHARE

-- One that a living session reads: its own, or a branch of it that has it still.
-- name: find_item_of_session
SELECT NULL::uuid AS run_id, i.session_id, i.id AS item_id, coalesce(i.agent, r.agent) AS agent,
       r.agent_version
FROM perdure.session_items i
LEFT JOIN perdure.runs r ON r.id = i.run_id
WHERE i.id = %(item_id)s AND i.tenant_id = %(tenant_id)s
  AND EXISTS (
      WITH RECURSIVE reader AS (
          SELECT s.id, s.user_id, s.deleted_at, i.removed_version IS NULL AS reads
          FROM perdure.sessions s WHERE s.id = i.session_id
          UNION ALL
          SELECT b.id, b.user_id, b.deleted_at, true
          FROM reader p
          JOIN perdure.sessions b ON b.parent_session_id = p.id
           AND b.fork_seq >= i.seq AND (p.reads OR b.fork_version < i.removed_version)
      )
      SELECT FROM reader
      WHERE reads AND deleted_at IS NULL
        AND (%(user_id)s::text IS NULL OR user_id IS NULL OR user_id = %(user_id)s))
FOR KEY SHARE OF i

-- Said again by the same user, of the same, it is replaced.
-- name: give
INSERT INTO perdure.feedback AS f (
    id, tenant_id, run_id, session_id, item_id, user_id, type, rating, liked, comment, agent,
    agent_version)
VALUES (%(id)s, %(tenant_id)s, %(run_id)s, %(session_id)s, %(item_id)s, %(user_id)s, %(type)s,
        %(rating)s, %(liked)s, %(comment)s, %(agent)s, %(agent_version)s)
ON CONFLICT ON CONSTRAINT one_feedback_of_a_user DO UPDATE
SET rating = excluded.rating, liked = excluded.liked, comment = excluded.comment,
    agent = excluded.agent, agent_version = excluded.agent_version,
    updated_at = clock_timestamp()
RETURNING f.id

-- The run and the session are those of the item, where it is on one. `one`, or `matching` with what
-- narrows it and `page`, follows.
-- name: select
SELECT to_jsonb(f)::text AS shown, coalesce(f.run_id, i.run_id) AS run_id,
       coalesce(f.session_id, r.session_id) AS session_id
FROM perdure.feedback f
LEFT JOIN perdure.session_items i ON i.session_id = f.session_id AND i.id = f.item_id
LEFT JOIN perdure.runs r ON r.id = f.run_id

-- name: one
WHERE f.id = %(id)s AND f.tenant_id = %(tenant_id)s
  AND (%(user_id)s::text IS NULL OR f.user_id = %(user_id)s)

-- name: matching
WHERE f.tenant_id = %(tenant_id)s
  AND (%(user_id)s::text IS NULL OR f.user_id = %(user_id)s)
  AND (%(type)s::text IS NULL OR f.type = %(type)s)
  AND (%(agent)s::text IS NULL OR f.agent = %(agent)s)
  AND (%(agent_version)s::text IS NULL OR f.agent_version = %(agent_version)s)
  AND (%(min_rating)s::int IS NULL OR f.rating >= %(min_rating)s)
  AND (%(max_rating)s::int IS NULL OR f.rating <= %(max_rating)s)
  AND (%(liked)s::boolean IS NULL OR f.liked = %(liked)s)
  AND (%(created_after)s::timestamptz IS NULL OR f.created_at > %(created_after)s)
  AND (%(created_before)s::timestamptz IS NULL OR f.created_at < %(created_before)s)

-- name: of_run
  AND f.id IN (
      SELECT x.id FROM perdure.feedback x WHERE x.run_id = %(run_id)s
      UNION ALL
      SELECT x.id FROM perdure.session_items y
      JOIN perdure.feedback x ON x.session_id = y.session_id AND x.item_id = y.id
      WHERE y.run_id = %(run_id)s)

-- name: of_item
  AND f.item_id = %(item_id)s

-- name: of_session
  AND f.id IN (
      SELECT x.id FROM perdure.feedback x WHERE x.session_id = %(session_id)s
      UNION ALL
      SELECT x.id FROM perdure.runs y JOIN perdure.feedback x ON x.run_id = y.id
      WHERE y.session_id = %(session_id)s)

-- name: page
  AND (%(after)s::uuid IS NULL OR f.id /*beyond*/ < %(after)s)
ORDER BY f.id /*order*/ DESC
LIMIT %(fetch)s

-- name: delete
DELETE FROM perdure.feedback f
WHERE f.id = %(id)s AND f.tenant_id = %(tenant_id)s
  AND (%(user_id)s::text IS NULL OR f.user_id = %(user_id)s)

-- What is not grouped by is one group. The newest first: the versions people ask about.
-- name: summary
SELECT g.agent, g.version, g.type, count(*)::int AS count,
       round(avg(f.rating), 2)::float8 AS average_rating,
       count(*) FILTER (WHERE f.liked)::int AS likes,
       count(*) FILTER (WHERE NOT f.liked)::int AS dislikes,
       jsonb_build_object('1', count(*) FILTER (WHERE f.rating = 1),
                          '2', count(*) FILTER (WHERE f.rating = 2),
                          '3', count(*) FILTER (WHERE f.rating = 3),
                          '4', count(*) FILTER (WHERE f.rating = 4),
                          '5', count(*) FILTER (WHERE f.rating = 5)) AS ratings
FROM perdure.feedback f
CROSS JOIN LATERAL (
    SELECT CASE WHEN 'agent' = ANY (%(group_by)s::text[]) THEN f.agent END AS agent,
           CASE WHEN 'version' = ANY (%(group_by)s::text[]) THEN f.agent_version END AS version,
           CASE WHEN 'type' = ANY (%(group_by)s::text[]) THEN f.type END AS type) g
WHERE f.tenant_id = %(tenant_id)s
  AND (%(agent)s::text IS NULL OR f.agent = %(agent)s)
  AND (%(user_id)s::text IS NULL OR f.user_id = %(user_id)s)
  AND (%(since)s::timestamptz IS NULL OR f.created_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR f.created_at < %(until)s)
GROUP BY g.agent, g.version, g.type
ORDER BY g.agent NULLS LAST, max(f.created_at) DESC, g.version, g.type
LIMIT %(most)s
