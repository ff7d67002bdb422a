-- States kept by key. `user_id` may be null: nobody's.

-- Saves of one key are one after the other, so that each retires the one before.
-- name: lock
SELECT pg_advisory_xact_lock(hashtextextended(
           'perdure.kept_states ' || jsonb_build_array(
               %(tenant_id)s::uuid, %(key)s::text, %(user_id)s::text)::text, 0))

-- name: retire
UPDATE perdure.kept_states SET is_active = false
 WHERE tenant_id = %(tenant_id)s AND key = %(key)s
   AND user_id IS NOT DISTINCT FROM %(user_id)s AND is_active

-- name: insert
INSERT INTO perdure.kept_states (
       id, tenant_id, user_id, key, agent, state_type, schema_version, sdk_version, current_agent,
       turn, state, size_bytes)
VALUES (%(id)s, %(tenant_id)s, %(user_id)s, %(key)s, %(agent)s, %(state_type)s,
        %(schema_version)s, %(sdk_version)s, %(current_agent)s, %(turn)s, %(state)s::jsonb,
        %(size_bytes)s)

-- name: prune
DELETE FROM perdure.kept_states
 WHERE id IN (SELECT id FROM perdure.kept_states
               WHERE tenant_id = %(tenant_id)s AND key = %(key)s
                 AND user_id IS NOT DISTINCT FROM %(user_id)s AND NOT is_active
               ORDER BY id DESC OFFSET %(keep)s)

-- name: active
SELECT id, agent, state_type, schema_version, sdk_version, current_agent, turn, size_bytes,
       created_at, resumed_at, CASE WHEN %(whole)s THEN state::text END AS state
  FROM perdure.kept_states
 WHERE tenant_id = %(tenant_id)s AND key = %(key)s
   AND user_id IS NOT DISTINCT FROM %(user_id)s AND is_active

-- name: mark_resumed
UPDATE perdure.kept_states SET resumed_at = now()
 WHERE tenant_id = %(tenant_id)s AND key = %(key)s
   AND user_id IS NOT DISTINCT FROM %(user_id)s AND is_active AND resumed_at IS NULL
   AND (%(id)s::uuid IS NULL OR id = %(id)s)

-- name: clear
DELETE FROM perdure.kept_states
 WHERE tenant_id = %(tenant_id)s AND key = %(key)s AND user_id IS NOT DISTINCT FROM %(user_id)s
