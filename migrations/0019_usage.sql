-- What was asked of models and what it cost: each request by itself, and summed by run, agent and
-- model; and what guardrails said. The sums are written by the statement that writes their parts.

ALTER TABLE perdure.model_responses
    ADD COLUMN settings jsonb,
    ADD COLUMN attempt  int NOT NULL DEFAULT 1 CHECK (attempt > 0);
COMMENT ON COLUMN perdure.model_responses.settings IS 'The settings it was asked with, those that were set; without extra headers, query and body, which may hold secrets.';
COMMENT ON COLUMN perdure.model_responses.attempt IS 'Which attempt at the request it answered: those before failed.';

CREATE TABLE perdure.request_usage_entries (
    id                  uuid        NOT NULL,
    run_id              uuid        NOT NULL,
    model_response_id   uuid        NOT NULL,
    position            int         NOT NULL DEFAULT 0 CHECK (position >= 0),
    tenant_id           uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    agent               text        NOT NULL,
    model               text        NOT NULL,
    requests            int         NOT NULL DEFAULT 1 CHECK (requests >= 0),
    input_tokens        bigint      NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
    cached_input_tokens bigint      NOT NULL DEFAULT 0 CHECK (cached_input_tokens >= 0),
    cache_write_tokens  bigint      NOT NULL DEFAULT 0 CHECK (cache_write_tokens >= 0),
    output_tokens       bigint      NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
    reasoning_tokens    bigint      NOT NULL DEFAULT 0 CHECK (reasoning_tokens >= 0),
    total_tokens        bigint      NOT NULL DEFAULT 0 CHECK (total_tokens >= 0),
    cost_usd            numeric     CHECK (cost_usd >= 0),
    price               jsonb,
    price_date          date,
    price_source        text,
    created_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, model_response_id, position),
    FOREIGN KEY (run_id, model_response_id)
        REFERENCES perdure.model_responses (run_id, id) ON DELETE CASCADE,
    CONSTRAINT costs_have_a_price CHECK (
        num_nonnulls(cost_usd, price, price_date, price_source) IN (0, 4))
);
-- Written in the order of time: what a period has is found without an entry for each row.
CREATE INDEX request_usage_entries_time ON perdure.request_usage_entries
    USING brin (created_at) WITH (pages_per_range = 16);
COMMENT ON TABLE perdure.request_usage_entries IS 'What each request to a model used and cost. All sums of usage are sums of these.';
COMMENT ON COLUMN perdure.request_usage_entries.id IS 'Its id: that of the reply where the reply was one request.';
COMMENT ON COLUMN perdure.request_usage_entries.position IS 'Its place among the requests a reply took, from 0.';
COMMENT ON COLUMN perdure.request_usage_entries.requests IS 'One; more where a provider told of several only in sum.';
COMMENT ON COLUMN perdure.request_usage_entries.cached_input_tokens IS 'Those of input_tokens that were read from the provider''s cache.';
COMMENT ON COLUMN perdure.request_usage_entries.cache_write_tokens IS 'Those of input_tokens that were written to the provider''s cache.';
COMMENT ON COLUMN perdure.request_usage_entries.reasoning_tokens IS 'Those of output_tokens that were spent on reasoning.';
COMMENT ON COLUMN perdure.request_usage_entries.cost_usd IS 'What it cost by the price beside it; null where no price of its model is known.';
COMMENT ON COLUMN perdure.request_usage_entries.price IS 'The price it was counted by: USD per million tokens (or per thousand, where the name says kcount) by kind.';
COMMENT ON COLUMN perdure.request_usage_entries.price_date IS 'The day that price was taken from the price list, or is said to be of.';
COMMENT ON COLUMN perdure.request_usage_entries.price_source IS 'Whose price it is: a price list and its version, or "own".';

INSERT INTO perdure.request_usage_entries (
       id, run_id, model_response_id, tenant_id, agent, model, requests, input_tokens,
       cached_input_tokens, output_tokens, reasoning_tokens, total_tokens, created_at)
SELECT id, run_id, id, tenant_id, agent, coalesce(model, ''), requests, input_tokens,
       cached_input_tokens, output_tokens, reasoning_tokens, total_tokens, created_at
  FROM perdure.model_responses ORDER BY position;
ALTER TABLE perdure.model_responses
    DROP COLUMN requests, DROP COLUMN input_tokens, DROP COLUMN cached_input_tokens,
    DROP COLUMN output_tokens, DROP COLUMN reasoning_tokens, DROP COLUMN total_tokens;

CREATE TABLE perdure.usage_metrics (
    run_id              uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    agent               text        NOT NULL,
    model               text        NOT NULL,
    tenant_id           uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    requests            int         NOT NULL CHECK (requests >= 0),
    unpriced_requests   int         NOT NULL CHECK (unpriced_requests BETWEEN 0 AND requests),
    input_tokens        bigint      NOT NULL CHECK (input_tokens >= 0),
    cached_input_tokens bigint      NOT NULL CHECK (cached_input_tokens >= 0),
    cache_write_tokens  bigint      NOT NULL CHECK (cache_write_tokens >= 0),
    output_tokens       bigint      NOT NULL CHECK (output_tokens >= 0),
    reasoning_tokens    bigint      NOT NULL CHECK (reasoning_tokens >= 0),
    total_tokens        bigint      NOT NULL CHECK (total_tokens >= 0),
    cost_usd            numeric     NOT NULL CHECK (cost_usd >= 0),
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, agent, model)
) WITH (fillfactor = 50);
COMMENT ON TABLE perdure.usage_metrics IS 'What a run used, by agent and model: sums of request_usage_entries, written with them.';
COMMENT ON COLUMN perdure.usage_metrics.unpriced_requests IS 'Requests to models whose price is not known: they are not in cost_usd.';
COMMENT ON COLUMN perdure.usage_metrics.cost_usd IS 'What the requests cost whose price is known.';

