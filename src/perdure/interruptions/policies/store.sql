-- What a process remembers of a tenant: all its policies and the revision they are of, in one look.
-- name: standing
SELECT t.policies_revision AS revision,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('id', p.id, 'definition', p.definition)
                                  ORDER BY p.position, p.id), '[]')::text
          FROM perdure.policies p
         WHERE p.tenant_id = t.id AND p.deleted_at IS NULL) AS policies
  FROM perdure.tenants t
 WHERE t.id = %(tenant_id)s

-- Every change begins here: it locks the tenant's row, so that changes come one after the other,
-- and tells the workers when it commits.
-- name: change
WITH changed AS (
    UPDATE perdure.tenants SET policies_revision = policies_revision + 1
     WHERE id = %(tenant_id)s
    RETURNING id, policies_revision
)
SELECT pg_notify('perdure_policies', id::text || ':' || policies_revision) FROM changed

-- What stands at a place that is taken, and all behind it, moves back by one.
-- name: make_room
UPDATE perdure.policies SET position = position + 1
 WHERE tenant_id = %(tenant_id)s AND deleted_at IS NULL AND id IS DISTINCT FROM %(id)s::uuid
   AND position >= %(position)s
   AND EXISTS (SELECT FROM perdure.policies p
                WHERE p.tenant_id = %(tenant_id)s AND p.deleted_at IS NULL
                  AND p.id IS DISTINCT FROM %(id)s::uuid AND p.position = %(position)s)

-- name: insert_policy
INSERT INTO perdure.policies (id, tenant_id, position, definition, created_by)
VALUES (%(id)s, %(tenant_id)s,
        coalesce(%(position)s::int,
                 (SELECT coalesce(max(position) + 1, 0) FROM perdure.policies
                   WHERE tenant_id = %(tenant_id)s AND deleted_at IS NULL)),
        %(definition)s::jsonb, %(created_by)s::jsonb)
RETURNING to_jsonb(policies)::text AS policy

-- name: count_policies
SELECT count(*) AS policies FROM perdure.policies
 WHERE tenant_id = %(tenant_id)s AND deleted_at IS NULL

-- name: get_policy
SELECT to_jsonb(p)::text AS policy FROM perdure.policies p
 WHERE p.tenant_id = %(tenant_id)s AND p.id = %(id)s AND p.deleted_at IS NULL

-- name: list_policies
SELECT to_jsonb(p)::text AS policy
FROM perdure.policies p
WHERE p.tenant_id = %(tenant_id)s AND p.deleted_at IS NULL
  AND (%(after)s::uuid IS NULL OR (p.position, p.id) /*beyond*/ < (
       SELECT one.position, one.id FROM perdure.policies one
       WHERE one.tenant_id = %(tenant_id)s AND one.id = %(after)s))
ORDER BY p.position /*order*/ DESC, p.id /*order*/ DESC
LIMIT %(fetch)s

-- name: update_policy
UPDATE perdure.policies
   SET definition = %(definition)s::jsonb, position = coalesce(%(position)s::int, position),
       updated_at = now()
 WHERE tenant_id = %(tenant_id)s AND id = %(id)s AND deleted_at IS NULL
RETURNING to_jsonb(policies)::text AS policy

-- name: delete_policy
UPDATE perdure.policies SET deleted_at = now(), updated_at = now()
 WHERE tenant_id = %(tenant_id)s AND id = %(id)s AND deleted_at IS NULL
RETURNING id
