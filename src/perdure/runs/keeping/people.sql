-- A person's sessions with all their branches, and the runs that are theirs or were in there; held
-- in the order everybody holds them in. Sessions of nobody in which nobody else spoke are theirs.
-- name: sessions
WITH RECURSIVE theirs AS (
    SELECT s.id FROM perdure.sessions s
     WHERE s.tenant_id = %(tenant_id)s
       AND (s.user_id = %(user_id)s OR s.id = ANY (%(also)s)
            OR (s.user_id IS NULL
                AND EXISTS (SELECT FROM perdure.runs r
                             WHERE r.session_id = s.id AND r.user_id = %(user_id)s)
                AND NOT EXISTS (SELECT FROM perdure.runs r
                                 WHERE r.session_id = s.id AND r.user_id IS DISTINCT FROM %(user_id)s)
                AND NOT EXISTS (SELECT FROM perdure.session_items i
                                  LEFT JOIN perdure.runs r ON r.id = i.run_id
                                 WHERE i.session_id = s.id
                                   AND coalesce(r.user_id, i.user_id) IS DISTINCT FROM %(user_id)s)))
), tree AS (
    SELECT id FROM theirs
    UNION
    SELECT s.id FROM tree t JOIN perdure.sessions s ON s.parent_session_id = t.id
)
SELECT s.id, s.parent_session_id IS NULL OR s.parent_session_id NOT IN (SELECT id FROM tree) AS top
  FROM perdure.sessions s JOIN tree ON tree.id = s.id
 ORDER BY s.id

-- name: hold_runs
SELECT r.id, r.tenant_id, r.status, r.user_id IS DISTINCT FROM %(user_id)s AS of_others
  FROM perdure.runs r
 WHERE r.tenant_id = %(tenant_id)s
   AND (r.user_id = %(user_id)s OR r.session_id = ANY (%(sessions)s))
 ORDER BY r.id
   FOR UPDATE

-- name: hold_sessions
SELECT id FROM perdure.sessions WHERE id = ANY (%(sessions)s) ORDER BY id FOR UPDATE

-- name: started_meanwhile
SELECT EXISTS (SELECT FROM perdure.runs r
                WHERE r.tenant_id = %(tenant_id)s AND r.id <> ALL (%(runs)s)
                  AND (r.user_id = %(user_id)s OR r.session_id = ANY (%(sessions)s))) AS found

-- Sessions of others where they spoke, with the runs of others there that may quote them.
-- name: shared
SELECT s.id, (SELECT count(*) FROM perdure.runs r
               WHERE r.session_id = s.id AND r.id <> ALL (%(runs)s))::int AS others
  FROM perdure.sessions s
 WHERE s.tenant_id = %(tenant_id)s AND s.id <> ALL (%(sessions)s)
   AND s.id IN (SELECT r.session_id FROM perdure.runs r WHERE r.id = ANY (%(runs)s)
                UNION
                SELECT i.session_id FROM perdure.session_items i
                 WHERE i.tenant_id = %(tenant_id)s
                   AND (i.user_id = %(user_id)s OR i.run_id = ANY (%(runs)s)))
 ORDER BY s.id

-- name: unfinished
SELECT r.id FROM perdure.runs r
 WHERE r.tenant_id = %(tenant_id)s
   AND (r.user_id = %(user_id)s OR r.session_id = ANY (%(sessions)s))
   AND r.status IN ('queued', 'running', 'interrupted') AND r.deleted_at IS NULL
 ORDER BY r.id

-- name: count_sessions
SELECT (SELECT count(*) FROM perdure.session_items WHERE session_id = ANY (%(sessions)s))::int AS items,
       (SELECT count(*) FROM perdure.session_holes WHERE session_id = ANY (%(sessions)s))::int AS holes

-- What is theirs beside runs and sessions, a statement each; then where they are named in what stays.
-- name: delete_items
DELETE FROM perdure.session_items i
 WHERE i.tenant_id = %(tenant_id)s AND i.session_id <> ALL (%(sessions)s)
   AND (i.user_id = %(user_id)s OR i.run_id = ANY (%(runs)s))

-- name: delete_feedback
DELETE FROM perdure.feedback
 WHERE tenant_id = %(tenant_id)s AND user_id = %(user_id)s AND (run_id IS NULL OR run_id <> ALL (%(runs)s))

-- name: delete_user_sessions
DELETE FROM perdure.user_sessions WHERE tenant_id = %(tenant_id)s AND user_id = %(user_id)s

-- name: delete_budgets
DELETE FROM perdure.budgets
 WHERE tenant_id = %(tenant_id)s AND scope = 'user' AND subject = %(user_id)s

-- name: delete_grants
DELETE FROM perdure.grants
 WHERE tenant_id = %(tenant_id)s
   AND (run_id = ANY (%(runs)s) OR scope = 'user' AND scope_id = %(user_id)s
        OR scope = 'session' AND scope_id = ANY (%(sessions)s::uuid[]::text[]))

