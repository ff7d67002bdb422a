-- A day is closed an hour after its end: what was written on it has long been committed, or its
-- writer was taken over and is refused. In a transaction with `close`: who deletes runs meanwhile is
-- waited for, and `close` sees what that left.
-- name: due
SELECT closed_to AS day FROM perdure.usage_closing
 WHERE closed_to < ((now() - interval '1 hour') AT TIME ZONE 'UTC')::date
   FOR UPDATE

-- name: close
WITH used AS (
    SELECT u.tenant_id, u.agent, u.model, r.user_id, sum(u.requests) AS requests,
           coalesce(sum(u.requests) FILTER (WHERE u.cost_usd IS NULL), 0) AS unpriced_requests,
           sum(u.input_tokens) AS input_tokens, sum(u.cached_input_tokens) AS cached_input_tokens,
           sum(u.cache_write_tokens) AS cache_write_tokens, sum(u.output_tokens) AS output_tokens,
           sum(u.reasoning_tokens) AS reasoning_tokens, sum(u.total_tokens) AS total_tokens,
           coalesce(sum(u.cost_usd), 0) AS cost_usd
      FROM perdure.request_usage_entries u
      JOIN perdure.runs r ON r.id = u.run_id
     WHERE u.created_at >= %(day)s::date::timestamp AT TIME ZONE 'UTC'
       AND u.created_at < (%(day)s::date + 1)::timestamp AT TIME ZONE 'UTC'
     GROUP BY u.tenant_id, u.agent, u.model, r.user_id
), summed AS (
    -- Beside what runs of that day left that were deleted before.
    INSERT INTO perdure.usage_daily AS d (
           tenant_id, day, agent, model, user_id, requests, unpriced_requests, input_tokens,
           cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, total_tokens,
           cost_usd)
    SELECT tenant_id, %(day)s::date, agent, model, user_id, requests, unpriced_requests,
           input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
           total_tokens, cost_usd
      FROM used
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
)
UPDATE perdure.usage_closing SET closed_to = %(day)s::date + 1
