-- Rows of many runs, as weeks of work leave them: SQL alone, so that a million take minutes. Runs
-- of 90 days, the newest last, nine in ten of one tenant. One in twenty failed, one in forty was
-- cancelled, one in 500 waits for a person; the newest hundredth is queued or running.
-- Each has its segment, events and, once it rests, its state; one in `whole` has all that belongs
-- to a run beside it.

-- name: made
CREATE TEMP TABLE made AS
SELECT n, n %% %(whole)s = 0 AS whole, at, status, status IN ('completed', 'failed', 'cancelled') AS ended,
       (left(perdure_read.id_at(at)::text, 24) || lpad(to_hex(n), 12, '0'))::uuid AS id,
       CASE WHEN n %% 10 = 9 THEN ('01900000-0000-7000-8000-00000000000' || n %% 3)::uuid
            ELSE '00000000-0000-7000-8000-000000000000' END AS tenant_id,
       'agent' || n %% 20 AS agent,
       ('01910000-0000-7000-8000-0000000000' || lpad((n %% 20)::text, 2, '0'))::uuid AS agent_id,
       CASE WHEN n %% 3 > 0 THEN 'user' || n %% (10 + %(runs)s / 50) END AS user_id,
       CASE WHEN n %% 5 IN (1, 2)
            THEN ('01920000-0000-7000-8000-' || lpad(to_hex(n / 5), 12, '0'))::uuid END AS session_id
  FROM (SELECT n, now() - interval '90 days' * (1 - n::float8 / %(runs)s) AS at,
               CASE WHEN n > %(runs)s * 0.99 THEN (ARRAY['queued', 'running'])[1 + n %% 2]
                    WHEN n %% 500 = 50 THEN 'interrupted'
                    WHEN n %% 20 = 7 THEN 'failed'
                    WHEN n %% 40 = 11 THEN 'cancelled'
                    ELSE 'completed' END AS status
          FROM generate_series(1, %(runs)s) n) numbered

-- name: tenants
INSERT INTO perdure.tenants (id, name)
SELECT DISTINCT tenant_id, 'tenant' || n %% 3 FROM made WHERE n %% 10 = 9

-- name: agents
INSERT INTO perdure.agents (id, name, roots) SELECT DISTINCT agent_id, agent, ARRAY[agent] FROM made

-- name: sessions
INSERT INTO perdure.sessions (
       id, tenant_id, key, user_id, tags, parent_session_id, fork_seq, fork_version, depth,
       root_session_id, last_seq, created_by, updated_by, created_at)
SELECT id, tenant_id, id::text, user_id, CASE WHEN n / 5 %% 50 = 0 THEN '["a"]' ELSE '[]' END::jsonb,
       before, before_seq, before_version, (before IS NOT NULL)::int, coalesce(before, id), 100, '{}', '{}', at
  FROM (SELECT s.*, b.*
          FROM (SELECT session_id AS id, min(tenant_id::text)::uuid AS tenant_id, min(user_id) AS user_id,
                       min(n) AS n, min(at) AS at
                  FROM made WHERE session_id IS NOT NULL GROUP BY session_id) s
          LEFT JOIN LATERAL (
               -- One in fifty is a branch of the one before it.
               SELECT ('01920000-0000-7000-8000-' || lpad(to_hex(s.n / 5 - 1), 12, '0'))::uuid AS before,
                      6 AS before_seq, 0 AS before_version
                WHERE s.n / 5 %% 50 = 1 AND s.n / 5 > 1) b ON true) sessions

-- name: runs
INSERT INTO perdure.runs (
       id, tenant_id, agent, current_agent, agent_id, status, input, output, error_type, user_id,
       metadata, turn, max_turns, task, session_id, forked_from, forked_seq, created_at, started_at,
       updated_at, finished_at)
SELECT id, tenant_id, agent, agent, agent_id, status, '"Look it up."',
       CASE WHEN status = 'completed' THEN '"There it is."'::jsonb END,
       CASE WHEN status = 'failed'
            THEN CASE WHEN n %% 1000 = 7 THEN 'quarantined' ELSE 'model_error' END END,
       user_id, CASE WHEN n %% 5 = 0 THEN jsonb_build_object('ticket', 'T-' || n / 50) ELSE '{}' END,
       1, 10, CASE WHEN n %% 6 = 0 THEN 'task' || n %% 4 END, session_id,
       CASE WHEN n %% 50 = 3 THEN lag(id) OVER (ORDER BY n) END, CASE WHEN n %% 50 = 3 THEN 1 END, at,
       CASE WHEN status <> 'queued' THEN at + interval '1 second' END, at + interval '20 seconds',
       CASE WHEN ended THEN at + interval '20 seconds' END
  FROM made

-- name: segments
INSERT INTO perdure.segments (
       run_id, seq, tenant_id, status, epoch, executor_id, executions, due_at, created_at, started_at,
       rested_at, outcome)
