-- name: reserve
SELECT perdure.reserve_budgets(
           %(run_id)s, %(segment)s, %(epoch)s, %(agent)s, %(reply_id)s, %(tokens)s,
           %(cost_usd)s::numeric, %(own_tokens)s::bigint, %(own_cost_usd)s::numeric)::text AS said

-- name: release
DELETE FROM perdure.budget_reservations WHERE reply_id = %(reply_id)s
RETURNING pg_notify('perdure_budgets', '')
