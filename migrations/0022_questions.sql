-- Questions people ask, answered in SQL: the schema perdure_read, and what a day's usage came to.
--
-- perdure_read has views alone, and functions over them. They read with the rights of the tables'
-- owner: who may read perdure_read needs no right on perdure.

-- What was used, summed up a day at a time: what a month comes to is read from few rows, and stays
-- when the runs it was for are deleted.
CREATE TABLE perdure.usage_daily (
    tenant_id           uuid    NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    day                 date    NOT NULL,
    agent               text    NOT NULL,
    model               text    NOT NULL,
    user_id             text,
    requests            bigint  NOT NULL CONSTRAINT requests_are_counted CHECK (requests >= 0),
    unpriced_requests   bigint  NOT NULL CONSTRAINT unpriced_are_some_of_them
                                CHECK (unpriced_requests BETWEEN 0 AND requests),
    input_tokens        bigint  NOT NULL CONSTRAINT input_is_counted CHECK (input_tokens >= 0),
    cached_input_tokens bigint  NOT NULL CONSTRAINT cached_input_is_counted CHECK (cached_input_tokens >= 0),
    cache_write_tokens  bigint  NOT NULL CONSTRAINT cache_writes_are_counted CHECK (cache_write_tokens >= 0),
    output_tokens       bigint  NOT NULL CONSTRAINT output_is_counted CHECK (output_tokens >= 0),
    reasoning_tokens    bigint  NOT NULL CONSTRAINT reasoning_is_counted CHECK (reasoning_tokens >= 0),
    total_tokens        bigint  NOT NULL CONSTRAINT total_is_counted CHECK (total_tokens >= 0),
    cost_usd            numeric NOT NULL CONSTRAINT cost_is_counted CHECK (cost_usd >= 0),
    CONSTRAINT one_row_a_day UNIQUE NULLS NOT DISTINCT (tenant_id, day, agent, model, user_id)
);
CREATE INDEX usage_daily_user ON perdure.usage_daily (tenant_id, user_id) WHERE user_id IS NOT NULL;
COMMENT ON TABLE perdure.usage_daily IS 'What was used and spent a day, by agent, model and user: sums of request_usage_entries. Of days that are closed all of it, of later ones what deleted runs used. Deleting runs changes nothing here.';
COMMENT ON COLUMN perdure.usage_daily.tenant_id IS 'Whose runs it was for.';
COMMENT ON COLUMN perdure.usage_daily.day IS 'The day in UTC on which the requests were answered.';
COMMENT ON COLUMN perdure.usage_daily.agent IS 'The agent that asked.';
COMMENT ON COLUMN perdure.usage_daily.model IS 'The model that was asked; empty where its name is not known.';
COMMENT ON COLUMN perdure.usage_daily.user_id IS 'The user the runs were for; null: nobody in particular.';
COMMENT ON COLUMN perdure.usage_daily.requests IS 'How many requests it was.';
COMMENT ON COLUMN perdure.usage_daily.unpriced_requests IS 'Those of models whose price is not known: they are not in cost_usd.';
COMMENT ON COLUMN perdure.usage_daily.input_tokens IS 'Tokens the models read.';
COMMENT ON COLUMN perdure.usage_daily.cached_input_tokens IS 'Those of input_tokens that were read from providers'' caches.';
COMMENT ON COLUMN perdure.usage_daily.cache_write_tokens IS 'Those of input_tokens that were written to providers'' caches.';
COMMENT ON COLUMN perdure.usage_daily.output_tokens IS 'Tokens the models wrote.';
COMMENT ON COLUMN perdure.usage_daily.reasoning_tokens IS 'Those of output_tokens that were spent on reasoning.';
COMMENT ON COLUMN perdure.usage_daily.total_tokens IS 'All tokens, as the providers counted them.';
COMMENT ON COLUMN perdure.usage_daily.cost_usd IS 'What the requests cost whose price is known.';

