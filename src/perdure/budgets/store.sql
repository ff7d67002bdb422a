-- How budgets stand: with what is spent in the period it is now. One of the following follows.
-- name: select_budgets
SELECT (to_jsonb(b) || jsonb_build_object(
           'starts_at', nullif(perdure.budget_starts_at(b.period), '-infinity'),
           'ends_at', CASE b.period WHEN 'month'
                      THEN date_trunc('month', now(), 'UTC') + interval '1 month' END,
           'cost_usd', coalesce(p.cost_usd, b.cost_usd)::text,
           'total_tokens', coalesce(p.total_tokens, b.total_tokens),
           'raised', num_nonnulls(p.cost_usd, p.total_tokens) > 0,
           'spent_usd', coalesce(p.spent_usd, 0)::text,
           'spent_tokens', coalesce(p.spent_tokens, 0),
           'unpriced_requests', coalesce(p.unpriced_requests, 0),
           'reserved_usd', x.usd::text, 'reserved_tokens', x.tokens))::text AS budget
FROM perdure.budgets b
LEFT JOIN perdure.budget_periods p
       ON p.budget_id = b.id AND p.starts_at = perdure.budget_starts_at(b.period)
LEFT JOIN LATERAL (
    SELECT coalesce(sum(r.cost_usd), 0) AS usd, coalesce(sum(r.total_tokens), 0) AS tokens
    FROM perdure.budget_reservations r WHERE r.budget_id = b.id) x ON true

-- name: one_budget
WHERE b.tenant_id = %(tenant_id)s AND b.id = %(id)s

-- name: page_of_budgets
WHERE b.tenant_id = %(tenant_id)s AND b.scope <> 'run'
  AND (%(scope)s::text IS NULL OR b.scope = %(scope)s)
  AND (%(subject)s::text IS NULL OR b.subject = %(subject)s)
  AND (%(session_id)s::uuid IS NULL OR b.session_id = %(session_id)s)
  AND (%(after)s::uuid IS NULL OR b.id /*beyond*/ < %(after)s)
ORDER BY b.id /*order*/ DESC
LIMIT %(fetch)s

-- name: insert_budget
INSERT INTO perdure.budgets (
    id, tenant_id, scope, session_id, subject, period, name, cost_usd, total_tokens)
SELECT %(id)s, %(tenant_id)s, %(scope)s, %(session_id)s, %(subject)s, %(period)s, %(name)s,
       %(cost_usd)s, %(total_tokens)s
WHERE %(session_id)s::uuid IS NULL OR EXISTS (
    SELECT FROM perdure.sessions s
    WHERE s.id = %(session_id)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL)
ON CONFLICT DO NOTHING
RETURNING id, perdure.recount_budget(id)

-- name: find_session
SELECT FROM perdure.sessions
WHERE id = %(session_id)s AND tenant_id = %(tenant_id)s AND deleted_at IS NULL

-- name: recount
SELECT perdure.recount_budget(%(id)s)

-- What a decision had raised it to for this period is over: what is said now holds.
-- name: change_budget
WITH changed AS (
    UPDATE perdure.budgets
    SET name = coalesce(%(name)s, name),
        cost_usd = CASE WHEN %(limited)s THEN %(cost_usd)s::numeric ELSE cost_usd END,
        total_tokens = CASE WHEN %(limited)s THEN %(total_tokens)s::bigint ELSE total_tokens END,
        updated_at = now()
    WHERE tenant_id = %(tenant_id)s AND id = %(id)s
    RETURNING id
)
UPDATE perdure.budget_periods p SET cost_usd = NULL, total_tokens = NULL
FROM changed c WHERE p.budget_id = c.id AND %(limited)s
RETURNING pg_notify('perdure_budgets', '')

-- name: delete_budget
DELETE FROM perdure.budgets WHERE tenant_id = %(tenant_id)s AND id = %(id)s
RETURNING pg_notify('perdure_budgets', '')
