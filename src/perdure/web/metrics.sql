-- What a scrape shows, but for stuck runs. Nothing here reads finished or rested rows: each
-- part is answered by a partial index, or by a table that stays small.
-- name: scrape
WITH open AS (
    SELECT count(*) FILTER (WHERE status = 'scheduled') AS scheduled,
           count(*) FILTER (WHERE status = 'queued') AS queued,
           count(*) FILTER (WHERE status = 'running') AS running,
           count(*) FILTER (WHERE stalled >= 3 OR alone_deaths > 0) AS stalled,
           min(greatest(created_at, due_at)) FILTER (WHERE status = 'queued') AS oldest,
           min(due_at) FILTER (WHERE status = 'scheduled') AS due
      FROM perdure.segments
     WHERE status <> 'rested'
)
SELECT (SELECT coalesce(jsonb_object_agg(status, runs), '{}')
          FROM (SELECT status, count(*) AS runs FROM perdure.runs
                 WHERE status IN ('queued', 'running', 'interrupted') GROUP BY status) r) AS runs,
       jsonb_build_object('scheduled', scheduled, 'queued', queued, 'running', running) AS segments,
       stalled,
       greatest(0, extract(epoch FROM now() - oldest))::float8 AS queue_oldest_seconds,
       greatest(0, extract(epoch FROM now() - due))::float8 AS schedule_late_seconds,
       (SELECT coalesce(jsonb_object_agg(state, executors), '{}')
          FROM (SELECT CASE WHEN stopped_at IS NOT NULL THEN 'stopped'
                            WHEN lost_at IS NOT NULL THEN 'lost'
                            WHEN coalesce(lease_until, renewed_at) < now() THEN 'expired'
                            ELSE 'living' END AS state,
                       count(*) AS executors
                  FROM perdure.executors GROUP BY state) e) AS executors,
       (SELECT coalesce(jsonb_object_agg(kind, repairs), '{}')
          FROM (SELECT kind, sum(repairs) AS repairs
                  FROM (SELECT kind, count(*) AS repairs FROM perdure.repairs GROUP BY kind
                        UNION ALL SELECT kind, repairs FROM perdure.repairs_purged) k
                 GROUP BY kind) r) AS repairs,
       (SELECT coalesce(jsonb_object_agg(type, jsonb_build_object(
                   'waiting', waiting,
                   'oldest', greatest(0, extract(epoch FROM now() - oldest))::float8)), '{}')
          FROM (SELECT type, count(*) AS waiting, min(requested_at) AS oldest
                  FROM perdure.interruptions WHERE status = 'pending' GROUP BY type) w) AS waiting,
       (SELECT count(*) FROM perdure.runs WHERE error_type = 'quarantined') AS quarantined,
       jsonb_build_object(
           'pending', (SELECT count(*) FROM perdure.webhook_deliveries WHERE status = 'pending'),
           'failed', (SELECT count(*) FROM perdure.webhook_deliveries WHERE status = 'failed'))
           AS deliveries
  FROM open

-- What models were ever asked for: of days that are closed, and of runs that are deleted, the sums
-- that are kept, of later ones the requests. One snapshot: a day that is being closed counts once.
-- name: spent
WITH kept AS (
    SELECT sum(requests) AS requests, sum(unpriced_requests) AS unpriced,
           sum(input_tokens) AS input, sum(cached_input_tokens) AS cached,
           sum(output_tokens) AS output, sum(cost_usd) AS cost
      FROM perdure.usage_daily
), fresh AS (
    SELECT sum(requests) AS requests, sum(requests) FILTER (WHERE cost_usd IS NULL) AS unpriced,
           sum(input_tokens) AS input, sum(cached_input_tokens) AS cached,
           sum(output_tokens) AS output, sum(cost_usd) AS cost
      FROM perdure.request_usage_entries
     WHERE created_at >= (SELECT closed_to::timestamp AT TIME ZONE 'UTC'
                            FROM perdure.usage_closing)
)
SELECT sum(requests)::float8 AS requests, sum(unpriced)::float8 AS unpriced_requests,
       sum(input)::float8 AS input_tokens, sum(cached)::float8 AS cached_input_tokens,
       sum(output)::float8 AS output_tokens, sum(cost)::float8 AS cost_usd
  FROM (SELECT * FROM kept UNION ALL SELECT * FROM fresh) s