CREATE TABLE perdure.usage_closing (
    only_row   boolean PRIMARY KEY DEFAULT true CONSTRAINT there_is_one_row CHECK (only_row),
    closed_to  date    NOT NULL
);
COMMENT ON TABLE perdure.usage_closing IS 'One row: up to which day usage_daily has everything.';
COMMENT ON COLUMN perdure.usage_closing.only_row IS 'True, in the only row.';
COMMENT ON COLUMN perdure.usage_closing.closed_to IS 'The first day (UTC) that is not closed: what was used since stands in request_usage_entries. Who adds a day to usage_daily, or deletes a run, holds this row.';
INSERT INTO perdure.usage_closing (closed_to)
SELECT coalesce((min(created_at) AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date)
  FROM perdure.request_usage_entries;

-- A run that is deleted leaves what it used: of closed days that stands in usage_daily already.
CREATE FUNCTION perdure.keep_usage() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    open_day date;
BEGIN
    SELECT closed_to INTO STRICT open_day FROM perdure.usage_closing FOR SHARE;
    INSERT INTO perdure.usage_daily AS d
    SELECT u.tenant_id, (u.created_at AT TIME ZONE 'UTC')::date, u.agent, u.model, OLD.user_id,
           sum(u.requests), coalesce(sum(u.requests) FILTER (WHERE u.cost_usd IS NULL), 0),
           sum(u.input_tokens), sum(u.cached_input_tokens), sum(u.cache_write_tokens),
           sum(u.output_tokens), sum(u.reasoning_tokens), sum(u.total_tokens),
           coalesce(sum(u.cost_usd), 0)
      FROM perdure.request_usage_entries u
     WHERE u.run_id = OLD.id AND u.created_at >= open_day::timestamp AT TIME ZONE 'UTC'
     GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        ON CONFLICT ON CONSTRAINT one_row_a_day DO UPDATE SET
           requests = d.requests + excluded.requests,
           unpriced_requests = d.unpriced_requests + excluded.unpriced_requests,
           input_tokens = d.input_tokens + excluded.input_tokens,
           cached_input_tokens = d.cached_input_tokens + excluded.cached_input_tokens,
           cache_write_tokens = d.cache_write_tokens + excluded.cache_write_tokens,
           output_tokens = d.output_tokens + excluded.output_tokens,
           reasoning_tokens = d.reasoning_tokens + excluded.reasoning_tokens,
           total_tokens = d.total_tokens + excluded.total_tokens,
           cost_usd = d.cost_usd + excluded.cost_usd;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION perdure.keep_usage IS 'Before a run is deleted: what it used on days that are not closed goes to usage_daily.';
CREATE TRIGGER keep_usage BEFORE DELETE ON perdure.runs FOR EACH ROW
    EXECUTE FUNCTION perdure.keep_usage();

CREATE SCHEMA perdure_read;
COMMENT ON SCHEMA perdure_read IS 'Views to ask questions of: what runs were, did and cost. Nothing is written here.';

CREATE FUNCTION perdure_read.id_at(moment timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM greatest(least(moment, '9999-01-01Z'), '1970-01-01Z'))
                 * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;
COMMENT ON FUNCTION perdure_read.id_at IS 'The least id that can have been given at a moment: ids are UUIDv7 and rise with time, so WHERE id >= id_at(…) finds what is newer by the primary key.';

-- The catalogue, as the deployment has it now: agents, and what their current versions consist of.
CREATE VIEW perdure_read.agents AS
SELECT a.id, a.name, v.version, a.current_version_id, v.handoff_description, v.instructions,
       v.instructions_by, v.prompt, v.prompt_by, v.model, v.model_settings_id, v.output_type,
       v.output_schema, v.behavior, a.created_at, a.updated_at, a.deleted_at
  FROM perdure.agents a LEFT JOIN perdure.agent_versions v ON v.id = a.current_version_id;
COMMENT ON VIEW perdure_read.agents IS 'Agents with their current versions. Of the deployment, not of a tenant.';

CREATE VIEW perdure_read.model_settings AS
SELECT id, settings, created_at FROM perdure.model_settings;

CREATE VIEW perdure_read.tools AS
SELECT id, name, kind, description, input_schema, output_schema, effect, gate, gate_by, enabled,
       enabled_by, agent, timeout_seconds, settings, created_at
  FROM perdure.tools;

CREATE VIEW perdure_read.agent_tools AS
SELECT a.id AS agent_id, t.tool_id, t.position
  FROM perdure.agents a JOIN perdure.agent_tools t ON t.agent_version_id = a.current_version_id;
COMMENT ON VIEW perdure_read.agent_tools IS 'Which tools an agent has in its current version.';

CREATE VIEW perdure_read.handoff_configs AS
SELECT id, tool_name, tool_description, input_schema, input_filter, nest_history, enabled,
       enabled_by, created_at
  FROM perdure.handoff_configs;

CREATE VIEW perdure_read.agent_handoffs AS
SELECT a.id AS agent_id, h.handoff_config_id, h.target_agent_id, h.target, h.position
  FROM perdure.agents a JOIN perdure.agent_handoffs h ON h.agent_version_id = a.current_version_id;
COMMENT ON VIEW perdure_read.agent_handoffs IS 'Which agents an agent can hand off to in its current version.';

CREATE VIEW perdure_read.guardrails AS
SELECT id, name, kind, function, run_in_parallel, created_at FROM perdure.guardrails;

CREATE VIEW perdure_read.agent_guardrails AS
SELECT a.id AS agent_id, g.guardrail_id, g.position
  FROM perdure.agents a
  JOIN perdure.agent_guardrails g ON g.agent_version_id = a.current_version_id;
COMMENT ON VIEW perdure_read.agent_guardrails IS 'Which guardrails an agent has in its current version.';

CREATE VIEW perdure_read.tool_guardrails AS
SELECT g.id, g.name, g.kind, g.function,
       ARRAY(SELECT t.tool_id FROM perdure.tool_guardrail_tools t
              WHERE t.tool_guardrail_id = g.id ORDER BY t.tool_id) AS tool_ids, g.created_at
  FROM perdure.tool_guardrails g;

CREATE VIEW perdure_read.mcp_servers AS
SELECT id, name, transport, gate, gate_by, effects, settings, created_at FROM perdure.mcp_servers;

CREATE VIEW perdure_read.agent_mcp_servers AS
SELECT a.id AS agent_id, m.mcp_server_id, m.position
  FROM perdure.agents a
  JOIN perdure.agent_mcp_servers m ON m.agent_version_id = a.current_version_id;
COMMENT ON VIEW perdure_read.agent_mcp_servers IS 'Which MCP servers an agent uses in its current version.';

-- What runs were and did.
CREATE VIEW perdure_read.runs AS
SELECT r.id, r.tenant_id, r.agent_id, r.agent_version_id, r.session_id, r.agent, r.current_agent,
       r.status, r.input, r.context, r.output, r.error_type, r.error_message, r.user_id, r.metadata,
       r.task, r.model, r.turn, r.max_turns, r.priority, r.segment, r.created_at, r.started_at,
       r.updated_at, r.finished_at, r.deleted_at,
       extract(epoch FROM r.finished_at - r.started_at) AS duration_seconds,
       (SELECT sum(extract(epoch FROM s.rested_at - s.started_at)) FROM perdure.segments s
         WHERE s.run_id = r.id AND s.rested_at IS NOT NULL) AS working_seconds
  FROM perdure.runs r;

CREATE VIEW perdure_read.sessions AS
SELECT id, tenant_id, key, user_id, group_id, title, system_prompt, tags, metadata, status, rating,
       parent_session_id, fork_seq, depth, created_by, updated_by, created_at, updated_at, deleted_at
  FROM perdure.sessions;

CREATE VIEW perdure_read.session_items AS
SELECT id, session_id, tenant_id, seq, role, sender, text, item::jsonb AS item_data, agent, run_id,
       user_id, token_count, metadata, created_at
  FROM perdure.session_items WHERE removed_version IS NULL;
COMMENT ON VIEW perdure_read.session_items IS 'What was said in a session, item by item. A branch has its own here; those up to its fork are its parent''s.';

CREATE VIEW perdure_read.run_items AS
SELECT id, run_id, tenant_id, seq, type, role, agent, text, item AS item_data, token_count, metadata,
       created_at
  FROM perdure.run_items;

CREATE VIEW perdure_read.model_responses AS
SELECT id, run_id, tenant_id, segment, scope, agent, model, response_id, request_id, output,
       settings, attempt, latency_ms, superseded, created_at
  FROM perdure.model_responses;

CREATE VIEW perdure_read.tool_calls AS
SELECT id, run_id, tenant_id, segment, scope, call_id, tool, kind, agent, arguments, arguments_raw,
       approved_arguments, effect, status, attempt, idempotency_key, output, error, requested_at,
       started_at, finished_at, extract(epoch FROM finished_at - started_at) AS duration_seconds
  FROM perdure.tool_calls;

CREATE VIEW perdure_read.interruptions AS
SELECT id, run_id, tenant_id, tool_call_id, type, status, agent, scope, tool ->> 'name' AS tool,
       tool -> 'arguments' AS arguments, question, schema, digest, required, reason, requested_at,
       expires_at, closed_at,
       extract(epoch FROM coalesce(closed_at, now()) - requested_at) AS waiting_seconds
  FROM perdure.interruptions;

CREATE VIEW perdure_read.guardrail_results AS
SELECT id, run_id, tenant_id, segment, scope, agent, guardrail, kind, tripwire_triggered,
       output_info, latency_ms, created_at
  FROM perdure.guardrail_results;

CREATE VIEW perdure_read.tool_guardrail_results AS
SELECT id, run_id, tenant_id, segment, scope, agent, tool, call_id, guardrail, kind, behavior,
       message, output_info, latency_ms, created_at
  FROM perdure.tool_guardrail_results;

CREATE VIEW perdure_read.usage_metrics AS
SELECT run_id, tenant_id, agent, model, requests, unpriced_requests, input_tokens,
       cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, total_tokens,
       CASE WHEN unpriced_requests < requests OR requests = 0 THEN cost_usd END AS estimated_cost,
       created_at, updated_at
  FROM perdure.usage_metrics;

CREATE VIEW perdure_read.request_usage_entries AS
SELECT id, run_id, tenant_id, model_response_id, position, agent, model, requests, input_tokens,
       cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, total_tokens,
       cost_usd AS estimated_cost, price, price_date, price_source, created_at
  FROM perdure.request_usage_entries;

CREATE VIEW perdure_read.run_states AS
SELECT id, run_id, tenant_id, seq,
       CASE WHEN kind IN ('handoff', 'periodic') THEN 'checkpoint' ELSE kind END AS state_type,
       kind, schema_version, sdk_version, current_agent, turn, state AS state_data, size_bytes,
       is_active, created_at, resumed_at
  FROM perdure.run_states;

-- Questions.
CREATE VIEW perdure_read.active_runs AS
SELECT r.id, r.tenant_id, r.agent, r.current_agent, r.agent_id, r.status, r.user_id, r.session_id,
       r.task, r.turn, r.created_at, r.started_at,
       extract(epoch FROM now() - r.created_at) AS age_seconds,
       (SELECT count(*) FROM perdure.interruptions i
         WHERE i.run_id = r.id AND i.status = 'pending') AS questions
  FROM perdure.runs r
 WHERE r.status IN ('queued', 'running', 'interrupted') AND r.deleted_at IS NULL;
COMMENT ON VIEW perdure_read.active_runs IS 'Runs that have not ended: which, of whom, since when, and how many questions they wait on.';

CREATE VIEW perdure_read.usage_by_day AS
SELECT tenant_id, day, agent, model, user_id, requests, unpriced_requests, input_tokens,
       cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, total_tokens,
       CASE WHEN requests > unpriced_requests OR requests = 0 THEN cost_usd END AS estimated_cost
  FROM perdure.usage_daily
 UNION ALL
SELECT u.tenant_id, (u.created_at AT TIME ZONE 'UTC')::date, u.agent, u.model, r.user_id, u.requests,
       CASE WHEN u.cost_usd IS NULL THEN u.requests ELSE 0 END, u.input_tokens,
       u.cached_input_tokens, u.cache_write_tokens, u.output_tokens, u.reasoning_tokens,
       u.total_tokens, u.cost_usd
  FROM perdure.request_usage_entries u
  JOIN perdure.runs r ON r.id = u.run_id
 WHERE u.created_at >= (SELECT c.closed_to::timestamp AT TIME ZONE 'UTC'
                          FROM perdure.usage_closing c);
COMMENT ON VIEW perdure_read.usage_by_day IS 'Requests, tokens and cost by day (UTC), agent, model and user, up to now, to be summed: days that are over have a row each, later ones one for each request. What runs used that were deleted is in it.';

CREATE FUNCTION perdure_read.agent_runs_between(since timestamptz, until timestamptz)
RETURNS TABLE (tenant_id uuid, agent text, runs bigint, active bigint, completed bigint,
               failed bigint, cancelled bigint, failure_rate numeric, p50_seconds float8,
               p95_seconds float8, p50_working_seconds float8, p95_working_seconds float8)
LANGUAGE sql STABLE AS $$
    SELECT g.tenant_id, g.agent, g.runs, g.active, g.completed, g.failed, g.cancelled,
           round(g.failed::numeric / nullif(g.completed + g.failed, 0), 4),
           g.seconds[1], g.seconds[2], g.working[1], g.working[2]
      FROM (SELECT r.tenant_id, r.agent, count(*) AS runs,
                   count(*) FILTER (WHERE r.finished_at IS NULL) AS active,
                   count(*) FILTER (WHERE r.status = 'completed') AS completed,
                   count(*) FILTER (WHERE r.status = 'failed') AS failed,
                   count(*) FILTER (WHERE r.status = 'cancelled') AS cancelled,
                   percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (
                       ORDER BY r.duration_seconds::float8) AS seconds,
                   percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (
                       ORDER BY CASE WHEN r.finished_at IS NOT NULL
                                     THEN r.working_seconds::float8 END) AS working
              FROM perdure_read.runs r
             WHERE r.id >= perdure_read.id_at(since - interval '1 hour')
               AND r.id < perdure_read.id_at(until + interval '1 hour')
               AND r.created_at >= since AND r.created_at < until AND r.deleted_at IS NULL
             GROUP BY r.tenant_id, r.agent) g
$$;
COMMENT ON FUNCTION perdure_read.agent_runs_between IS 'How the runs went that were started in a period: as agent_runs, of any period.';
CREATE VIEW perdure_read.agent_runs AS
SELECT * FROM perdure_read.agent_runs_between(now() - interval '30 days', now() + interval '1 minute');
COMMENT ON VIEW perdure_read.agent_runs IS 'How runs of the last 30 days went, by agent: how many failed, how long they took. Of another period: agent_runs_between(since, until).';

CREATE FUNCTION perdure_read.people_waits_between(since timestamptz, until timestamptz)
RETURNS TABLE (tenant_id uuid, agent text, type text, asked bigint, decided bigint, expired bigint,
               cancelled bigint, waiting bigint, p50_seconds float8, p95_seconds float8,
               longest_waiting_seconds numeric)
LANGUAGE sql STABLE AS $$
    SELECT g.tenant_id, g.agent, g.type, g.asked, g.decided, g.expired, g.cancelled, g.waiting,
           g.seconds[1], g.seconds[2], g.longest
      FROM (SELECT i.tenant_id, i.agent, i.type, count(*) AS asked,
                   count(*) FILTER (
                       WHERE i.status NOT IN ('pending', 'expired', 'cancelled')) AS decided,
                   count(*) FILTER (WHERE i.status = 'expired') AS expired,
                   count(*) FILTER (WHERE i.status = 'cancelled') AS cancelled,
                   count(*) FILTER (WHERE i.status = 'pending') AS waiting,
                   percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY CASE
                       WHEN i.status NOT IN ('pending', 'expired', 'cancelled')
                       THEN i.waiting_seconds::float8 END) AS seconds,
                   max(i.waiting_seconds) FILTER (WHERE i.status = 'pending') AS longest
              FROM perdure_read.interruptions i
             WHERE i.id >= perdure_read.id_at(since - interval '1 hour')
               AND i.id < perdure_read.id_at(until + interval '1 hour')
               AND i.requested_at >= since AND i.requested_at < until
             GROUP BY i.tenant_id, i.agent, i.type) g