SELECT id, 1, tenant_id,
       CASE status WHEN 'queued' THEN CASE WHEN n %% 4 = 0 THEN 'scheduled' ELSE 'queued' END
                   WHEN 'running' THEN 'running' ELSE 'rested' END,
       (status <> 'queued')::int, CASE WHEN status <> 'queued' THEN 'executor' || n %% 4 END,
       (status <> 'queued')::int, CASE WHEN n %% 4 = 0 THEN at + interval '1 hour' END, at,
       CASE WHEN status <> 'queued' THEN at + interval '1 second' END,
       CASE WHEN status NOT IN ('queued', 'running') THEN at + interval '20 seconds' END,
       CASE WHEN status NOT IN ('queued', 'running') THEN status END
  FROM made

-- name: run_event_heads
INSERT INTO perdure.run_event_heads (run_id, seq, segment, epoch, thin_at)
SELECT id, 4, CASE WHEN status = 'running' THEN 1 END, CASE WHEN status = 'running' THEN 1 END,
       CASE WHEN n > %(runs)s * 0.98 THEN at + interval '1 hour' END
  FROM made

-- name: run_events
INSERT INTO perdure.run_events (run_id, seq, kind, tenant_id, data, created_at)
SELECT id, e.seq, e.kind::perdure.event_kind, tenant_id, '{"segment": 1}', at + interval '1 second' * e.seq
  FROM made
 CROSS JOIN (VALUES (1, 'run.queued'), (2, 'run.started'), (3, 'model.completed'), (4, 'run.completed'))
       e(seq, kind)

-- name: run_states
INSERT INTO perdure.run_states (
       id, run_id, seq, tenant_id, kind, schema_version, sdk_version, current_agent, turn, state,
       size_bytes, created_at)
SELECT overlay(id::text PLACING '7001' FROM 15)::uuid, id, 1, tenant_id,
       CASE status WHEN 'interrupted' THEN 'interrupted' ELSE 'final' END, '1.6', '0.24.0', agent, 1,
       '{"current_turn": 1}', 20, at + interval '20 seconds'
  FROM made WHERE status NOT IN ('queued', 'running')

-- name: run_items
INSERT INTO perdure.run_items (
       id, run_id, seq, tenant_id, type, role, agent, text, item, created_at)
SELECT overlay(id::text PLACING '701' || i FROM 15)::uuid, id, i, tenant_id, 'message_output',
       'assistant', agent, 'Said.', '{"type": "message"}', at + interval '20 seconds'
  FROM made CROSS JOIN generate_series(1, 3) i WHERE whole

-- name: model_responses
INSERT INTO perdure.model_responses (
       id, run_id, tenant_id, segment, base_seq, scope, agent, input_hash, model, output, latency_ms,
       created_at)
SELECT overlay(id::text PLACING '702' || i FROM 15)::uuid, id, tenant_id, 1, 0, '', agent, 'h' || i,
       'gpt-' || n %% 3, '[]', 900, at + interval '10 seconds' * i
  FROM made CROSS JOIN generate_series(1, 2) i WHERE whole

-- name: request_usage_entries
INSERT INTO perdure.request_usage_entries (
       id, run_id, model_response_id, tenant_id, agent, model, input_tokens, output_tokens,
       total_tokens, created_at)
SELECT id, run_id, id, tenant_id, agent, model, 1000, 100, 1100, created_at
  FROM perdure.model_responses ORDER BY position

-- name: usage_metrics
INSERT INTO perdure.usage_metrics (
       run_id, agent, model, tenant_id, requests, unpriced_requests, input_tokens,
       cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, total_tokens,
       cost_usd, created_at)
SELECT id, agent, 'gpt-' || n %% 3, tenant_id, 2, 2, 2000, 0, 0, 200, 0, 2200, 0, at
  FROM made WHERE whole

-- name: usage_daily
INSERT INTO perdure.usage_daily
SELECT tenant_id, (at AT TIME ZONE 'UTC')::date, agent, 'gpt-' || n %% 3, user_id, count(*), count(*),
       1000 * count(*), 0, 0, 100 * count(*), 0, 1100 * count(*), 0
  FROM made WHERE whole AND at < (now() AT TIME ZONE 'UTC')::date::timestamp AT TIME ZONE 'UTC'
 GROUP BY 1, 2, 3, 4, 5

-- name: usage_closing
UPDATE perdure.usage_closing SET closed_to = (now() AT TIME ZONE 'UTC')::date

-- name: tool_calls
INSERT INTO perdure.tool_calls (
       id, run_id, tenant_id, segment, base_seq, scope, call_id, tool, kind, agent, arguments, effect,
       status, attempt, epoch, idempotency_key, output, requested_at, started_at, finished_at)
SELECT overlay(id::text PLACING '703' || i FROM 15)::uuid, id, tenant_id, 1, 0, '', 'call_' || i,
       'tool' || n %% 30, 'function', agent, '{}', 'read', s.status, 1, 1, 'key',
       CASE WHEN s.status = 'succeeded' THEN '{"type": "text", "text": "Found."}'::jsonb END, at,
       at + interval '1 second',
       CASE WHEN s.status = 'succeeded' THEN at + interval '2 seconds' END
  FROM made
 CROSS JOIN generate_series(1, 2) i
 CROSS JOIN LATERAL (SELECT CASE WHEN ended OR i = 1 THEN 'succeeded'
                                 WHEN made.status <> 'interrupted' THEN 'executing'
                                 WHEN n %% 5000 = 50 THEN 'uncertain'
                                 ELSE 'awaiting_approval' END AS status) s
 WHERE whole OR made.status = 'interrupted'

