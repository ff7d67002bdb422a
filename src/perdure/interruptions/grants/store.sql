-- name: read_for_grant
SELECT i.type, i.required, i.tool::text AS tool, r.user_id, r.session_id,
       coalesce((i.rules ->> 'requester_may_decide')::boolean, true) AS requester_may_decide
FROM perdure.interruptions i
JOIN perdure.runs r ON r.id = i.run_id
WHERE i.run_id = %(run_id)s AND i.id = %(interruption_id)s

-- Nothing is given, and no row comes back, when the end does not lie within the coming year.
-- name: give
WITH given AS (
    INSERT INTO perdure.grants (
        id, tenant_id, agent, tool, schema_digest, scope, scope_id, arguments_digest, conditions,
        until, granted_by, run_id, interruption_id, decision_id)
    SELECT %(id)s, i.tenant_id, i.agent, i.tool ->> 'name', %(schema_digest)s,
           %(scope)s::text, CASE %(scope)s::text WHEN 'run' THEN i.run_id::text WHEN 'user' THEN r.user_id
                          WHEN 'session' THEN r.session_id::text ELSE i.agent END,
           %(arguments_digest)s, %(conditions)s::jsonb, u.until, %(by)s::jsonb, i.run_id, i.id,
           %(decision_id)s
    FROM perdure.interruptions i
    JOIN perdure.runs r ON r.id = i.run_id,
         (SELECT coalesce(%(until)s::timestamptz,
                          now() + make_interval(secs => %(seconds)s)) AS until) u
    WHERE i.run_id = %(run_id)s AND i.id = %(interruption_id)s
      AND u.until > now() AND u.until <= now() + make_interval(secs => %(longest)s)
    RETURNING id
)
UPDATE perdure.decisions d
SET grant_id = given.id
FROM given
WHERE d.run_id = %(run_id)s AND d.id = %(decision_id)s
RETURNING d.grant_id

-- Living grants that fit what is asked in all but their conditions; those for the very arguments
-- first. What needs more than one person, or another than who asked for it, is not answered
-- beforehand; in a run that asks first only what was given for it or its session is.
-- name: fitting
SELECT a.id AS interruption_id, g.id AS grant_id, g.conditions::text AS conditions,
       g.granted_by::text AS granted_by, (i.rules -> 'deciders')::text AS deciders
FROM perdure.runs r
CROSS JOIN jsonb_to_recordset(%(asked)s::jsonb) AS a(
    id uuid, agent text, tool text, schema_digest text, arguments_digest text)
JOIN perdure.interruptions i ON i.run_id = r.id AND i.id = a.id
     AND i.status = 'pending' AND i.type = 'tool_approval' AND i.required = 1
     AND coalesce((i.rules ->> 'requester_may_decide')::boolean, true)
JOIN perdure.grants g ON g.tenant_id = r.tenant_id
     AND (g.scope, g.scope_id) IN (('run', r.id::text), ('session', r.session_id::text),
                               ('user', r.user_id), ('agent', a.agent))
     AND g.agent = a.agent AND g.tool = a.tool AND g.schema_digest = a.schema_digest
     AND (g.arguments_digest = a.arguments_digest OR g.conditions IS NOT NULL)
     AND g.revoked_at IS NULL AND g.until > clock_timestamp()
     AND (r.tools = 'run' OR g.scope IN ('run', 'session'))
WHERE r.id = %(run_id)s
ORDER BY i.ordinal, i.id, g.conditions IS NOT NULL, g.id

-- The grant is locked so that a revocation waits for this transaction, or this for it: a revocation
-- that was first is seen here, and no row comes back. FOR KEY SHARE would not wait for one.
-- name: use
WITH living AS (
    SELECT id
    FROM perdure.grants
    WHERE id = %(grant_id)s AND revoked_at IS NULL AND until > clock_timestamp()
    FOR SHARE
)
INSERT INTO perdure.grant_uses (id, run_id, tenant_id, grant_id, interruption_id, tool_call_id)
SELECT %(id)s, i.run_id, i.tenant_id, living.id, i.id, i.tool_call_id
FROM living, perdure.interruptions i
WHERE i.run_id = %(run_id)s AND i.id = %(interruption_id)s
RETURNING grant_id

-- Locked first, so that the moment is one after every use that was before it.
-- name: revoke
WITH living AS (
    SELECT id FROM perdure.grants
    WHERE id = %(id)s AND tenant_id = %(tenant_id)s AND revoked_at IS NULL
    FOR NO KEY UPDATE
)
UPDATE perdure.grants g
SET revoked_at = clock_timestamp(), revoked_by = %(by)s::jsonb
FROM living
WHERE g.id = living.id
RETURNING g.id

-- `one_grant` or `page_of_grants` follows.
-- name: select_grants
SELECT (to_jsonb(g) || jsonb_build_object(
           'active', g.revoked_at IS NULL AND g.until > now(),
           'arguments', (SELECT i.tool -> 'arguments'
                         FROM perdure.interruptions i
                         JOIN perdure.runs r ON r.id = i.run_id AND r.deleted_at IS NULL
                         WHERE i.run_id = g.run_id AND i.id = g.interruption_id
                           AND g.conditions IS NULL)))::text AS granted
FROM perdure.grants g

-- name: one_grant
WHERE g.tenant_id = %(tenant_id)s AND g.id = %(id)s

-- name: page_of_grants
WHERE g.tenant_id = %(tenant_id)s
  AND (g.revoked_at IS NULL AND g.until > now()) = %(active)s
  AND (%(agent)s::text IS NULL OR g.agent = %(agent)s)
  AND (%(tool)s::text IS NULL OR g.tool = %(tool)s)
  AND (%(run_id)s::uuid IS NULL OR g.run_id = %(run_id)s)
  AND (%(scope)s::text IS NULL OR g.scope = %(scope)s)
  AND (%(after)s::uuid IS NULL OR g.id /*beyond*/ < %(after)s)
ORDER BY g.id /*order*/ DESC
LIMIT %(fetch)s

-- name: count_uses
SELECT count(*) AS uses, max(created_at) AS last_used_at
FROM perdure.grant_uses WHERE grant_id = %(id)s

-- name: page_of_uses
SELECT (to_jsonb(u) || jsonb_build_object('tool', i.tool))::text AS used
FROM perdure.grant_uses u
JOIN perdure.runs r ON r.id = u.run_id AND r.deleted_at IS NULL
JOIN perdure.interruptions i ON i.run_id = u.run_id AND i.id = u.interruption_id
WHERE u.grant_id = %(id)s
  AND (%(after)s::uuid IS NULL OR u.id /*beyond*/ < %(after)s)
ORDER BY u.id /*order*/ DESC
LIMIT %(fetch)s