$$;
COMMENT ON FUNCTION perdure_read.people_waits_between IS 'How long runs waited for people who were asked in a period: as people_waits, of any period.';
CREATE VIEW perdure_read.people_waits AS
SELECT * FROM perdure_read.people_waits_between(now() - interval '30 days', now() + interval '1 minute');
COMMENT ON VIEW perdure_read.people_waits IS 'How long runs waited for people who were asked in the last 30 days, by agent and type of question. Of another period: people_waits_between(since, until).';

CREATE VIEW perdure_read.waiting_for_people AS
SELECT i.id, i.run_id, i.tenant_id, i.type, i.agent, i.tool ->> 'name' AS tool, i.question,
       i.required, r.user_id, i.requested_at, i.expires_at,
       extract(epoch FROM now() - i.requested_at) AS waiting_seconds
  FROM perdure.interruptions i JOIN perdure.runs r ON r.id = i.run_id
 WHERE i.status = 'pending' AND r.deleted_at IS NULL;
COMMENT ON VIEW perdure_read.waiting_for_people IS 'Questions nobody has decided yet, and for how long.';

CREATE FUNCTION perdure_read.tool_times_between(since timestamptz, until timestamptz)
RETURNS TABLE (tenant_id uuid, tool text, kind text, calls bigint, succeeded bigint, failed bigint,
               uncertain bigint, failure_rate numeric, p50_seconds float8, p95_seconds float8,
               slowest_seconds numeric)
