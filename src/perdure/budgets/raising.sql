-- The budget in the period and with the limits that were shown.
-- name: stands
SELECT FROM perdure.budgets b
  LEFT JOIN perdure.budget_periods p ON p.budget_id = b.id AND p.starts_at = %(starts_at)s::timestamptz
 WHERE b.id = %(id)s AND b.tenant_id = %(tenant_id)s
   AND perdure.budget_starts_at(b.period) = %(starts_at)s::timestamptz
   AND coalesce(p.cost_usd, b.cost_usd) IS NOT DISTINCT FROM %(cost_usd)s::numeric
   AND coalesce(p.total_tokens, b.total_tokens) IS NOT DISTINCT FROM %(total_tokens)s::bigint

-- name: raise
UPDATE perdure.budget_periods p
   SET cost_usd = greatest(p.cost_usd, %(cost_usd)s::numeric),
       total_tokens = greatest(p.total_tokens, %(total_tokens)s::bigint),
       allows_unpriced = p.allows_unpriced OR %(allows_unpriced)s, updated_at = now()
  FROM perdure.budgets b
 WHERE b.id = %(id)s AND b.tenant_id = %(tenant_id)s
   AND p.budget_id = b.id AND p.starts_at = %(starts_at)s::timestamptz
RETURNING b.id, pg_notify('perdure_budgets', '')
