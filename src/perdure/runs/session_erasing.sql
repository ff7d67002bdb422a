-- A session and all its branches.
-- name: tree
WITH RECURSIVE tree AS (
    SELECT s.id FROM perdure.sessions s
    WHERE s.id = %(session_id)s AND s.tenant_id = %(tenant_id)s
      AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
    UNION ALL
    SELECT s.id FROM tree t JOIN perdure.sessions s ON s.parent_session_id = t.id
)

-- Behind `tree`: their runs, held, in the order everybody holds runs in.
-- name: hold_runs
SELECT r.id, r.session_id, r.status FROM perdure.runs r
WHERE r.session_id IN (SELECT id FROM tree)
ORDER BY r.id
FOR UPDATE

-- Behind `tree`: they themselves, held: no run of theirs starts any more.
-- name: hold_sessions
SELECT id FROM perdure.sessions WHERE id = ANY (ARRAY (SELECT id FROM tree)) ORDER BY id FOR UPDATE

-- Whether one just did.
-- name: others
SELECT EXISTS (SELECT FROM perdure.runs
               WHERE session_id = ANY (%(sessions)s) AND id <> ALL (%(runs)s)) AS found

-- name: delete_runs
WITH gone AS (DELETE FROM perdure.runs WHERE id = ANY (%(runs)s) RETURNING id)
SELECT pg_notify('perdure_events', id::text) FROM gone
