-- name: approvals
SELECT to_jsonb(d)::text AS recorded,
       coalesce(d.executes, d.digest) = %(executes)s AS same
FROM perdure.decisions d
WHERE d.run_id = %(run_id)s AND d.interruption_id = %(id)s AND d.decision = 'approve'
ORDER BY d.decided_at, d.id
