-- What was used in a period, from `usage_daily` as far as its days are closed and whole, else from
-- the requests themselves. Both statements see one moment.

-- name: one_moment
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: period
SELECT coalesce(%(since)s::timestamptz,
                ((p.until - interval '30 days') AT TIME ZONE 'UTC')::date::timestamp AT TIME ZONE 'UTC')
           AS since,
       p.until, c.closed_to, now() AS now
  FROM (SELECT coalesce(%(until)s::timestamptz, now()) AS until) p
 CROSS JOIN perdure.usage_closing c

-- Planned anew each time: what is not grouped by costs nothing then.
-- name: usage
SELECT jsonb_build_object('day', x.day, 'agent', x.agent, 'model', x.model, 'user_id', x.user_id)::text
           AS groups,
       sum(x.requests)::text AS requests, sum(x.unpriced_requests)::text AS unpriced_requests,
       sum(x.input_tokens)::text AS input_tokens,
       sum(x.cached_input_tokens)::text AS cached_input_tokens,
       sum(x.cache_write_tokens)::text AS cache_write_tokens,
       sum(x.output_tokens)::text AS output_tokens,
       sum(x.reasoning_tokens)::text AS reasoning_tokens,
       sum(x.total_tokens)::text AS total_tokens,
       CASE WHEN sum(x.requests) > sum(x.unpriced_requests) OR sum(x.requests) = 0
            THEN sum(x.cost_usd)::text END AS cost_usd
  FROM (SELECT CASE WHEN 'day' = ANY (%(group_by)s::text[]) THEN d.day END AS day,
               CASE WHEN 'agent' = ANY (%(group_by)s::text[]) THEN d.agent END AS agent,
               CASE WHEN 'model' = ANY (%(group_by)s::text[]) THEN d.model END AS model,
               CASE WHEN 'user' = ANY (%(group_by)s::text[]) THEN d.user_id END AS user_id,
               d.requests, d.unpriced_requests, d.input_tokens, d.cached_input_tokens,
               d.cache_write_tokens, d.output_tokens, d.reasoning_tokens, d.total_tokens, d.cost_usd
          FROM perdure.usage_daily d
         WHERE d.tenant_id = %(tenant_id)s
           AND d.day >= %(first_day)s::date AND d.day < %(end_day)s::date
           AND (%(agent)s::text IS NULL OR d.agent = %(agent)s)
           AND (%(model)s::text IS NULL OR d.model = %(model)s)
           AND (%(user_id)s::text IS NULL OR d.user_id = %(user_id)s)
         UNION ALL
        SELECT CASE WHEN 'day' = ANY (%(group_by)s::text[])
                    THEN (u.created_at AT TIME ZONE 'UTC')::date END,
               CASE WHEN 'agent' = ANY (%(group_by)s::text[]) THEN u.agent END,
               CASE WHEN 'model' = ANY (%(group_by)s::text[]) THEN u.model END,
               CASE WHEN 'user' = ANY (%(group_by)s::text[]) THEN r.user_id END,
               u.requests, CASE WHEN u.cost_usd IS NULL THEN u.requests ELSE 0 END, u.input_tokens,
               u.cached_input_tokens, u.cache_write_tokens, u.output_tokens, u.reasoning_tokens,
               u.total_tokens, coalesce(u.cost_usd, 0)
          FROM perdure.request_usage_entries u
          LEFT JOIN perdure.runs r ON r.id = u.run_id
         WHERE u.tenant_id = %(tenant_id)s
           AND ((u.created_at >= %(open_from)s AND u.created_at < %(open_to)s)
                OR (u.created_at >= %(head_from)s AND u.created_at < %(head_to)s)
                OR (u.created_at >= %(tail_from)s AND u.created_at < %(tail_to)s))
           AND (%(agent)s::text IS NULL OR u.agent = %(agent)s)
           AND (%(model)s::text IS NULL OR u.model = %(model)s)
           AND (%(user_id)s::text IS NULL OR r.user_id = %(user_id)s)) x
 GROUP BY x.day, x.agent, x.model, x.user_id
 ORDER BY x.day, sum(x.cost_usd) DESC, sum(x.total_tokens) DESC, x.agent, x.model, x.user_id
 LIMIT %(most)s OFFSET %(offset)s
