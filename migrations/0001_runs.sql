-- Runs, their segments and states, the ledger, interruptions and decisions, keys.
--
-- Every key of a table that grows begins with a UUIDv7 (`runs.id`, elsewhere `run_id`), so that it
-- can be partitioned by range of that column later without changing a constraint. Everything a
-- tenant owns carries `tenant_id`. Times are timestamptz on the database's clock. Statuses change by
-- compare-and-set; CHECKs make wrong ones impossible.

CREATE SCHEMA IF NOT EXISTS perdure;

CREATE TABLE perdure.tenants (
    id          uuid        PRIMARY KEY,
    name        text        NOT NULL UNIQUE CHECK (name <> ''),
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE perdure.tenants IS 'Who owns what. One default tenant exists from the start.';

INSERT INTO perdure.tenants (id, name)
VALUES ('00000000-0000-7000-8000-000000000000', 'default');

CREATE TABLE perdure.api_keys (
    id          uuid        PRIMARY KEY,
    tenant_id   uuid        NOT NULL REFERENCES perdure.tenants ON DELETE CASCADE,
    name        text        NOT NULL DEFAULT '',
    subject     text,
    roles       text[]      NOT NULL CHECK (
                    cardinality(roles) > 0
                    AND roles <@ ARRAY['runs:read', 'runs:write', 'decisions:write', 'admin']),
    key_hash    bytea       NOT NULL UNIQUE CHECK (length(key_hash) = 32),
    key_hint    text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at  timestamptz
);
CREATE INDEX api_keys_tenant ON perdure.api_keys (tenant_id, created_at);
COMMENT ON COLUMN perdure.api_keys.key_hash IS 'SHA-256 of a random 256-bit key; the key itself is shown once and never stored.';
COMMENT ON COLUMN perdure.api_keys.key_hint IS 'The first characters of the key, to tell keys apart in a list.';

CREATE TABLE perdure.idempotency_keys (
    tenant_id     uuid        NOT NULL REFERENCES perdure.tenants ON DELETE CASCADE,
    route         text        NOT NULL,
    key           text        NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_hash  bytea       NOT NULL,
    status_code   int,
    headers       jsonb,
    body          bytea,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL DEFAULT now() + interval '24 hours',
    PRIMARY KEY (tenant_id, route, key)
);
CREATE INDEX idempotency_keys_expiry ON perdure.idempotency_keys (expires_at);

CREATE TABLE perdure.runs (
    id                  uuid        PRIMARY KEY,
    tenant_id           uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    agent               text        NOT NULL CHECK (agent <> ''),
    current_agent       text        NOT NULL,
    status              text        NOT NULL DEFAULT 'queued' CHECK (status IN
                            ('queued', 'running', 'interrupted', 'completed', 'failed', 'cancelled')),
    input               jsonb       NOT NULL,
    context             jsonb,
    output              jsonb,
    error_type          text        CHECK (error_type IN ('model_error', 'max_turns', 'guardrail',
                            'programming_error', 'abandoned', 'quarantined', 'budget', 'infrastructure')),
    error_message       text,
    user_id             text,
    metadata            jsonb       NOT NULL DEFAULT '{}',
    turn                int         NOT NULL DEFAULT 0 CHECK (turn >= 0),
    max_turns           int         NOT NULL CHECK (max_turns > 0),
    priority            int         NOT NULL DEFAULT 0 CHECK (priority >= 0),
    segment             int         NOT NULL DEFAULT 1 CHECK (segment > 0),
    cancel_requested_at timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    updated_at          timestamptz NOT NULL DEFAULT now(),
    finished_at         timestamptz,
    deleted_at          timestamptz,
    CONSTRAINT failed_runs_say_why CHECK ((status = 'failed') = (error_type IS NOT NULL)),
    CONSTRAINT finished_runs_have_an_end
        CHECK ((status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
);
CREATE INDEX runs_tenant ON perdure.runs (tenant_id, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX runs_tenant_status ON perdure.runs (tenant_id, status, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX runs_tenant_agent ON perdure.runs (tenant_id, agent, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX runs_tenant_user ON perdure.runs (tenant_id, user_id, id DESC)
    WHERE user_id IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX runs_active ON perdure.runs (status, id)
    WHERE status IN ('queued', 'running', 'interrupted');
COMMENT ON COLUMN perdure.runs.segment IS 'The segment the run is in, or would go on with: the compare-and-set a segment begins by.';

CREATE TABLE perdure.segments (
    run_id       uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    seq          int         NOT NULL CHECK (seq > 0),
    tenant_id    uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    status       text        NOT NULL DEFAULT 'queued'
                     CHECK (status IN ('scheduled', 'queued', 'running', 'rested')),
    epoch        int         NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    executor_id  text,
    executions   int         NOT NULL DEFAULT 0 CHECK (executions >= 0),
    due_at       timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    rested_at    timestamptz,
    outcome      text        CHECK (outcome IN ('interrupted', 'completed', 'failed', 'cancelled')),
    PRIMARY KEY (run_id, seq),
    CONSTRAINT scheduled_segments_are_due CHECK (status <> 'scheduled' OR due_at IS NOT NULL),
    CONSTRAINT rested_segments_have_an_outcome CHECK ((status = 'rested') = (outcome IS NOT NULL))
);
CREATE UNIQUE INDEX segments_one_open ON perdure.segments (run_id) WHERE status <> 'rested';
CREATE INDEX segments_due ON perdure.segments (due_at) WHERE status = 'scheduled';
COMMENT ON TABLE perdure.segments IS 'The part of a run between two resting points: one DBOS workflow, id <run_id>:<seq>.';
COMMENT ON COLUMN perdure.segments.epoch IS 'Raised by every execution. Each ledger write locks this row and checks it: the fence against a worker that was taken over.';
COMMENT ON COLUMN perdure.segments.executions IS 'How often the segment was begun: more than once after crashes.';

CREATE TABLE perdure.run_states (
    id             uuid        NOT NULL,
    run_id         uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    seq            int         NOT NULL CHECK (seq > 0),
    tenant_id      uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    kind           text        NOT NULL CHECK (kind IN ('interrupted', 'handoff', 'periodic', 'final')),
    schema_version text        NOT NULL,
    sdk_version    text        NOT NULL,
    current_agent  text        NOT NULL,
    turn           int         NOT NULL CHECK (turn >= 0),
    state          jsonb       NOT NULL,
    size_bytes     int         NOT NULL CHECK (size_bytes > 0),
    is_active      boolean     NOT NULL DEFAULT true,
    created_at     timestamptz NOT NULL DEFAULT now(),
    resumed_at     timestamptz,
    PRIMARY KEY (run_id, id),
    UNIQUE (run_id, seq)
);
-- A state is large and read whole: compressing it costs more than it saves.
ALTER TABLE perdure.run_states ALTER COLUMN state SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX run_states_one_active ON perdure.run_states (run_id) WHERE is_active;
COMMENT ON TABLE perdure.run_states IS 'Checkpoints: the SDK''s serialized RunState. A run goes on from its one active row.';

CREATE TABLE perdure.run_items (
    id          uuid        NOT NULL,
    run_id      uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    seq         int         NOT NULL CHECK (seq > 0),
    tenant_id   uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    type        text        NOT NULL,
    role        text,
    agent       text,
    text        text,
    item        jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, id),
    UNIQUE (run_id, seq)
);

-- A sequence and not an identity column, which partitions could not have before PostgreSQL 17.
CREATE SEQUENCE perdure.model_response_positions;
CREATE TABLE perdure.model_responses (
    id                  uuid        NOT NULL,
    run_id              uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    tenant_id           uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    position            bigint      NOT NULL DEFAULT nextval('perdure.model_response_positions'),
    segment             int         NOT NULL,
    base_seq            int         NOT NULL CHECK (base_seq >= 0),
    scope               text        NOT NULL,
    agent               text        NOT NULL,
    input_hash          text        NOT NULL,
    model               text,
    response_id         text,
    request_id          text,
    output              jsonb       NOT NULL,
    requests            int         NOT NULL DEFAULT 1 CHECK (requests >= 0),
    input_tokens        bigint      NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
    cached_input_tokens bigint      NOT NULL DEFAULT 0 CHECK (cached_input_tokens >= 0),
    output_tokens       bigint      NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
    reasoning_tokens    bigint      NOT NULL DEFAULT 0 CHECK (reasoning_tokens >= 0),
    total_tokens        bigint      NOT NULL DEFAULT 0 CHECK (total_tokens >= 0),
    latency_ms          int         NOT NULL CHECK (latency_ms >= 0),
    superseded          boolean     NOT NULL DEFAULT false,
    created_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, id)
);
CREATE INDEX model_responses_run ON perdure.model_responses (run_id, base_seq, position);
COMMENT ON COLUMN perdure.model_responses.base_seq IS 'seq of the run state the reply was given after (0: before the first).';
COMMENT ON COLUMN perdure.model_responses.scope IS 'Path of the tool calls the reply was asked for beneath; empty at the top.';
COMMENT ON COLUMN perdure.model_responses.input_hash IS 'Hash of the input items answered: with scope and agent what a replay is matched by.';

CREATE TABLE perdure.tool_calls (
    id               uuid        NOT NULL,
    run_id           uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    tenant_id        uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    segment          int         NOT NULL,
    base_seq         int         NOT NULL CHECK (base_seq >= 0),
    scope            text        NOT NULL,
    call_id          text        NOT NULL,
    tool             text        NOT NULL,
    kind             text        NOT NULL CHECK (kind IN ('function', 'agent', 'mcp', 'custom', 'shell',
                         'local_shell', 'apply_patch', 'computer', 'hosted_mcp')),
    agent            text        NOT NULL,
    arguments        jsonb,
    arguments_raw    text,
    effect           text        NOT NULL CHECK (effect IN ('read', 'idempotent', 'transactional', 'at_most_once', 'nested')),
    status           text        NOT NULL CHECK (status IN ('proposed', 'awaiting_approval', 'approved',
                         'rejected', 'executing', 'succeeded', 'failed', 'uncertain')),
    attempt          int         NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    epoch            int         NOT NULL DEFAULT 0,
    idempotency_key  text        NOT NULL,
    output           jsonb,
    error            jsonb,
    context          jsonb,
    requested_at     timestamptz NOT NULL DEFAULT now(),
    started_at       timestamptz,
    finished_at      timestamptz,
    PRIMARY KEY (run_id, id),
    CONSTRAINT one_row_per_call UNIQUE (run_id, scope, call_id),
    CONSTRAINT outcomes_have_an_end
        CHECK ((status IN ('succeeded', 'failed', 'rejected')) = (finished_at IS NOT NULL)),
    CONSTRAINT effects_have_a_start
        CHECK (status NOT IN ('executing', 'succeeded', 'uncertain') OR started_at IS NOT NULL)
);
CREATE INDEX tool_calls_base ON perdure.tool_calls (run_id, base_seq);
COMMENT ON COLUMN perdure.tool_calls.context IS 'The run''s context as this call left it, where it changed it: a replay does not run the call again.';
COMMENT ON COLUMN perdure.tool_calls.epoch IS 'Epoch of the segment execution that began the effect.';

CREATE TABLE perdure.interruptions (
    id            uuid        NOT NULL,
    run_id        uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    tenant_id     uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    segment       int         NOT NULL,
    base_seq      int         NOT NULL CHECK (base_seq >= 0),
    ordinal       int         NOT NULL DEFAULT 0 CHECK (ordinal >= 0),
    tool_call_id  uuid,
    type          text        NOT NULL CHECK (type IN ('tool_approval', 'uncertain_effect', 'budget', 'question')),
    status        text        NOT NULL DEFAULT 'pending' CHECK (status IN
                      ('pending', 'approved', 'rejected', 'answered', 'resolved', 'expired', 'cancelled')),
    agent         text        NOT NULL,
    scope         text        NOT NULL DEFAULT '',
    tool          jsonb,
    question      text,
    schema        jsonb,
    digest        text        NOT NULL CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
    required      int         NOT NULL DEFAULT 1 CHECK (required > 0),
    requested_at  timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    closed_at     timestamptz,
    PRIMARY KEY (run_id, id),
    FOREIGN KEY (run_id, tool_call_id) REFERENCES perdure.tool_calls (run_id, id) ON DELETE CASCADE,
    CONSTRAINT closed_interruptions_have_an_end CHECK ((status = 'pending') = (closed_at IS NULL))
);
COMMENT ON COLUMN perdure.interruptions.ordinal IS 'Its place among the interruptions of its run state, by which the decision finds it again.';
CREATE UNIQUE INDEX interruptions_one_pending_per_call
    ON perdure.interruptions (run_id, tool_call_id) WHERE status = 'pending';
CREATE INDEX interruptions_id ON perdure.interruptions (id);
CREATE INDEX interruptions_tenant ON perdure.interruptions (tenant_id, status, id DESC);
CREATE INDEX interruptions_pending ON perdure.interruptions (tenant_id, id DESC) WHERE status = 'pending';
CREATE INDEX interruptions_tool_call ON perdure.interruptions (run_id, tool_call_id);

CREATE TABLE perdure.decisions (
    id               uuid        NOT NULL,
    interruption_id  uuid        NOT NULL,
    run_id           uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    tenant_id        uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    decision         text        NOT NULL CHECK (decision IN ('approve', 'reject', 'answer', 'resolve')),
    by_type          text        NOT NULL,
    by_id            text,
    by_subject       text,
    digest           text,
    message          text,
    arguments        jsonb,
    answer           jsonb,
    outcome          text        CHECK (outcome IN ('done', 'not_done', 'abandon')),
    result           jsonb,
    decided_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, id),
    FOREIGN KEY (run_id, interruption_id)
        REFERENCES perdure.interruptions (run_id, id) ON DELETE CASCADE,
    CONSTRAINT resolutions_have_an_outcome CHECK ((decision = 'resolve') = (outcome IS NOT NULL))
);
CREATE INDEX decisions_interruption ON perdure.decisions (run_id, interruption_id, id);

CREATE TABLE perdure.executors (
    id          text        PRIMARY KEY,
    host        text        NOT NULL,
    pid         int         NOT NULL,
    version     text        NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    stopped_at  timestamptz
);
COMMENT ON TABLE perdure.executors IS 'Worker processes. A living one holds the advisory lock of its id on a session of its own.';

-- What is applied: written by the migration itself, so that `psql -f` and `perdure migrate` agree.
CREATE TABLE IF NOT EXISTS perdure.schema_migrations (
    version     int         PRIMARY KEY CHECK (version > 0),
    name        text        NOT NULL,
    checksum    text,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO perdure.schema_migrations (version, name) VALUES (1, 'runs');