INSERT INTO perdure.usage_metrics (
       run_id, agent, model, tenant_id, requests, unpriced_requests, input_tokens,
       cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, total_tokens,
       cost_usd, created_at, updated_at)
SELECT run_id, agent, model, tenant_id, sum(requests), sum(requests), sum(input_tokens),
       sum(cached_input_tokens), 0, sum(output_tokens), sum(reasoning_tokens), sum(total_tokens),
       0, min(created_at), max(created_at)
  FROM perdure.request_usage_entries GROUP BY run_id, agent, model, tenant_id;

-- What a run used, in all: `{requests, unpriced_requests, …_tokens, cost_usd}`. The cost is null
-- where there is no request whose price is known, though there are requests.
CREATE FUNCTION perdure.usage_of(run uuid) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT jsonb_build_object(
               'requests', coalesce(sum(m.requests), 0),
               'unpriced_requests', coalesce(sum(m.unpriced_requests), 0),
               'input_tokens', coalesce(sum(m.input_tokens), 0),
               'cached_input_tokens', coalesce(sum(m.cached_input_tokens), 0),
               'cache_write_tokens', coalesce(sum(m.cache_write_tokens), 0),
               'output_tokens', coalesce(sum(m.output_tokens), 0),
               'reasoning_tokens', coalesce(sum(m.reasoning_tokens), 0),
               'total_tokens', coalesce(sum(m.total_tokens), 0),
               'cost_usd', CASE WHEN sum(m.requests) > sum(m.unpriced_requests)
                                     OR coalesce(sum(m.requests), 0) = 0
                                THEN coalesce(sum(m.cost_usd), 0)::text END)
      FROM perdure.usage_metrics m WHERE m.run_id = run
$$;

-- What a reply used, however many requests it took.
CREATE FUNCTION perdure.usage_of_reply(run uuid, reply uuid) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT jsonb_build_object(
               'requests', coalesce(sum(u.requests), 0),
               'input_tokens', coalesce(sum(u.input_tokens), 0),
               'cached_input_tokens', coalesce(sum(u.cached_input_tokens), 0),
               'cache_write_tokens', coalesce(sum(u.cache_write_tokens), 0),
               'output_tokens', coalesce(sum(u.output_tokens), 0),
               'reasoning_tokens', coalesce(sum(u.reasoning_tokens), 0),
               'total_tokens', coalesce(sum(u.total_tokens), 0))
      FROM perdure.request_usage_entries u
     WHERE u.run_id = run AND u.model_response_id = reply
$$;

CREATE TABLE perdure.guardrail_results (
    id                 uuid        NOT NULL,
    run_id             uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    tenant_id          uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    segment            int         NOT NULL CHECK (segment > 0),
    scope              text        NOT NULL DEFAULT '',
    agent              text        NOT NULL,
    guardrail          text        NOT NULL,
    kind               text        NOT NULL CHECK (kind IN ('input', 'output')),
    tripwire_triggered boolean     NOT NULL,
    output_info        jsonb,
    latency_ms         int         NOT NULL CHECK (latency_ms >= 0),
    created_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, id)
);
COMMENT ON TABLE perdure.guardrail_results IS 'What guardrails said of an agent''s input or output, as far as the run got with it: written with its next state or its end.';
COMMENT ON COLUMN perdure.guardrail_results.scope IS 'Path of the tool calls the agent ran beneath; empty at the top.';
COMMENT ON COLUMN perdure.guardrail_results.output_info IS 'What the guardrail gave as its reasons, as JSON.';
COMMENT ON COLUMN perdure.guardrail_results.tripwire_triggered IS 'Whether it stopped the agent.';

CREATE TABLE perdure.tool_guardrail_results (
    id          uuid        NOT NULL,
    run_id      uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    tenant_id   uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    segment     int         NOT NULL CHECK (segment > 0),
    scope       text        NOT NULL DEFAULT '',
    agent       text        NOT NULL,
    tool        text        NOT NULL,
    call_id     text        NOT NULL,
    guardrail   text        NOT NULL,
    kind        text        NOT NULL CHECK (kind IN ('input', 'output')),
    behavior    text        NOT NULL CHECK (behavior IN ('allow', 'reject_content', 'raise_exception')),
    message     text,
    output_info jsonb,
    latency_ms  int         NOT NULL CHECK (latency_ms >= 0),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, id)
);
COMMENT ON TABLE perdure.tool_guardrail_results IS 'What guardrails said of a tool call''s arguments or output.';
COMMENT ON COLUMN perdure.tool_guardrail_results.call_id IS 'The call it was about: with run and scope it names a row of tool_calls.';
COMMENT ON COLUMN perdure.tool_guardrail_results.behavior IS 'What came of it: allow, reject_content (the model reads message instead), raise_exception (the run fails).';
COMMENT ON COLUMN perdure.tool_guardrail_results.message IS 'What the model was told where the content was rejected.';
COMMENT ON COLUMN perdure.tool_guardrail_results.output_info IS 'What the guardrail gave as its reasons, as JSON.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (19, 'usage');
