-- Which moment of its session a run is given, once the first execution has said.
-- name: hold
SELECT session_upto, session_version, session_prompt FROM perdure.runs
 WHERE id = %(run_id)s FOR NO KEY UPDATE

-- The session's row is held: what is removed later finds this run reading.
-- name: keep_moment
UPDATE perdure.runs r
   SET session_upto = s.last_seq, session_version = s.version, session_prompt = s.system_prompt
  FROM (SELECT last_seq, version, system_prompt FROM perdure.sessions
         WHERE id = %(session_id)s FOR NO KEY UPDATE) s
 WHERE r.id = %(run_id)s
RETURNING r.session_upto, r.session_version, r.session_prompt
