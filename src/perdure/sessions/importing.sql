-- One whose key is taken is not made, and not among the ids. A parent is made before its branches,
-- or with them.
-- name: make
WITH given AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(sessions)s::json) AS g (
        id uuid, key text, user_id text, group_id text, title text, system_prompt text, tags jsonb,
        metadata jsonb, status text, rating smallint, root uuid, parent uuid, depth int,
        fork_seq int, fork_version int, version int, last_seq int, created_at timestamptz,
        updated_at timestamptz, holes json)
), made AS (
    INSERT INTO perdure.sessions (
        id, tenant_id, key, user_id, group_id, title, system_prompt, tags, metadata, status, rating,
        root_session_id, parent_session_id, depth, fork_seq, fork_version, version, last_seq,
        created_by, updated_by, created_at, updated_at)
    SELECT g.id, %(tenant_id)s, g.key, g.user_id, g.group_id, g.title, g.system_prompt, g.tags,
           g.metadata, g.status, g.rating, g.root, g.parent, g.depth, g.fork_seq, g.fork_version,
           g.version, g.last_seq, %(by)s::jsonb, %(by)s::jsonb, coalesce(g.created_at, now()),
           coalesce(g.updated_at, now())
    FROM given g
    ON CONFLICT (tenant_id, user_id, key) WHERE key IS NOT NULL AND deleted_at IS NULL DO NOTHING
    RETURNING id
), holes AS (
    INSERT INTO perdure.session_holes (session_id, version, from_seq, to_seq, tenant_id)
    SELECT m.id, h.version, h.from_seq, h.to_seq, %(tenant_id)s
    FROM made m
    JOIN given g ON g.id = m.id
    CROSS JOIN json_to_recordset(g.holes) AS h (version int, from_seq int, to_seq int)
)
SELECT id FROM made

-- Items of sessions that were not made are left out.
-- name: add_items
INSERT INTO perdure.session_items (
    id, session_id, tenant_id, seq, role, sender, text, item, agent, run_id, user_id, token_count,
    metadata, search, created_at, removed_version)
SELECT g.id, s.id, s.tenant_id, g.seq, g.role, g.sender, g.text, g.item, g.agent, r.id, g.user_id,
       g.token_count, g.metadata, perdure.search_vector(t.search_language, g.text),
       coalesce(g.created_at, clock_timestamp()), g.removed_version
FROM json_to_recordset(%(items)s::json) AS g (
         id uuid, session_id uuid, seq int, role text, sender text, text text, item json,
         agent text, run_id uuid, user_id text, token_count int, metadata jsonb,
         created_at timestamptz, removed_version int)
JOIN perdure.sessions s ON s.id = g.session_id
JOIN perdure.tenants t ON t.id = s.tenant_id
LEFT JOIN perdure.runs r ON r.id = g.run_id AND r.tenant_id = s.tenant_id