-- name: interruptions
INSERT INTO perdure.interruptions (
       id, run_id, tenant_id, segment, base_seq, tool_call_id, type, status, agent, tool, digest,
       requested_at, expires_at, closed_at)
SELECT overlay(id::text PLACING '7041' FROM 15)::uuid, id, tenant_id, 1, 1,
       overlay(id::text PLACING '7032' FROM 15)::uuid,
       CASE WHEN n %% 5000 = 50 THEN 'uncertain_effect' ELSE 'tool_approval' END,
       CASE WHEN status = 'interrupted' THEN 'pending' ELSE 'approved' END, agent,
       '{"name": "tool", "call_id": "call_2"}', 'sha256:' || repeat('0', 64), at + interval '9 seconds',
       CASE WHEN n %% 2000 = 50 THEN now() + interval '1 day' END,
       CASE WHEN status <> 'interrupted' THEN at + interval '15 seconds' END
  FROM made WHERE status = 'interrupted' OR whole AND ended AND n %% 4 = 0

-- name: decisions
INSERT INTO perdure.decisions (
       id, interruption_id, run_id, tenant_id, decision, by_type, decided_at)
SELECT overlay(id::text PLACING '7051' FROM 15)::uuid, id, run_id, tenant_id, 'approve', 'service_key',
       closed_at
  FROM perdure.interruptions WHERE status = 'approved'

-- name: session_items
INSERT INTO perdure.session_items (
       id, session_id, tenant_id, seq, role, text, item, run_id, user_id, search, created_at)
SELECT overlay(id::text PLACING '706' || i FROM 15)::uuid, session_id, tenant_id,
       100 * i + row_number() OVER (PARTITION BY session_id, i ORDER BY n), 'user', words,
       json_build_object('role', 'user', 'content', words), id, user_id,
       to_tsvector('english', words), at
  FROM (SELECT *, 'word' || n %% 5000 || ' other' || n %% 100 || ' everywhere' AS words
          FROM made CROSS JOIN generate_series(1, 2) i) said
 WHERE session_id IS NOT NULL

-- name: feedback
INSERT INTO perdure.feedback (id, tenant_id, run_id, user_id, rating, agent, created_at)
SELECT overlay(id::text PLACING '7071' FROM 15)::uuid, tenant_id, id, user_id, 1 + n %% 5, agent, at
  FROM made WHERE n %% 5 = 0

-- name: audit_log
INSERT INTO perdure.audit_log (
       id, tenant_id, kind, subject_type, subject_id, run_id, actor_type, at, details_digest, cluster)
SELECT overlay(id::text PLACING '7081' FROM 15)::uuid, tenant_id, 'run.started', 'run', id::text, id,
       'system', at, 'sha256:' || repeat('0', 64), (SELECT system_identifier FROM pg_control_system())
  FROM made WHERE whole

-- name: webhooks
INSERT INTO perdure.webhooks (id, tenant_id, url, events, secret)
SELECT '01930000-0000-7000-8000-000000000000', '00000000-0000-7000-8000-000000000000',
       'https://receiver.example/', ARRAY['run.completed'], 'sealed'

-- name: webhook_deliveries
INSERT INTO perdure.webhook_deliveries (
       id, tenant_id, webhook_id, event, run_id, status, due_at, created_at, finished_at)
SELECT overlay(id::text PLACING '7091' FROM 15)::uuid, tenant_id, '01930000-0000-7000-8000-000000000000',
       'run.completed', id, CASE WHEN n > %(runs)s * 0.98 THEN 'pending' ELSE 'delivered' END, at, at,
       CASE WHEN n > %(runs)s * 0.98 THEN NULL ELSE at END
  FROM made WHERE n %% 2 = 0

-- name: workflows
INSERT INTO dbos.workflow_status (workflow_uuid, status, name, queue_name, created_at, updated_at, priority)
SELECT id::text || ':1', CASE status WHEN 'queued' THEN 'ENQUEUED' WHEN 'running' THEN 'PENDING'
                                     ELSE 'SUCCESS' END,
       'perdure.segment', CASE WHEN status IN ('queued', 'running') THEN 'perdure' END,
       extract(epoch FROM at) * 1000, extract(epoch FROM at) * 1000, 0
  FROM made WHERE status <> 'queued' OR n %% 4 <> 0

-- name: indexes
SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition
  FROM pg_index i
  JOIN pg_class t ON t.oid = i.indrelid AND t.relnamespace = 'perdure'::regnamespace
 WHERE t.relkind = 'r' AND NOT t.relispartition AND NOT i.indisunique

-- name: tables
SELECT c.oid::regclass::text AS name
  FROM pg_class c
 WHERE c.relnamespace IN ('perdure'::regnamespace, 'dbos'::regnamespace) AND c.relkind = 'r'
