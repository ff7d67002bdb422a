-- name: server
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_number,
       quote_ident(current_database()) AS database,
       current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       host(inet_client_addr()) AS client,
       coalesce(inet_client_addr() = inet_server_addr()
                OR host(inet_client_addr()) ~ '^(127\.|::1$)', true) AS client_is_here,
       current_setting('listen_addresses') ~ '^\s*(localhost|127\.[\d.]+|::1|,|\s)*$' AS listens_here_only,
       current_setting('tcp_keepalives_idle')::int AS tcp_keepalives_idle,
       current_setting('tcp_keepalives_interval')::int AS tcp_keepalives_interval,
       current_setting('tcp_keepalives_count')::int AS tcp_keepalives_count,
       pg_backend_pid() AS backend_pid,
       current_setting('max_connections')::int AS max_connections,
       least(current_setting('max_connections')::int
                 - current_setting('superuser_reserved_connections')::int
                 - coalesce(current_setting('reserved_connections', true), '0')::int,
             (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))
           AS most,
       (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL) AS used,
       (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) AS used_here

-- name: clock
SELECT clock_timestamp() AS now

-- Those of today: living ones whatever their age, the others of the last 24 hours.
-- name: executors
WITH held AS (
    SELECT executor_id, count(*)::int AS segments
      FROM perdure.segments
     WHERE status = 'running'
     GROUP BY executor_id
)
SELECT e.id,
       CASE WHEN e.stopped_at IS NOT NULL THEN 'stopped'
            WHEN e.lost_at IS NOT NULL THEN 'lost'
            WHEN coalesce(e.lease_until, e.renewed_at) < now() THEN 'expired'
            ELSE 'living' END AS state,
       extract(epoch FROM coalesce(e.lease_until, e.renewed_at) - now())::float8 AS seconds_left,
       coalesce(held.segments, 0) AS running
  FROM perdure.executors e LEFT JOIN held ON held.executor_id = e.id
 WHERE (e.stopped_at IS NULL AND e.lost_at IS NULL)
    OR coalesce(e.lost_at, e.stopped_at) > now() - interval '24 hours'
 ORDER BY e.started_at DESC

-- name: queue
SELECT count(*) FILTER (WHERE status = 'queued')::int AS queued,
       count(*) FILTER (WHERE status = 'running')::int AS running,
       count(*) FILTER (WHERE status = 'scheduled')::int AS scheduled,
       count(*) FILTER (WHERE status = 'scheduled'
                          AND due_at < now() - make_interval(secs => %(late)s))::int AS late,
       extract(epoch FROM now() - min(greatest(created_at, due_at))
                                      FILTER (WHERE status = 'queued'))::float8 AS oldest_seconds,
       extract(epoch FROM now() - min(due_at)
                                      FILTER (WHERE status = 'scheduled'))::float8 AS latest_seconds
  FROM perdure.segments
 WHERE status <> 'rested'

-- name: running
SELECT executor_id, count(*)::int AS segments
  FROM perdure.segments
 WHERE status = 'running'
 GROUP BY executor_id
 ORDER BY segments DESC, executor_id

-- name: sweeps
SELECT extract(epoch FROM now() - due_at)::float8 AS overdue_seconds FROM perdure.sweeps

-- name: repairs
SELECT kind, count(*)::int AS repairs,
       extract(epoch FROM now() - max(repaired_at))::float8 AS newest_seconds
  FROM perdure.repairs
 WHERE repaired_at > now() - interval '24 hours'
 GROUP BY kind

-- name: dying
SELECT run_id, seq, executions, stalled, alone_deaths, count(*) OVER ()::int AS total
  FROM perdure.segments
 WHERE status <> 'rested' AND (stalled > 0 OR alone_deaths > 0)
 ORDER BY alone_deaths DESC, stalled DESC
 LIMIT 10

-- name: quarantined
SELECT count(*)::int AS runs, (array_agg(id ORDER BY finished_at DESC))[1:3] AS newest
  FROM perdure.runs
 WHERE error_type = 'quarantined' AND deleted_at IS NULL

-- name: uncertain
SELECT count(*)::int AS effects,
       extract(epoch FROM now() - min(requested_at))::float8 AS oldest_seconds
  FROM perdure.interruptions
 WHERE status = 'pending' AND type = 'uncertain_effect'

-- name: keys
SELECT count(*)::int AS active FROM perdure.api_keys WHERE revoked_at IS NULL

-- name: audit
SELECT current_user::text AS role,
       (SELECT count(*) FROM perdure.tenants t
        CROSS JOIN LATERAL (SELECT s.mac FROM perdure.audit_seals s
                            WHERE s.tenant_id = t.id ORDER BY s.seq DESC LIMIT 1) h
        WHERE h.mac IS NULL)::int AS unsigned


-- name: webhooks
SELECT (SELECT count(*)::int FROM perdure.webhooks WHERE disabled_at IS NULL) AS enabled,
       (SELECT count(*)::int FROM perdure.webhooks
         WHERE disabled_reason <> 'It was disabled by hand.') AS gone,
       (SELECT count(*)::int FROM perdure.webhooks
         WHERE secret LIKE 'plain.%%' OR old_secret LIKE 'plain.%%' AND old_secret_until > now()) AS plain,
       (SELECT count(*)::int FROM perdure.webhook_deliveries
         WHERE status = 'failed' AND finished_at > now() - interval '24 hours') AS failed,
       (SELECT greatest(0, extract(epoch FROM now() - min(d.due_at)))::float8
          FROM perdure.webhooks w
         CROSS JOIN LATERAL (
               SELECT o.due_at FROM perdure.webhook_deliveries o
                WHERE o.webhook_id = w.id AND o.status = 'pending' AND o.queued_at IS NULL
                ORDER BY o.due_at LIMIT 1) d
         WHERE w.disabled_at IS NULL) AS late_seconds
