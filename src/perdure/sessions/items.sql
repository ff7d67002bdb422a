-- One statement: whoever else appends waits for the session's row here, and then counts from what
-- this one left. No row comes back, and nothing is written, when there is no such living session.
-- `given` is json and not jsonb: an item passes through it as it is.
-- name: append
WITH given AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(items)s::json) AS g (
        place int, id uuid, role text, sender text, text text, item json, agent text, run_id uuid,
        user_id text, token_count int, metadata jsonb)
), locked AS (
    UPDATE perdure.sessions s
    SET last_seq = s.last_seq + %(count)s,
        title = coalesce(s.title, %(title)s),
        updated_at = clock_timestamp(),
        updated_by = %(by)s::jsonb
    FROM perdure.tenants t
    WHERE s.id = %(session_id)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL
      AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
      AND t.id = s.tenant_id
    RETURNING s.id, s.tenant_id, s.user_id, s.last_seq - %(count)s AS base, t.search_language
), added AS (
    INSERT INTO perdure.session_items (
        id, session_id, tenant_id, seq, role, sender, text, item, agent, run_id, user_id,
        token_count, metadata, search)
    SELECT g.id, l.id, l.tenant_id, l.base + g.place, g.role, g.sender, g.text, g.item, g.agent,
           g.run_id, coalesce(g.user_id, CASE g.role WHEN 'user' THEN l.user_id END),
           g.token_count, g.metadata, perdure.search_vector(l.search_language, g.text)
    FROM locked l, given g
    RETURNING id, session_id, seq, role, sender, text, item, agent, run_id, user_id, token_count,
              metadata, created_at
)
SELECT row_to_json(a)::text AS added FROM added a ORDER BY a.seq
