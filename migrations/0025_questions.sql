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
       r.task, r.model, r.forked_from, r.forked_seq, r.turn, r.max_turns, r.priority, r.segment, r.created_at, r.started_at,
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
SELECT i.id, i.run_id, i.tenant_id, i.seq, i.type, i.role, i.agent,
       CASE WHEN i.text IS NOT NULL OR i.type <> 'tool_call_output' THEN i.text
            WHEN i.output_of IS NOT NULL THEN o.output ->> 'text'
            WHEN jsonb_typeof(i.item -> 'output') = 'string' THEN i.item ->> 'output' END AS text,
       CASE WHEN i.output_of IS NULL THEN i.item
            ELSE i.item || jsonb_build_object('output', o.output -> 'text') END AS item_data,
       i.token_count, i.metadata, i.created_at
  FROM perdure.run_items i
  LEFT JOIN perdure.tool_calls o ON o.run_id = i.run_id AND o.id = i.output_of;

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

-- A function in a view runs as whoever asks the view, who need not be let read the tables.
CREATE FUNCTION perdure.state_to_read(run uuid, state_seq int) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT perdure.whole_state(run, state_seq)
$$;
COMMENT ON FUNCTION perdure.state_to_read IS 'A run''s state whole, for the view of states.';

CREATE VIEW perdure_read.run_states AS
SELECT id, run_id, tenant_id, seq,
       CASE WHEN kind IN ('handoff', 'periodic') THEN 'checkpoint' ELSE kind END AS state_type,
       kind, schema_version, sdk_version, current_agent, turn,
       perdure.state_to_read(run_id, seq) AS state_data, size_bytes,
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

