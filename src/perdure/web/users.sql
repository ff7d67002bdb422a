-- name: has_run
SELECT EXISTS (SELECT FROM perdure.runs
               WHERE id = %(id)s AND tenant_id = %(tenant_id)s AND user_id = %(user_id)s) AS found

-- name: has_session
SELECT EXISTS (SELECT FROM perdure.sessions
               WHERE id = %(id)s AND tenant_id = %(tenant_id)s AND user_id = %(user_id)s
                 AND deleted_at IS NULL) AS found
