-- The parent's row, locked: nothing is removed from it while it forks.
-- name: lock_parent
SELECT s.last_seq, s.depth, s.user_id FROM perdure.sessions s
WHERE s.id = %(parent)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL
  AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
FOR NO KEY UPDATE

-- name: fork
INSERT INTO perdure.sessions AS s (
    id, tenant_id, user_id, group_id, title, system_prompt, tags, metadata, root_session_id,
    parent_session_id, fork_seq, fork_version, depth, last_seq, created_by, updated_by)
SELECT %(id)s, p.tenant_id, p.user_id, p.group_id, coalesce(%(title)s, p.title),
       coalesce(%(system_prompt)s, p.system_prompt), p.tags, p.metadata, p.root_session_id, p.id,
       %(from_seq)s, p.version, p.depth + 1, %(from_seq)s, %(by)s::jsonb, %(by)s::jsonb
FROM perdure.sessions p
WHERE p.id = %(parent)s
RETURNING to_jsonb(s)::text AS shown

-- name: tree
SELECT to_jsonb(s)::text AS shown
FROM perdure.sessions s
WHERE s.root_session_id = %(root)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL
  AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
  AND (%(after)s::uuid IS NULL OR s.id /*beyond*/ < %(after)s)
ORDER BY s.id /*order*/ DESC
LIMIT %(fetch)s
