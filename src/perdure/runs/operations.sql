-- What narrows it and `page` follows, or `one`.
-- name: select
SELECT (to_jsonb(o) || jsonb_build_object(
           'session_id', r.session_id, 'user_id', r.user_id, 'call_id', t.call_id,
           'tool', t.tool, 'agent', t.agent))::text AS shown
FROM perdure.operations o
JOIN perdure.runs r ON r.id = o.run_id
JOIN perdure.tool_calls t ON t.run_id = o.run_id AND t.id = o.tool_call_id
WHERE o.tenant_id = %(tenant_id)s AND r.tenant_id = %(tenant_id)s AND r.deleted_at IS NULL

-- name: run_id
  AND o.run_id = %(run_id)s

-- name: session_id
  AND r.session_id = %(session_id)s

-- name: user_id
  AND r.user_id = %(user_id)s

-- name: target
  AND o.target = %(target)s

-- name: kind
  AND o.kind = %(kind)s

-- name: created_after
  AND o.created_at > %(created_after)s

-- name: created_before
  AND o.created_at < %(created_before)s

-- name: one
  AND o.id = %(id)s AND (%(user_id)s::text IS NULL OR r.user_id = %(user_id)s)

-- name: page
  AND (%(after)s::uuid IS NULL OR o.id /*beyond*/ < %(after)s)
ORDER BY o.id /*order*/ DESC
LIMIT %(fetch)s
