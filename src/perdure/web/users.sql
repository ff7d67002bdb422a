-- name: has_run
SELECT EXISTS (SELECT FROM perdure.runs
               WHERE id = %(id)s AND tenant_id = %(tenant_id)s AND user_id = %(user_id)s) AS found

-- name: has_session
SELECT EXISTS (SELECT FROM perdure.sessions
               WHERE id = %(id)s AND tenant_id = %(tenant_id)s AND user_id = %(user_id)s
                 AND deleted_at IS NULL) AS found

-- Of their sessions, branches of others among them, or of their runs.
-- name: has_item
SELECT EXISTS (
    SELECT FROM perdure.session_items i
    JOIN perdure.sessions holder ON holder.id = i.session_id
    JOIN perdure.sessions s ON s.root_session_id = holder.root_session_id
    WHERE i.id = %(id)s AND i.tenant_id = %(tenant_id)s AND s.user_id = %(user_id)s
      AND s.deleted_at IS NULL
    UNION ALL
    SELECT FROM perdure.run_items i JOIN perdure.runs r ON r.id = i.run_id
    WHERE i.id = %(id)s AND i.tenant_id = %(tenant_id)s AND r.user_id = %(user_id)s) AS found