-- What every table and column is, where it was not said yet.
COMMENT ON TABLE perdure.api_keys IS 'Service keys: who asks over HTTP, and what they may do.';
COMMENT ON TABLE perdure.idempotency_keys IS 'Requests that were sent with an Idempotency-Key, and their answers, for 24 hours.';
COMMENT ON TABLE perdure.runs IS 'One agent job each, from its input to its output.';
COMMENT ON TABLE perdure.run_items IS 'What was said and done in a run, item by item, as the SDK gave it. Written where the run rests.';
COMMENT ON TABLE perdure.model_responses IS 'Replies of models, each recorded once, before anything it asks for is done: with tool_calls what a segment is taken up from after a crash.';
COMMENT ON TABLE perdure.tool_calls IS 'Calls of tools, from what the model asked for to what came of it. An effect''s intent is written before it begins.';
COMMENT ON TABLE perdure.interruptions IS 'Questions a run has stopped on.';
COMMENT ON TABLE perdure.decisions IS 'What somebody decided on an interruption; several where several have to agree.';
COMMENT ON TABLE perdure.schema_migrations IS 'Which migrations this database has.';
COMMENT ON COLUMN perdure.api_keys.tenant_id IS 'The tenant whose objects it opens, and no other''s.';
COMMENT ON COLUMN perdure.api_keys.name IS 'What it is for, as whoever made it said.';
COMMENT ON COLUMN perdure.api_keys.subject IS 'The person or program it stands for: decisions are theirs.';
COMMENT ON COLUMN perdure.api_keys.roles IS 'What it may do: runs:read, runs:write, decisions:write, admin.';
COMMENT ON COLUMN perdure.api_keys.created_at IS 'When it was made.';
COMMENT ON COLUMN perdure.api_keys.last_used_at IS 'When it was last used, now and then written down.';
COMMENT ON COLUMN perdure.api_keys.revoked_at IS 'Since when it opens nothing any more.';
COMMENT ON COLUMN perdure.audit_log.kind IS 'What was done: two words, as run.cancelled.';
COMMENT ON COLUMN perdure.audit_log.subject_id IS 'Id of what it was done to.';
COMMENT ON COLUMN perdure.audit_log.run_id IS 'The run it belongs to, where it does; it may be deleted since.';
COMMENT ON COLUMN perdure.audit_log.actor_type IS 'How who did it was recognised: service_key, local, link, …; system: nobody, a rule or a clock did.';
COMMENT ON COLUMN perdure.audit_log.who_digest IS 'Digest of the part who in audit_payloads.';
COMMENT ON COLUMN perdure.audit_log.details_digest IS 'Digest of the part details in audit_payloads.';
COMMENT ON COLUMN perdure.audit_payloads.id IS 'The row of audit_log it belongs to.';
COMMENT ON COLUMN perdure.audit_payloads.part IS 'who: who did it and from where; details: what it was about.';
COMMENT ON COLUMN perdure.audit_payloads.run_id IS 'The run it tells of: its details go with it.';
COMMENT ON COLUMN perdure.audit_seals.seq IS 'Its place in the tenant''s chain, from 1.';
COMMENT ON COLUMN perdure.audit_seals.cluster IS 'The Postgres cluster whose transactions it seals.';
COMMENT ON COLUMN perdure.audit_seals.ids IS 'The rows of audit_log it seals, in order.';
COMMENT ON COLUMN perdure.audit_seals.kinds IS 'What those rows'' kind is.';
COMMENT ON COLUMN perdure.audit_seals.ats IS 'What those rows'' time is.';
COMMENT ON COLUMN perdure.audit_seals.hashes IS 'SHA-256 of each of those rows.';
COMMENT ON COLUMN perdure.audit_seals.hash IS 'SHA-256 over all of the seal, with the hash of the one before.';
COMMENT ON COLUMN perdure.audit_seals.key_id IS 'Which key of PERDURE_SECRET_KEYS made the mac.';
COMMENT ON COLUMN perdure.audit_seals.sealed_at IS 'When it was made.';
COMMENT ON COLUMN perdure.budget_periods.budget_id IS 'The budget.';
COMMENT ON COLUMN perdure.budget_reservations.budget_id IS 'The budget it is kept of.';
COMMENT ON COLUMN perdure.budget_reservations.cost_usd IS 'How much money is kept for the call, in USD.';
COMMENT ON COLUMN perdure.budget_reservations.total_tokens IS 'How many tokens are kept for the call.';
COMMENT ON COLUMN perdure.budgets.session_id IS 'The session whose runs it is of.';
COMMENT ON COLUMN perdure.budgets.name IS 'What it is for, as whoever made it said.';
COMMENT ON COLUMN perdure.decision_links.run_id IS 'The run whose question it is.';
COMMENT ON COLUMN perdure.decision_links.interruption_id IS 'The question it decides.';
COMMENT ON COLUMN perdure.decision_links.delivery_id IS 'The delivery of a webhook it was made for; null: somebody made it.';
COMMENT ON COLUMN perdure.decision_links.key_id IS 'Which key of PERDURE_SECRET_KEYS its token and mac are made with.';
COMMENT ON COLUMN perdure.decision_links.digest IS 'Digest of what it shows: on anything else it decides nothing.';
COMMENT ON COLUMN perdure.decision_links.subject IS 'Who decides by it.';
COMMENT ON COLUMN perdure.decision_links.groups IS 'What they belong to: policies may ask for a group.';
COMMENT ON COLUMN perdure.decision_links.decisions IS 'What may be decided by it.';
COMMENT ON COLUMN perdure.decision_links.created_by IS 'Who made it: type, id, subject; null: a webhook.';
COMMENT ON COLUMN perdure.decision_links.created_at IS 'When it was made.';
COMMENT ON COLUMN perdure.decision_links.expires_at IS 'Until when it can be used.';
COMMENT ON COLUMN perdure.decision_links.used_at IS 'When it was used: it decides once.';
COMMENT ON COLUMN perdure.decisions.interruption_id IS 'The question it decides.';
COMMENT ON COLUMN perdure.decisions.decision IS 'What was decided: approve, reject, answer, resolve.';
COMMENT ON COLUMN perdure.decisions.by_type IS 'How who decided was recognised: service_key, local, link, policy, …';
COMMENT ON COLUMN perdure.decisions.by_id IS 'Their id in that: of the key, the link.';
COMMENT ON COLUMN perdure.decisions.by_subject IS 'Who they are.';
COMMENT ON COLUMN perdure.decisions.message IS 'What they said with it; the model reads it where it was a rejection.';
COMMENT ON COLUMN perdure.decisions.arguments IS 'With approve: the arguments to execute instead of the model''s.';
COMMENT ON COLUMN perdure.decisions.answer IS 'With answer: the answer, as JSON of the question''s schema.';
COMMENT ON COLUMN perdure.decisions.outcome IS 'With resolve: what became of the uncertain effect: done, not_done, or abandon the run.';
COMMENT ON COLUMN perdure.decisions.result IS 'With the outcome done: what the model is told the tool returned.';
COMMENT ON COLUMN perdure.decisions.decided_at IS 'When it was recorded.';
COMMENT ON COLUMN perdure.executors.id IS 'Its own, of this process and no other.';
COMMENT ON COLUMN perdure.executors.host IS 'The machine it runs on.';
COMMENT ON COLUMN perdure.executors.pid IS 'Its process there.';
COMMENT ON COLUMN perdure.executors.version IS 'The version of the application it runs.';
COMMENT ON COLUMN perdure.executors.started_at IS 'When it began.';
COMMENT ON COLUMN perdure.executors.stopped_at IS 'When it stopped in good order.';
COMMENT ON COLUMN perdure.executors.renewed_at IS 'When it last renewed its lease.';
COMMENT ON COLUMN perdure.executors.lost_to IS 'The executor that found it dead.';
COMMENT ON COLUMN perdure.feedback.run_id IS 'The run it is on, or that has the item.';
COMMENT ON COLUMN perdure.feedback.item_id IS 'The item it is on: of the run or of the session.';
COMMENT ON COLUMN perdure.feedback.type IS 'What it is about.';
COMMENT ON COLUMN perdure.feedback.rating IS 'From 1 (worst) to 5; or liked.';
COMMENT ON COLUMN perdure.feedback.created_at IS 'When it was first given.';
COMMENT ON COLUMN perdure.feedback.updated_at IS 'When it was last given.';
COMMENT ON COLUMN perdure.grant_uses.run_id IS 'The run whose call it was.';
COMMENT ON COLUMN perdure.grant_uses.grant_id IS 'The grant that was used.';
COMMENT ON COLUMN perdure.grant_uses.interruption_id IS 'The interruption it closed.';
COMMENT ON COLUMN perdure.grant_uses.tool_call_id IS 'The call it approved.';
COMMENT ON COLUMN perdure.grants.tool IS 'The tool whose calls it covers.';
COMMENT ON COLUMN perdure.grants.scope IS 'How far it reaches: run, session, user or agent.';
COMMENT ON COLUMN perdure.grants.run_id IS 'The run it was given in.';
COMMENT ON COLUMN perdure.grants.interruption_id IS 'The interruption it was given on.';
COMMENT ON COLUMN perdure.grants.decision_id IS 'The decision it was given with.';
COMMENT ON COLUMN perdure.grants.created_at IS 'When it was given.';
COMMENT ON COLUMN perdure.grants.revoked_at IS 'Since when it covers nothing any more.';
COMMENT ON COLUMN perdure.grants.revoked_by IS 'Who revoked it: type, id, subject.';
COMMENT ON COLUMN perdure.guardrail_results.segment IS 'The segment of the run it was in.';
COMMENT ON COLUMN perdure.guardrail_results.agent IS 'The agent whose input or output it was.';
COMMENT ON COLUMN perdure.guardrail_results.guardrail IS 'The guardrail, by its name.';
COMMENT ON COLUMN perdure.guardrail_results.kind IS 'Whether it was of the input or the output.';
COMMENT ON COLUMN perdure.guardrail_results.latency_ms IS 'How long it took, in milliseconds.';
COMMENT ON COLUMN perdure.idempotency_keys.route IS 'The call it was sent to, method and path.';
COMMENT ON COLUMN perdure.idempotency_keys.key IS 'The key, as it was sent.';
COMMENT ON COLUMN perdure.idempotency_keys.request_hash IS 'SHA-256 of the request: another one with the same key is refused.';
COMMENT ON COLUMN perdure.idempotency_keys.status_code IS 'The answer''s status; null while the request is under way.';
COMMENT ON COLUMN perdure.idempotency_keys.headers IS 'The answer''s own headers.';
COMMENT ON COLUMN perdure.idempotency_keys.body IS 'The answer''s bytes.';
COMMENT ON COLUMN perdure.idempotency_keys.expires_at IS 'Until when it is kept.';
COMMENT ON COLUMN perdure.interruptions.segment IS 'The segment that ended with it.';
COMMENT ON COLUMN perdure.interruptions.base_seq IS 'seq of the run state it belongs to.';
COMMENT ON COLUMN perdure.interruptions.tool_call_id IS 'The call it is about; null where it is about none.';
COMMENT ON COLUMN perdure.interruptions.type IS 'tool_approval, uncertain_effect, budget, question.';
COMMENT ON COLUMN perdure.interruptions.status IS 'pending, then how it was closed: approved, rejected, answered, resolved, expired, cancelled.';
COMMENT ON COLUMN perdure.interruptions.agent IS 'The agent that stopped.';
COMMENT ON COLUMN perdure.interruptions.scope IS 'Path of the tool calls it stopped beneath; empty at the top.';
COMMENT ON COLUMN perdure.interruptions.tool IS 'What is shown of the call: name, call_id, arguments, schema.';
COMMENT ON COLUMN perdure.interruptions.question IS 'What is asked, in words.';
COMMENT ON COLUMN perdure.interruptions.schema IS 'The JSON schema an answer has to fit.';
COMMENT ON COLUMN perdure.interruptions.digest IS 'Digest of what would be executed: an approval names it.';
COMMENT ON COLUMN perdure.interruptions.required IS 'How many people have to approve.';
COMMENT ON COLUMN perdure.interruptions.requested_at IS 'When it was asked.';
COMMENT ON COLUMN perdure.interruptions.expires_at IS 'When its time is over; null: never.';
COMMENT ON COLUMN perdure.interruptions.closed_at IS 'When it was decided, expired or was cancelled.';
COMMENT ON COLUMN perdure.interruptions.reminded IS 'How often people were reminded.';
COMMENT ON COLUMN perdure.interruptions.remind_at IS 'When they are reminded next.';
COMMENT ON COLUMN perdure.model_responses.position IS 'Its place in the order in which replies were recorded.';
COMMENT ON COLUMN perdure.model_responses.segment IS 'The segment that asked.';
COMMENT ON COLUMN perdure.model_responses.agent IS 'The agent that asked.';
COMMENT ON COLUMN perdure.model_responses.model IS 'The model, by its name.';
COMMENT ON COLUMN perdure.model_responses.response_id IS 'The provider''s id of the reply.';
COMMENT ON COLUMN perdure.model_responses.request_id IS 'The provider''s id of the request.';
COMMENT ON COLUMN perdure.model_responses.output IS 'The reply: Responses output items.';
COMMENT ON COLUMN perdure.model_responses.latency_ms IS 'How long it took, in milliseconds.';
COMMENT ON COLUMN perdure.model_responses.superseded IS 'Whether it was paid for and then not used, as its run went on otherwise.';
COMMENT ON COLUMN perdure.operations.tool_call_id IS 'The call that changed it.';
COMMENT ON COLUMN perdure.policies.created_by IS 'Who made it: type, id, subject.';
COMMENT ON COLUMN perdure.repairs.kind IS 'What was wrong.';
COMMENT ON COLUMN perdure.repairs.run_id IS 'The run; it may be deleted since.';
COMMENT ON COLUMN perdure.repairs.segment IS 'Its segment.';
COMMENT ON COLUMN perdure.repairs.repaired_by IS 'The executor that repaired it.';
COMMENT ON COLUMN perdure.repairs.repaired_at IS 'When.';
COMMENT ON COLUMN perdure.repairs_purged.kind IS 'What was wrong, as in repairs.';
COMMENT ON COLUMN perdure.repairs_purged.repairs IS 'How many there were.';
COMMENT ON COLUMN perdure.request_usage_entries.run_id IS 'The run it was for.';
COMMENT ON COLUMN perdure.request_usage_entries.model_response_id IS 'The reply it is part of.';
COMMENT ON COLUMN perdure.request_usage_entries.agent IS 'The agent that asked.';
COMMENT ON COLUMN perdure.request_usage_entries.model IS 'The model that was asked; empty where its name is not known.';
COMMENT ON COLUMN perdure.request_usage_entries.input_tokens IS 'Tokens the model read.';
COMMENT ON COLUMN perdure.request_usage_entries.output_tokens IS 'Tokens the model wrote.';
COMMENT ON COLUMN perdure.request_usage_entries.total_tokens IS 'All tokens, as the provider counted them.';
COMMENT ON COLUMN perdure.request_usage_entries.created_at IS 'When the reply was recorded.';
COMMENT ON COLUMN perdure.run_event_heads.run_id IS 'The run.';
COMMENT ON COLUMN perdure.run_event_heads.seq IS 'The number of its last event.';
COMMENT ON COLUMN perdure.run_events.run_id IS 'The run it is of.';
COMMENT ON COLUMN perdure.run_events.seq IS 'Its number in the run, from 1.';
COMMENT ON COLUMN perdure.run_events.kind IS 'What happened.';
COMMENT ON COLUMN perdure.run_events.data IS 'What there is to say of it, as readers get it.';
COMMENT ON COLUMN perdure.run_inputs.added_by_type IS 'How who added it was recognised.';
COMMENT ON COLUMN perdure.run_inputs.added_by_id IS 'Their id in that.';
COMMENT ON COLUMN perdure.run_inputs.added_by_subject IS 'Who they are.';
COMMENT ON COLUMN perdure.run_inputs.given_at IS 'When it became part of that state.';
COMMENT ON COLUMN perdure.run_items.seq IS 'Its place in the run, from 1.';
COMMENT ON COLUMN perdure.run_items.type IS 'What it is: message, tool_call, tool_call_output, handoff, reasoning, …';
COMMENT ON COLUMN perdure.run_items.role IS 'Whose it is, where it says so.';
COMMENT ON COLUMN perdure.run_items.agent IS 'The agent it came from.';
COMMENT ON COLUMN perdure.run_items.created_at IS 'When it was written: at the rest after it.';
COMMENT ON COLUMN perdure.run_states.seq IS 'Its place in the run, from 1.';
COMMENT ON COLUMN perdure.run_states.kind IS 'Why it was written: interrupted, handoff, periodic (replaying would cost more), final.';
COMMENT ON COLUMN perdure.run_states.schema_version IS 'The SDK''s version of the format.';
COMMENT ON COLUMN perdure.run_states.sdk_version IS 'The version of the Agents SDK that wrote it.';
COMMENT ON COLUMN perdure.run_states.current_agent IS 'The agent the run was with.';
COMMENT ON COLUMN perdure.run_states.turn IS 'How many turns the run had had.';
COMMENT ON COLUMN perdure.run_states.is_active IS 'Whether the run goes on from it: one a run.';
COMMENT ON COLUMN perdure.run_states.resumed_at IS 'When a segment last went on from it.';
COMMENT ON COLUMN perdure.runs.id IS 'UUIDv7: rises with the time the run was accepted.';
COMMENT ON COLUMN perdure.runs.agent IS 'The agent it was started with.';
COMMENT ON COLUMN perdure.runs.current_agent IS 'The agent it is with now, after handoffs.';
COMMENT ON COLUMN perdure.runs.status IS 'queued, running, interrupted (waits for people), completed, failed, cancelled.';
COMMENT ON COLUMN perdure.runs.input IS 'What it was started with: a text, or Responses input items.';
COMMENT ON COLUMN perdure.runs.context IS 'The context it was started with, as JSON of the engine''s context_type.';
COMMENT ON COLUMN perdure.runs.output IS 'The final output of a completed one.';
COMMENT ON COLUMN perdure.runs.error_type IS 'Why a failed one failed.';
COMMENT ON COLUMN perdure.runs.error_message IS 'The same in words.';
COMMENT ON COLUMN perdure.runs.user_id IS 'The user it is for, by the caller''s name for them.';
COMMENT ON COLUMN perdure.runs.metadata IS 'The caller''s own; only stored.';
COMMENT ON COLUMN perdure.runs.turn IS 'How many turns it has had.';
COMMENT ON COLUMN perdure.runs.max_turns IS 'How many turns it may take; with more it fails.';
COMMENT ON COLUMN perdure.runs.priority IS 'Of waiting runs the one with the lowest goes first.';
COMMENT ON COLUMN perdure.runs.cancel_requested_at IS 'When somebody asked to cancel it.';
COMMENT ON COLUMN perdure.runs.created_at IS 'When it was accepted.';
COMMENT ON COLUMN perdure.runs.started_at IS 'When a worker first began it.';
COMMENT ON COLUMN perdure.runs.updated_at IS 'When its status last changed.';
COMMENT ON COLUMN perdure.runs.finished_at IS 'When it ended.';
COMMENT ON COLUMN perdure.runs.deleted_at IS 'Since when it is hidden; null: it is not.';
COMMENT ON COLUMN perdure.schema_migrations.version IS 'The migration''s number.';
COMMENT ON COLUMN perdure.schema_migrations.name IS 'Its name.';
COMMENT ON COLUMN perdure.schema_migrations.checksum IS 'sha256: of its file as it was applied; null: applied by hand.';
COMMENT ON COLUMN perdure.schema_migrations.applied_at IS 'When it was applied.';
COMMENT ON COLUMN perdure.segments.seq IS 'Its place in the run, from 1.';
COMMENT ON COLUMN perdure.segments.status IS 'scheduled (due_at says for when), queued, running, rested.';
COMMENT ON COLUMN perdure.segments.due_at IS 'When a scheduled one is queued; infinity: when its session''s turn comes.';
COMMENT ON COLUMN perdure.segments.created_at IS 'When it was asked for.';
COMMENT ON COLUMN perdure.segments.started_at IS 'When a worker began it.';
COMMENT ON COLUMN perdure.segments.rested_at IS 'When it came to a rest.';
COMMENT ON COLUMN perdure.segments.outcome IS 'What the rest was: interrupted, completed, failed, cancelled.';
COMMENT ON COLUMN perdure.session_holes.session_id IS 'The branch.';
COMMENT ON COLUMN perdure.session_holes.from_seq IS 'The first number that is gone.';
COMMENT ON COLUMN perdure.session_holes.to_seq IS 'The last.';
COMMENT ON COLUMN perdure.session_items.session_id IS 'The session it was said in.';
COMMENT ON COLUMN perdure.session_items.seq IS 'Its place in the session; a branch goes on after its parent''s.';
COMMENT ON COLUMN perdure.session_items.agent IS 'The agent that said it.';
COMMENT ON COLUMN perdure.session_items.run_id IS 'The run that said it; null: none, or one that is deleted.';
COMMENT ON COLUMN perdure.session_items.user_id IS 'The user it is of.';
COMMENT ON COLUMN perdure.session_items.token_count IS 'Tokens it took, where that is known.';
COMMENT ON COLUMN perdure.session_items.metadata IS 'The caller''s own, and what tools said by annotate().';
COMMENT ON COLUMN perdure.session_items.created_at IS 'When it was added.';
COMMENT ON COLUMN perdure.sessions.user_id IS 'The user whose it is, by the caller''s name for them.';
COMMENT ON COLUMN perdure.sessions.title IS 'What people call it.';
COMMENT ON COLUMN perdure.sessions.system_prompt IS 'What its runs are told beside their agents'' instructions.';
COMMENT ON COLUMN perdure.sessions.tags IS 'A list of words of the caller''s.';
COMMENT ON COLUMN perdure.sessions.metadata IS 'The caller''s own; only stored.';
COMMENT ON COLUMN perdure.sessions.status IS 'active, archived, completed.';
COMMENT ON COLUMN perdure.sessions.rating IS 'What somebody thinks of it, from 1 (worst) to 5.';
COMMENT ON COLUMN perdure.sessions.parent_session_id IS 'Of a branch: the session it is a branch of.';
COMMENT ON COLUMN perdure.sessions.depth IS 'How many ancestors it has.';
COMMENT ON COLUMN perdure.sessions.created_by IS 'Who made it: type, id, subject.';
COMMENT ON COLUMN perdure.sessions.updated_by IS 'Who last changed it: type, id, subject.';
COMMENT ON COLUMN perdure.sessions.created_at IS 'When it was made.';
COMMENT ON COLUMN perdure.sessions.updated_at IS 'When it last changed, or something was added.';
COMMENT ON COLUMN perdure.sessions.deleted_at IS 'Since when it is hidden; null: it is not.';
COMMENT ON COLUMN perdure.sweeps.name IS 'What is looked for.';
COMMENT ON COLUMN perdure.sweeps.due_at IS 'When it is looked for next.';
COMMENT ON COLUMN perdure.tenants.name IS 'What it is called by on the command line.';
COMMENT ON COLUMN perdure.tool_call_evidence.tool_call_id IS 'The call it is about.';
COMMENT ON COLUMN perdure.tool_call_evidence.kind IS 'late_outcome: what an execution said that was taken over; probe: what the tool''s probe said.';
COMMENT ON COLUMN perdure.tool_call_evidence.epoch IS 'Epoch of the execution it is from.';
COMMENT ON COLUMN perdure.tool_call_evidence.status IS 'What it says of the call.';
COMMENT ON COLUMN perdure.tool_call_evidence.output IS 'What the tool returned, by that.';
COMMENT ON COLUMN perdure.tool_call_evidence.error IS 'How it failed, by that.';
COMMENT ON COLUMN perdure.tool_calls.segment IS 'The segment it was last begun in.';
COMMENT ON COLUMN perdure.tool_calls.base_seq IS 'seq of the run state it came after (0: before the first).';
COMMENT ON COLUMN perdure.tool_calls.scope IS 'Path of the tool calls it was made beneath; empty at the top.';
COMMENT ON COLUMN perdure.tool_calls.call_id IS 'The model''s id of it: with run and scope it names the call.';
COMMENT ON COLUMN perdure.tool_calls.tool IS 'The tool, by the name models call it by.';
COMMENT ON COLUMN perdure.tool_calls.kind IS 'What sort of tool it is; agent: another agent used as a tool.';
COMMENT ON COLUMN perdure.tool_calls.agent IS 'The agent that called it.';
COMMENT ON COLUMN perdure.tool_calls.arguments IS 'The arguments the model wrote; null where they are no object.';
COMMENT ON COLUMN perdure.tool_calls.arguments_raw IS 'What the model wrote instead, where it is no object.';
COMMENT ON COLUMN perdure.tool_calls.effect IS 'What repeating it would mean; nested: its parts have effects of their own.';
COMMENT ON COLUMN perdure.tool_calls.status IS 'proposed, awaiting_approval, approved, rejected; executing; succeeded, failed, uncertain.';
COMMENT ON COLUMN perdure.tool_calls.attempt IS 'How often it was begun.';
COMMENT ON COLUMN perdure.tool_calls.idempotency_key IS 'The key its effect is done with: the same at every attempt.';
COMMENT ON COLUMN perdure.tool_calls.output IS 'What it returned: {type, text} or {type, value}.';
COMMENT ON COLUMN perdure.tool_calls.error IS 'How it failed: {type, message}.';
COMMENT ON COLUMN perdure.tool_calls.requested_at IS 'When the model''s wish for it was recorded.';
COMMENT ON COLUMN perdure.tool_calls.started_at IS 'When it was last begun.';
COMMENT ON COLUMN perdure.tool_calls.finished_at IS 'When what came of it was recorded.';
COMMENT ON COLUMN perdure.tool_guardrail_results.segment IS 'The segment of the run it was in.';
COMMENT ON COLUMN perdure.tool_guardrail_results.scope IS 'Path of the tool calls the call was made beneath; empty at the top.';
COMMENT ON COLUMN perdure.tool_guardrail_results.agent IS 'The agent that called the tool.';
COMMENT ON COLUMN perdure.tool_guardrail_results.tool IS 'The tool.';
COMMENT ON COLUMN perdure.tool_guardrail_results.guardrail IS 'The guardrail, by its name.';
COMMENT ON COLUMN perdure.tool_guardrail_results.kind IS 'Whether it was of the arguments (input) or the output.';
COMMENT ON COLUMN perdure.tool_guardrail_results.latency_ms IS 'How long it took, in milliseconds.';
COMMENT ON COLUMN perdure.usage_metrics.agent IS 'The agent that asked.';
COMMENT ON COLUMN perdure.usage_metrics.model IS 'The model that was asked; empty where its name is not known.';
COMMENT ON COLUMN perdure.usage_metrics.requests IS 'How many requests it was.';
COMMENT ON COLUMN perdure.usage_metrics.input_tokens IS 'Tokens the model read.';
COMMENT ON COLUMN perdure.usage_metrics.cached_input_tokens IS 'Those of input_tokens that were read from the provider''s cache.';
COMMENT ON COLUMN perdure.usage_metrics.cache_write_tokens IS 'Those of input_tokens that were written to the provider''s cache.';
COMMENT ON COLUMN perdure.usage_metrics.output_tokens IS 'Tokens the model wrote.';
COMMENT ON COLUMN perdure.usage_metrics.reasoning_tokens IS 'Those of output_tokens that were spent on reasoning.';
COMMENT ON COLUMN perdure.usage_metrics.total_tokens IS 'All tokens, as the provider counted them.';
COMMENT ON COLUMN perdure.user_sessions.user_id IS 'Whom it acts as.';
COMMENT ON COLUMN perdure.user_sessions.label IS 'What it is for, as whoever made it said.';
COMMENT ON COLUMN perdure.user_sessions.metadata IS 'The caller''s own; only stored.';
COMMENT ON COLUMN perdure.user_sessions.created_by IS 'Who made it: type, id, subject.';
COMMENT ON COLUMN perdure.user_sessions.created_at IS 'When it was made.';
COMMENT ON COLUMN perdure.user_sessions.expires_at IS 'Until when it can be used.';
COMMENT ON COLUMN perdure.user_sessions.last_used_at IS 'When it was last used, now and then written down.';
COMMENT ON COLUMN perdure.user_sessions.revoked_at IS 'Since when it opens nothing any more.';
COMMENT ON COLUMN perdure.webhook_deliveries.webhook_id IS 'Where it goes.';
COMMENT ON COLUMN perdure.webhook_deliveries.event IS 'What happened.';
COMMENT ON COLUMN perdure.webhook_deliveries.run_id IS 'The run it is about.';
COMMENT ON COLUMN perdure.webhook_deliveries.interruption_id IS 'The interruption it is about.';
COMMENT ON COLUMN perdure.webhook_deliveries.status IS 'pending, delivered, or failed: given up.';
COMMENT ON COLUMN perdure.webhook_deliveries.due_at IS 'When the next attempt is due.';
COMMENT ON COLUMN perdure.webhook_deliveries.status_code IS 'What the last attempt was answered with.';
COMMENT ON COLUMN perdure.webhook_deliveries.error IS 'Why the last attempt failed.';
COMMENT ON COLUMN perdure.webhook_deliveries.response IS 'The beginning of what was answered.';
COMMENT ON COLUMN perdure.webhook_deliveries.latency_ms IS 'How long the last attempt took, in milliseconds.';
COMMENT ON COLUMN perdure.webhook_deliveries.finished_at IS 'When it was delivered or given up.';
COMMENT ON COLUMN perdure.webhooks.url IS 'Where its events are sent.';
COMMENT ON COLUMN perdure.webhooks.description IS 'What it is for, as whoever made it said.';
COMMENT ON COLUMN perdure.webhooks.old_secret_until IS 'Until when the old secret signs as well.';
COMMENT ON COLUMN perdure.webhooks.disabled_at IS 'Since when nothing is sent there.';
COMMENT ON COLUMN perdure.webhooks.disabled_reason IS 'Why.';
COMMENT ON COLUMN perdure.run_items.text IS 'What of it a person would read.';
COMMENT ON COLUMN perdure.run_items.item IS 'The item as the SDK gave it.';
COMMENT ON COLUMN perdure.run_states.state IS 'The state, as the SDK serialized it.';
COMMENT ON COLUMN perdure.run_states.size_bytes IS 'The size of the state.';
COMMENT ON COLUMN perdure_read.agents.version IS 'Its current version, by the first hex digits of its hash; null: of the time before there were versions.';
COMMENT ON COLUMN perdure_read.agents.handoff_description IS 'What other agents read of it.';
COMMENT ON COLUMN perdure_read.agents.instructions IS 'The instructions, where they are a text.';
COMMENT ON COLUMN perdure_read.agents.instructions_by IS 'The function that makes the instructions, where one does.';
COMMENT ON COLUMN perdure_read.agents.prompt IS 'The prompt kept by the provider: id, version, variables.';
COMMENT ON COLUMN perdure_read.agents.prompt_by IS 'The function that makes the prompt, where one does.';
COMMENT ON COLUMN perdure_read.agents.model IS 'The model by its name; null: the provider''s default.';
COMMENT ON COLUMN perdure_read.agents.model_settings_id IS 'The settings its model is asked with.';
COMMENT ON COLUMN perdure_read.agents.output_type IS 'The type of its final output; null: text.';
COMMENT ON COLUMN perdure_read.agents.output_schema IS 'The JSON schema of that type.';
COMMENT ON COLUMN perdure_read.agents.behavior IS 'tool_use_behavior, reset_tool_choice, hooks and mcp_config.';
COMMENT ON COLUMN perdure_read.agent_tools.agent_id IS 'The agent.';
COMMENT ON COLUMN perdure_read.agent_handoffs.agent_id IS 'The agent.';
COMMENT ON COLUMN perdure_read.agent_guardrails.agent_id IS 'The agent.';
COMMENT ON COLUMN perdure_read.agent_mcp_servers.agent_id IS 'The agent.';
COMMENT ON COLUMN perdure_read.tool_guardrails.tool_ids IS 'The tools it guards.';
COMMENT ON COLUMN perdure_read.runs.duration_seconds IS 'From its start to its end, with all that it waited.';
COMMENT ON COLUMN perdure_read.runs.working_seconds IS 'The time its segments took: without the waiting for people between them.';
COMMENT ON COLUMN perdure_read.session_items.item_data IS 'The item, as it was given.';
COMMENT ON COLUMN perdure_read.run_items.item_data IS 'The item, as the SDK gave it.';
COMMENT ON COLUMN perdure_read.tool_calls.duration_seconds IS 'From its start to its outcome.';
COMMENT ON COLUMN perdure_read.interruptions.tool IS 'The tool, by its name.';
COMMENT ON COLUMN perdure_read.interruptions.arguments IS 'The arguments that were shown.';
COMMENT ON COLUMN perdure_read.interruptions.waiting_seconds IS 'From the question to its end; up to now where it is open.';
COMMENT ON COLUMN perdure_read.usage_metrics.estimated_cost IS 'What the requests cost whose price is known, in USD; null where none is.';
COMMENT ON COLUMN perdure_read.request_usage_entries.estimated_cost IS 'What it cost by the price beside it, in USD; null where no price of its model is known.';
COMMENT ON COLUMN perdure_read.run_states.state_type IS 'interrupted, checkpoint, final.';
COMMENT ON COLUMN perdure_read.run_states.state_data IS 'The whole state, as the SDK serialized it.';
COMMENT ON COLUMN perdure_read.active_runs.age_seconds IS 'Since it was accepted.';
COMMENT ON COLUMN perdure_read.active_runs.questions IS 'How many questions it waits on.';
COMMENT ON COLUMN perdure_read.usage_by_day.estimated_cost IS 'What the requests cost whose price is known, in USD; null where none is.';
COMMENT ON COLUMN perdure_read.agent_runs.tenant_id IS 'Whose runs.';
COMMENT ON COLUMN perdure_read.agent_runs.agent IS 'The agent they were started with.';
COMMENT ON COLUMN perdure_read.agent_runs.runs IS 'How many.';
COMMENT ON COLUMN perdure_read.agent_runs.active IS 'Those that have not ended.';
COMMENT ON COLUMN perdure_read.agent_runs.completed IS 'Those that completed.';
COMMENT ON COLUMN perdure_read.agent_runs.failed IS 'Those that failed.';
COMMENT ON COLUMN perdure_read.agent_runs.cancelled IS 'Those that were cancelled.';
COMMENT ON COLUMN perdure_read.agent_runs.failure_rate IS 'failed of completed and failed: 0 to 1.';
COMMENT ON COLUMN perdure_read.agent_runs.p50_seconds IS 'Half of those that ended took no longer from start to end, with all that they waited.';
COMMENT ON COLUMN perdure_read.agent_runs.p95_seconds IS '19 of 20 took no longer.';
COMMENT ON COLUMN perdure_read.agent_runs.p50_working_seconds IS 'The same without the waiting for people: what their segments took.';
COMMENT ON COLUMN perdure_read.agent_runs.p95_working_seconds IS 'The same without the waiting for people.';
COMMENT ON COLUMN perdure_read.people_waits.tenant_id IS 'Whose runs.';
COMMENT ON COLUMN perdure_read.people_waits.agent IS 'The agent that asked.';
COMMENT ON COLUMN perdure_read.people_waits.type IS 'tool_approval, uncertain_effect, budget, question.';
COMMENT ON COLUMN perdure_read.people_waits.asked IS 'How many questions.';
COMMENT ON COLUMN perdure_read.people_waits.decided IS 'Those that somebody decided, or a policy or a grant did.';
COMMENT ON COLUMN perdure_read.people_waits.expired IS 'Those whose time was over first.';
COMMENT ON COLUMN perdure_read.people_waits.cancelled IS 'Those that went with their run, or changed.';
COMMENT ON COLUMN perdure_read.people_waits.waiting IS 'Those that still wait.';
COMMENT ON COLUMN perdure_read.people_waits.p50_seconds IS 'Half of the decisions took no longer.';
COMMENT ON COLUMN perdure_read.people_waits.p95_seconds IS '19 of 20 took no longer.';
COMMENT ON COLUMN perdure_read.people_waits.longest_waiting_seconds IS 'How long the oldest of those has waited that still wait.';
COMMENT ON COLUMN perdure_read.waiting_for_people.tool IS 'The tool, by its name.';
COMMENT ON COLUMN perdure_read.waiting_for_people.user_id IS 'The user the run is for.';
COMMENT ON COLUMN perdure_read.waiting_for_people.waiting_seconds IS 'Since it was asked.';
COMMENT ON COLUMN perdure_read.tool_times.tenant_id IS 'Whose runs.';
COMMENT ON COLUMN perdure_read.tool_times.tool IS 'The tool, by its name.';
COMMENT ON COLUMN perdure_read.tool_times.kind IS 'What sort of tool it is; agent: another agent used as a tool, which takes as long as all it does.';
COMMENT ON COLUMN perdure_read.tool_times.calls IS 'Calls that were begun.';
COMMENT ON COLUMN perdure_read.tool_times.succeeded IS 'Those that succeeded.';
COMMENT ON COLUMN perdure_read.tool_times.failed IS 'Those that failed.';
COMMENT ON COLUMN perdure_read.tool_times.uncertain IS 'Those of which nobody knows whether they happened.';
COMMENT ON COLUMN perdure_read.tool_times.failure_rate IS 'failed of succeeded and failed: 0 to 1.';
COMMENT ON COLUMN perdure_read.tool_times.p50_seconds IS 'Half of those that ended took no longer.';
COMMENT ON COLUMN perdure_read.tool_times.p95_seconds IS '19 of 20 took no longer.';
COMMENT ON COLUMN perdure_read.tool_times.slowest_seconds IS 'The one that took longest.';
COMMENT ON COLUMN perdure_read.uncertain_effects.tool_call_id IS 'The call.';
COMMENT ON COLUMN perdure_read.uncertain_effects.agent_id IS 'The agent the run was started with.';
COMMENT ON COLUMN perdure_read.uncertain_effects.run_status IS 'How its run stands.';
COMMENT ON COLUMN perdure_read.uncertain_effects.user_id IS 'The user the run is for.';
COMMENT ON COLUMN perdure_read.uncertain_effects.interruption_id IS 'The question about it.';
COMMENT ON COLUMN perdure_read.uncertain_effects.interruption_status IS 'pending: it waits for a person; else nobody answered.';
COMMENT ON COLUMN perdure_read.uncertain_effects.requested_at IS 'When people were asked.';
COMMENT ON COLUMN perdure_read.uncertain_effects.age_seconds IS 'Since it was begun.';