-- name: delete_links
DELETE FROM perdure.decision_links WHERE tenant_id = %(tenant_id)s AND subject = %(user_id)s

-- Answers that are kept for who asks again.
-- name: delete_answers
DELETE FROM perdure.idempotency_keys k
 USING (SELECT unnest(%(runs)s::uuid[]::text[] || %(sessions)s::uuid[]::text[]) AS word
        UNION SELECT %(quoted)s UNION SELECT %(ascii)s) w
 WHERE k.tenant_id = %(tenant_id)s
   AND (strpos(k.route, w.word) > 0 OR k.key = %(user_id)s OR strpos(k.headers::text, w.word) > 0
        OR position(convert_to(w.word, 'UTF8') IN k.body) > 0)

-- What they decided on the runs of others stands; who they are and what they wrote to it does not.
-- Events first: they are found by the rows beside them.
-- name: strip_events
UPDATE perdure.run_events
   SET data = jsonb_set(data, '{by}', data -> 'by' || '{"id": null, "subject": null}')
 WHERE data -> 'by' ->> 'subject' = %(user_id)s
   AND run_id IN (SELECT run_id FROM perdure.decisions
                   WHERE tenant_id = %(tenant_id)s AND by_subject = %(user_id)s
                   UNION
                  SELECT run_id FROM perdure.run_inputs
                   WHERE tenant_id = %(tenant_id)s AND added_by_subject = %(user_id)s)

-- name: strip_decisions
UPDATE perdure.decisions SET by_id = NULL, by_subject = NULL, message = NULL
 WHERE tenant_id = %(tenant_id)s
   AND (by_subject = %(user_id)s OR by_type || ':' || by_id = %(user_id)s)

-- name: strip_inputs
UPDATE perdure.run_inputs SET added_by_id = NULL, added_by_subject = NULL
 WHERE tenant_id = %(tenant_id)s AND added_by_subject = %(user_id)s

-- A key of theirs is worthless from now on.
-- name: strip_keys
UPDATE perdure.api_keys SET subject = NULL, name = '', revoked_at = coalesce(revoked_at, now())
 WHERE tenant_id = %(tenant_id)s AND subject = %(user_id)s

-- {table} and {column} are put in: who made or changed something.
-- name: strip_maker
UPDATE perdure.{table} SET {column} = {column} || '{{"id": null, "subject": null}}'
 WHERE tenant_id = %(tenant_id)s AND {column} ->> 'subject' = %(user_id)s

-- name: makers
SELECT c.table_name::text AS name, c.column_name::text AS column_name
  FROM information_schema.columns c
  JOIN information_schema.columns t USING (table_schema, table_name)
 WHERE c.table_schema = 'perdure' AND c.data_type = 'jsonb' AND t.column_name = 'tenant_id'
   AND right(c.column_name, 3) = '_by'
 ORDER BY 1, 2

-- {table}: one with rows of users that is none of those above.
-- name: delete_of_user
DELETE FROM perdure.{table} WHERE tenant_id = %(tenant_id)s AND user_id = %(user_id)s

-- name: tables_of_users
SELECT c.relname::text AS name
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
 WHERE c.relnamespace = 'perdure'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
   AND a.attname = 'user_id' AND NOT a.attisdropped
   AND c.relname <> ALL (%(but)s)
 ORDER BY c.relname

-- name: keeps_usage
SELECT to_regclass('perdure.usage_daily') IS NOT NULL AS present

-- Sums of usage stay, as nobody's in particular.
-- name: give_away_usage
WITH gone AS (
    DELETE FROM perdure.usage_daily WHERE tenant_id = %(tenant_id)s AND user_id = %(user_id)s
    RETURNING *
)
INSERT INTO perdure.usage_daily AS d
SELECT tenant_id, day, agent, model, NULL, requests, unpriced_requests, input_tokens,
       cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, total_tokens, cost_usd
  FROM gone ORDER BY day, agent, model
    ON CONFLICT ON CONSTRAINT one_row_a_day DO UPDATE SET
       requests = d.requests + excluded.requests,
       unpriced_requests = d.unpriced_requests + excluded.unpriced_requests,
       input_tokens = d.input_tokens + excluded.input_tokens,
       cached_input_tokens = d.cached_input_tokens + excluded.cached_input_tokens,
       cache_write_tokens = d.cache_write_tokens + excluded.cache_write_tokens,
       output_tokens = d.output_tokens + excluded.output_tokens,
       reasoning_tokens = d.reasoning_tokens + excluded.reasoning_tokens,
       total_tokens = d.total_tokens + excluded.total_tokens,
       cost_usd = d.cost_usd + excluded.cost_usd

-- name: pseudonym
SELECT encode(sha256(audit_salt || convert_to(%(user_id)s, 'UTF8')), 'hex') AS pseudonym
  FROM perdure.tenants WHERE id = %(tenant_id)s