LANGUAGE sql STABLE AS $$
    SELECT g.tenant_id, g.tool, g.kind, g.calls, g.succeeded, g.failed, g.uncertain,
           round(g.failed::numeric / nullif(g.succeeded + g.failed, 0), 4),
           g.seconds[1], g.seconds[2], g.slowest
      FROM (SELECT t.tenant_id, t.tool, t.kind, count(*) AS calls,
                   count(*) FILTER (WHERE t.status = 'succeeded') AS succeeded,
                   count(*) FILTER (WHERE t.status = 'failed') AS failed,
                   count(*) FILTER (WHERE t.status = 'uncertain') AS uncertain,
                   percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (
                       ORDER BY t.duration_seconds::float8) AS seconds,
                   max(t.duration_seconds) AS slowest
              FROM perdure_read.tool_calls t
             WHERE t.run_id >= perdure_read.id_at(since - interval '1 hour')
               AND t.run_id < perdure_read.id_at(until + interval '1 hour')
               AND t.started_at >= since AND t.started_at < until
             GROUP BY t.tenant_id, t.tool, t.kind) g
$$;
COMMENT ON FUNCTION perdure_read.tool_times_between IS 'How long tools took and how often they failed in a period, in runs that were started in it: as tool_times, of any period.';
CREATE VIEW perdure_read.tool_times AS
SELECT * FROM perdure_read.tool_times_between(now() - interval '30 days', now() + interval '1 minute');
COMMENT ON VIEW perdure_read.tool_times IS 'How long tools took and how often they failed, in runs of the last 30 days. Of another period: tool_times_between(since, until).';

CREATE VIEW perdure_read.uncertain_effects AS
SELECT t.id AS tool_call_id, t.run_id, t.tenant_id, r.agent_id, t.agent, t.tool, t.call_id,
       t.arguments, t.idempotency_key, r.status AS run_status, r.user_id, i.id AS interruption_id,
       i.status AS interruption_status, t.started_at, i.requested_at,
       extract(epoch FROM now() - t.started_at) AS age_seconds
  FROM perdure.interruptions i
  JOIN perdure.tool_calls t ON t.run_id = i.run_id AND t.id = i.tool_call_id
  JOIN perdure.runs r ON r.id = i.run_id
 WHERE i.type = 'uncertain_effect' AND t.status = 'uncertain' AND r.deleted_at IS NULL;
COMMENT ON VIEW perdure_read.uncertain_effects IS 'Tool calls of which nobody knows whether they happened: their process died in the middle. Each waits for a person, or nobody said before its run was cancelled.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (22, 'questions');