-- What is the same everywhere; and of the views what they have of the tables by the same name.
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT a.attrelid, a.attname, w.words
               FROM pg_class t
               JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
               JOIN (VALUES ('id', 'UUIDv7.'), ('tenant_id', 'Whose it is.'),
                            ('run_id', 'The run it belongs to.'),
                            ('created_at', 'When it was written.'),
                            ('updated_at', 'When it last changed.')) w(name, words)
                 ON w.name = a.attname
              WHERE t.relnamespace = 'perdure'::regnamespace AND t.relkind IN ('r', 'p')
                AND NOT t.relispartition AND col_description(t.oid, a.attnum) IS NULL LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', c.attrelid::regclass, c.attname, c.words);
    END LOOP;
    FOR c IN SELECT v.oid AS view, obj_description(t.oid) AS words
               FROM pg_class v
               JOIN pg_class t ON t.relname = v.relname AND t.relnamespace = 'perdure'::regnamespace
              WHERE v.relnamespace = 'perdure_read'::regnamespace AND v.relkind = 'v'
                AND obj_description(v.oid) IS NULL LOOP
        EXECUTE format('COMMENT ON VIEW %s IS %L', c.view::regclass, c.words);
    END LOOP;
    FOR c IN SELECT v.oid AS view, a.attname, col_description(t.oid, b.attnum) AS words
               FROM pg_class v
               JOIN pg_attribute a ON a.attrelid = v.oid AND a.attnum > 0
               JOIN pg_class t ON t.relnamespace = 'perdure'::regnamespace
                AND t.relname = CASE v.relname
                        WHEN 'active_runs' THEN 'runs' WHEN 'usage_by_day' THEN 'usage_daily'
                        WHEN 'waiting_for_people' THEN 'interruptions'
                        WHEN 'uncertain_effects' THEN 'tool_calls' ELSE v.relname END
               JOIN pg_attribute b ON b.attrelid = t.oid AND b.attname = a.attname
              WHERE v.relnamespace = 'perdure_read'::regnamespace AND v.relkind = 'v'
                AND col_description(v.oid, a.attnum) IS NULL
                AND col_description(t.oid, b.attnum) IS NOT NULL LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', c.view::regclass, c.attname, c.words);
    END LOOP;
END
$$;

INSERT INTO perdure.schema_migrations (version, name) VALUES (25, 'questions');
