-- name: find
SELECT s.id, s.user_id, s.active_run_id
  FROM perdure.sessions s
 WHERE s.id = %(session_id)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL

-- Who has the turn, held: nobody takes it or gives it back before this transaction ends.
-- name: lock
SELECT active_run_id FROM perdure.sessions WHERE id = %(session_id)s FOR NO KEY UPDATE

-- Its runs that have not ended, all held before the first one is cancelled: that locks the session,
-- after which no run may be waited for.
-- name: unfinished
SELECT id FROM perdure.runs
 WHERE session_id = %(session_id)s AND status IN ('queued', 'running', 'interrupted')
   AND deleted_at IS NULL
 ORDER BY id
   FOR NO KEY UPDATE
