-- `one`, `with_key` or `page` follows.
-- name: select_sessions
SELECT to_jsonb(s)::text AS shown, s.id
FROM perdure.sessions s

-- name: one
WHERE s.id = %(id)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL
  AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)

-- A user's key and the key of nobody are two.
-- name: with_key
WHERE s.tenant_id = %(tenant_id)s AND s.key = %(key)s AND s.deleted_at IS NULL
  AND (s.user_id = %(user_id)s OR (%(user_id)s::text IS NULL AND s.user_id IS NULL))

-- name: matching
WHERE s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL
  AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
  AND (%(group_id)s::text IS NULL OR s.group_id = %(group_id)s)
  AND (%(status)s::text IS NULL OR s.status = %(status)s)
  AND (%(parent)s::uuid IS NULL OR s.parent_session_id = %(parent)s)
  AND (%(tags)s::jsonb IS NULL OR s.tags @> %(tags)s::jsonb)

-- name: page
  AND (%(after)s::uuid IS NULL OR s.id /*beyond*/ < %(after)s)
ORDER BY s.id /*order*/ DESC
LIMIT %(fetch)s

-- `matching` follows.
-- name: count
SELECT count(*) AS count FROM perdure.sessions s

-- Whoever makes the same key at the same moment is waited for; no row comes back then.
-- name: make
INSERT INTO perdure.sessions AS s (
    id, tenant_id, key, user_id, group_id, title, system_prompt, tags, metadata, status, rating,
    root_session_id, created_by, updated_by)
VALUES (%(id)s, %(tenant_id)s, %(key)s, %(user_id)s, %(group_id)s, %(title)s, %(system_prompt)s,
        %(tags)s::jsonb, %(metadata)s::jsonb, %(status)s, %(rating)s, %(id)s, %(by)s::jsonb,
        %(by)s::jsonb)
ON CONFLICT (tenant_id, user_id, key) WHERE key IS NOT NULL AND deleted_at IS NULL DO NOTHING
RETURNING to_jsonb(s)::text AS shown, s.id

-- What is not among `changes` stays; null is a value there.
-- name: change
UPDATE perdure.sessions s
SET title = CASE WHEN c ? 'title' THEN c ->> 'title' ELSE s.title END,
    system_prompt = CASE WHEN c ? 'system_prompt' THEN c ->> 'system_prompt'
                         ELSE s.system_prompt END,
    group_id = CASE WHEN c ? 'group_id' THEN c ->> 'group_id' ELSE s.group_id END,
    rating = CASE WHEN c ? 'rating' THEN (c ->> 'rating')::smallint ELSE s.rating END,
    status = coalesce(c ->> 'status', s.status),
    tags = coalesce(c -> 'tags', s.tags),
    metadata = coalesce(c -> 'metadata', s.metadata),
    updated_at = clock_timestamp(),
    updated_by = %(by)s::jsonb
FROM (SELECT %(changes)s::jsonb AS c) given
WHERE s.id = %(id)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL
  AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
RETURNING to_jsonb(s)::text AS shown

-- name: delete
UPDATE perdure.sessions s
SET deleted_at = clock_timestamp(), updated_at = clock_timestamp(), updated_by = %(by)s::jsonb
WHERE s.id = %(id)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL
  AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
RETURNING s.user_id

-- A deleted one too: it is erased as well.
-- name: lock_for_erasure
SELECT s.id, s.user_id, s.parent_session_id
FROM perdure.sessions s
WHERE s.id = %(id)s AND s.tenant_id = %(tenant_id)s
  AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
FOR UPDATE

-- name: descendants
WITH RECURSIVE tree AS (
    SELECT s.id, s.deleted_at FROM perdure.sessions s WHERE s.parent_session_id = %(id)s
    UNION ALL
    SELECT s.id, s.deleted_at FROM tree t JOIN perdure.sessions s ON s.parent_session_id = t.id
)
SELECT array_agg(id) AS ids, count(*) FILTER (WHERE deleted_at IS NULL)::int AS living FROM tree

-- name: erase
WITH counted AS (
    SELECT count(*)::int AS items FROM perdure.session_items WHERE session_id = ANY(%(ids)s)
), gone AS (
    DELETE FROM perdure.sessions WHERE id = ANY(%(ids)s)
)
SELECT items FROM counted

-- What its parent kept for it alone.
-- name: tidy_parent
SELECT perdure.tidy_session(s.id)
FROM (SELECT id FROM perdure.sessions WHERE id = %(parent)s FOR NO KEY UPDATE) s
