-- The catalogue: what agents a deployment has, and what each version of them is defined by.
--
-- It is written when an engine starts, out of the program: of the deployment, not of a tenant.
-- What repeats (a tool, a guardrail, settings) is stored once, by the SHA-256 of its definition as
-- JSON with its keys in order.

CREATE TABLE perdure.model_settings (
    id          uuid        PRIMARY KEY,
    hash        text        NOT NULL UNIQUE CHECK (hash ~ '^[0-9a-f]{64}$'),
    settings    jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT settings_are_an_object CHECK (jsonb_typeof(settings) = 'object')
);
COMMENT ON TABLE perdure.model_settings IS 'Settings models are asked with, each once. Of the deployment, not of a tenant.';
COMMENT ON COLUMN perdure.model_settings.id IS 'UUIDv7.';
COMMENT ON COLUMN perdure.model_settings.hash IS 'SHA-256 of the definition, in hex.';
COMMENT ON COLUMN perdure.model_settings.settings IS 'What is set, by the names of the Agents SDK. Of extra_headers, extra_body, extra_query, extra_args and metadata only the names in them: values may be secrets.';
COMMENT ON COLUMN perdure.model_settings.created_at IS 'When an engine first came with them.';

CREATE TABLE perdure.agents (
    id                  uuid        PRIMARY KEY,
    name                text        NOT NULL UNIQUE CHECK (name <> ''),
    current_version_id  uuid,
    roots               text[]      NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    deleted_at          timestamptz
);
COMMENT ON TABLE perdure.agents IS 'Agents by name: those engines were given and those they can reach. Of the deployment, not of a tenant: every key that may read runs reads them.';
COMMENT ON COLUMN perdure.agents.id IS 'UUIDv7.';
COMMENT ON COLUMN perdure.agents.name IS 'The agent''s name; a run finds its agent by it.';
COMMENT ON COLUMN perdure.agents.current_version_id IS 'Its version in the build that started last; null where that was pruned.';
COMMENT ON COLUMN perdure.agents.roots IS 'The agents that the engine with this one was given. A build that is given one of them takes its place.';
COMMENT ON COLUMN perdure.agents.created_at IS 'When an engine first came with it.';
COMMENT ON COLUMN perdure.agents.updated_at IS 'When it last got another version, came or went.';
COMMENT ON COLUMN perdure.agents.deleted_at IS 'Since when it is in no build: the one that took the place of its own does not have it. Null while it is.';

CREATE TABLE perdure.agent_versions (
    id                   uuid        PRIMARY KEY,
    agent_id             uuid        NOT NULL REFERENCES perdure.agents ON DELETE CASCADE,
    version              text        NOT NULL CHECK (version ~ '^[0-9a-f]{12}$'),
    definition_hash      text        NOT NULL CHECK (definition_hash ~ '^[0-9a-f]{64}$'),
    handoff_description  text,
    instructions         text,
    instructions_by      text,
    prompt               jsonb,
    prompt_by            text,
    model                text,
    model_settings_id    uuid        REFERENCES perdure.model_settings ON DELETE SET NULL,
    output_type          text,
    output_schema        jsonb,
    behavior             jsonb       NOT NULL,
    run_config           jsonb       NOT NULL,
    created_at           timestamptz NOT NULL DEFAULT now(),
    served_at            timestamptz NOT NULL DEFAULT now(),
    replaced_at          timestamptz,
    UNIQUE (agent_id, version),
    CONSTRAINT instructions_are_static_or_dynamic
        CHECK (instructions IS NULL OR instructions_by IS NULL),
    CONSTRAINT prompt_is_static_or_dynamic CHECK (prompt IS NULL OR prompt_by IS NULL),
    CONSTRAINT behavior_is_an_object CHECK (jsonb_typeof(behavior) = 'object'),
    CONSTRAINT run_config_is_an_object CHECK (jsonb_typeof(run_config) = 'object')
);
CREATE INDEX agent_versions_served ON perdure.agent_versions (agent_id, served_at DESC);
CREATE INDEX agent_versions_listed ON perdure.agent_versions (agent_id, id DESC);
CREATE INDEX agent_versions_model_settings ON perdure.agent_versions (model_settings_id);
COMMENT ON TABLE perdure.agent_versions IS 'What an agent was defined by, by a hash of its definition and of those of all it can reach; never changed. Of the deployment, not of a tenant.';
COMMENT ON COLUMN perdure.agent_versions.id IS 'UUIDv7.';
COMMENT ON COLUMN perdure.agent_versions.agent_id IS 'Whose version it is.';
COMMENT ON COLUMN perdure.agent_versions.version IS 'The first 12 hex digits of the hash of the agent''s definition, of all it can reach and of run_config: what runs.agent_version has.';
COMMENT ON COLUMN perdure.agent_versions.definition_hash IS 'SHA-256 of the agent''s own definition, in hex, without that of others.';
COMMENT ON COLUMN perdure.agent_versions.handoff_description IS 'What other agents read of it.';
COMMENT ON COLUMN perdure.agent_versions.instructions IS 'The instructions, where they are a text.';
COMMENT ON COLUMN perdure.agent_versions.instructions_by IS 'The function that makes the instructions, where one does: module and name.';
COMMENT ON COLUMN perdure.agent_versions.prompt IS 'The prompt kept by the provider: id, version, variables.';
COMMENT ON COLUMN perdure.agent_versions.prompt_by IS 'The function that makes the prompt, where one does: module and name.';
COMMENT ON COLUMN perdure.agent_versions.model IS 'The model by its name, or the class of one without; null: the provider''s default.';
COMMENT ON COLUMN perdure.agent_versions.model_settings_id IS 'The settings its model is asked with.';
COMMENT ON COLUMN perdure.agent_versions.output_type IS 'The type of its final output; null: text.';
COMMENT ON COLUMN perdure.agent_versions.output_schema IS 'The JSON schema of that type.';
COMMENT ON COLUMN perdure.agent_versions.behavior IS 'tool_use_behavior, reset_tool_choice, hooks and mcp_config: functions and classes by name.';
COMMENT ON COLUMN perdure.agent_versions.run_config IS 'What the engine runs all agents with and this build was given: model, settings, guardrails, filters.';
COMMENT ON COLUMN perdure.agent_versions.created_at IS 'When an engine first came with it.';
COMMENT ON COLUMN perdure.agent_versions.served_at IS 'When it last became the current one.';
COMMENT ON COLUMN perdure.agent_versions.replaced_at IS 'Since when another one is current, or the agent in no build; null while it is the current one.';

ALTER TABLE perdure.agents
    ADD CONSTRAINT agents_current_version FOREIGN KEY (current_version_id)
        REFERENCES perdure.agent_versions ON DELETE RESTRICT;
CREATE INDEX agents_current ON perdure.agents (current_version_id);
CREATE INDEX agents_here ON perdure.agents (id DESC) WHERE deleted_at IS NULL;

CREATE TABLE perdure.agent_version_parts (
    version_id  uuid  NOT NULL REFERENCES perdure.agent_versions ON DELETE CASCADE,
    part_id     uuid  NOT NULL REFERENCES perdure.agent_versions ON DELETE RESTRICT,
    PRIMARY KEY (version_id, part_id),
    CONSTRAINT others_are_parts CHECK (version_id <> part_id)
);
CREATE INDEX agent_version_parts_part ON perdure.agent_version_parts (part_id);
COMMENT ON TABLE perdure.agent_version_parts IS 'Which versions of other agents a version consists of: of all it can reach by handoffs and as tools, at any remove.';
COMMENT ON COLUMN perdure.agent_version_parts.version_id IS 'The version that consists of them.';
COMMENT ON COLUMN perdure.agent_version_parts.part_id IS 'The version of an agent it can reach.';

CREATE TABLE perdure.tools (
    id               uuid        PRIMARY KEY,
    hash             text        NOT NULL UNIQUE CHECK (hash ~ '^[0-9a-f]{64}$'),
    name             text        NOT NULL,
    kind             text        NOT NULL CHECK (kind IN ('function', 'agent', 'custom', 'shell',
                         'local_shell', 'apply_patch', 'computer', 'hosted_mcp', 'file_search',
                         'web_search', 'code_interpreter', 'image_generation', 'tool_search',
                         'programmatic_tool_calling', 'other')),
    description      text,
    input_schema     jsonb,
    output_schema    jsonb,
    effect           text        CHECK (effect IN ('read', 'idempotent', 'transactional',
                         'at_most_once', 'nested')),
    gate             text        NOT NULL CHECK (gate IN ('never', 'always', 'function', 'by_tool')),
    gate_by          text,
    enabled          text        NOT NULL CHECK (enabled IN ('never', 'always', 'function')),
    enabled_by       text,
    agent            text,
    timeout_seconds  double precision,
    settings         jsonb       NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT gate_of_a_function CHECK ((gate = 'function') = (gate_by IS NOT NULL)),
    CONSTRAINT enabled_by_a_function CHECK ((enabled = 'function') = (enabled_by IS NOT NULL)),
    CONSTRAINT settings_are_an_object CHECK (jsonb_typeof(settings) = 'object')
);
COMMENT ON TABLE perdure.tools IS 'Tools by their definition, each once. What MCP servers offer is listed in a run and is not here. Of the deployment, not of a tenant.';
COMMENT ON COLUMN perdure.tools.id IS 'UUIDv7.';
COMMENT ON COLUMN perdure.tools.hash IS 'SHA-256 of the definition with its guardrails, in hex.';
COMMENT ON COLUMN perdure.tools.name IS 'What models call it by.';
COMMENT ON COLUMN perdure.tools.kind IS 'What sort of tool it is; agent: another agent used as a tool; hosted_mcp and what follows run at the provider.';
COMMENT ON COLUMN perdure.tools.description IS 'What models read of it.';
COMMENT ON COLUMN perdure.tools.input_schema IS 'The JSON schema of its arguments.';
COMMENT ON COLUMN perdure.tools.output_schema IS 'The JSON schema of what it returns, where it says.';
COMMENT ON COLUMN perdure.tools.effect IS 'What repeating a call would mean; nested: its parts have effects of their own. Null: it runs at the provider.';
COMMENT ON COLUMN perdure.tools.gate IS 'Whether the program has people approve its calls: never, always, as a function says, or some tools of a hosted MCP server. Policies stand elsewhere.';
COMMENT ON COLUMN perdure.tools.gate_by IS 'The function of that gate: module and name.';
COMMENT ON COLUMN perdure.tools.enabled IS 'Whether models are offered it: always, never, or as a function says.';
COMMENT ON COLUMN perdure.tools.enabled_by IS 'That function: module and name.';
COMMENT ON COLUMN perdure.tools.agent IS 'Of an agent used as a tool: which.';
COMMENT ON COLUMN perdure.tools.timeout_seconds IS 'After which a call is given up; null: never.';
COMMENT ON COLUMN perdure.tools.settings IS 'What else it is given, by its kind. No header values, no credentials, of a URL only where it leads to.';
COMMENT ON COLUMN perdure.tools.created_at IS 'When an engine first came with it.';

CREATE TABLE perdure.agent_tools (
    agent_version_id  uuid  NOT NULL REFERENCES perdure.agent_versions ON DELETE CASCADE,
    position          int   NOT NULL CHECK (position >= 0),
    tool_id           uuid  NOT NULL REFERENCES perdure.tools ON DELETE CASCADE,
    PRIMARY KEY (agent_version_id, position)
);
CREATE INDEX agent_tools_tool ON perdure.agent_tools (tool_id);
COMMENT ON TABLE perdure.agent_tools IS 'Which tools a version of an agent has.';
COMMENT ON COLUMN perdure.agent_tools.agent_version_id IS 'The version.';
COMMENT ON COLUMN perdure.agent_tools.position IS 'The tool''s place among them, from 0.';
COMMENT ON COLUMN perdure.agent_tools.tool_id IS 'The tool.';

CREATE TABLE perdure.handoff_configs (
    id                uuid        PRIMARY KEY,
    hash              text        NOT NULL UNIQUE CHECK (hash ~ '^[0-9a-f]{64}$'),
    tool_name         text        NOT NULL,
    tool_description  text,
    input_schema      jsonb,
    input_filter      text,
    nest_history      boolean,
    enabled           text        NOT NULL CHECK (enabled IN ('never', 'always', 'function')),
    enabled_by        text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT enabled_by_a_function CHECK ((enabled = 'function') = (enabled_by IS NOT NULL))
);
COMMENT ON TABLE perdure.handoff_configs IS 'How a handoff is offered and made, each way once. Of the deployment, not of a tenant.';
COMMENT ON COLUMN perdure.handoff_configs.id IS 'UUIDv7.';
COMMENT ON COLUMN perdure.handoff_configs.hash IS 'SHA-256 of the definition, in hex.';
COMMENT ON COLUMN perdure.handoff_configs.tool_name IS 'What models call it by.';
COMMENT ON COLUMN perdure.handoff_configs.tool_description IS 'What models read of it.';
COMMENT ON COLUMN perdure.handoff_configs.input_schema IS 'The JSON schema of its arguments; {}: it takes none.';
COMMENT ON COLUMN perdure.handoff_configs.input_filter IS 'The function that filters what the next agent sees: module and name.';
COMMENT ON COLUMN perdure.handoff_configs.nest_history IS 'Whether the next agent sees what was said as one text; null: as the run''s configuration says.';
COMMENT ON COLUMN perdure.handoff_configs.enabled IS 'Whether models are offered it: always, never, or as a function says.';
COMMENT ON COLUMN perdure.handoff_configs.enabled_by IS 'That function: module and name.';
COMMENT ON COLUMN perdure.handoff_configs.created_at IS 'When an engine first came with it.';

CREATE TABLE perdure.agent_handoffs (
    agent_version_id   uuid  NOT NULL REFERENCES perdure.agent_versions ON DELETE CASCADE,
    position           int   NOT NULL CHECK (position >= 0),
    handoff_config_id  uuid  NOT NULL REFERENCES perdure.handoff_configs ON DELETE CASCADE,
    target             text  NOT NULL,
    target_agent_id    uuid  REFERENCES perdure.agents ON DELETE CASCADE,
    PRIMARY KEY (agent_version_id, position)
);
CREATE INDEX agent_handoffs_config ON perdure.agent_handoffs (handoff_config_id);
CREATE INDEX agent_handoffs_target ON perdure.agent_handoffs (target_agent_id);
COMMENT ON TABLE perdure.agent_handoffs IS 'Which agents a version of an agent can hand off to.';
COMMENT ON COLUMN perdure.agent_handoffs.agent_version_id IS 'The version.';
COMMENT ON COLUMN perdure.agent_handoffs.position IS 'The handoff''s place among them, from 0.';
COMMENT ON COLUMN perdure.agent_handoffs.handoff_config_id IS 'How it is offered and made.';
COMMENT ON COLUMN perdure.agent_handoffs.target IS 'The name of the agent it leads to.';
COMMENT ON COLUMN perdure.agent_handoffs.target_agent_id IS 'That agent; null where a handoff of the program''s own names one the engine does not know.';

CREATE TABLE perdure.guardrails (
    id               uuid        PRIMARY KEY,
    hash             text        NOT NULL UNIQUE CHECK (hash ~ '^[0-9a-f]{64}$'),
    kind             text        NOT NULL CHECK (kind IN ('input', 'output')),
    name             text        NOT NULL,
    function         text        NOT NULL,
    run_in_parallel  boolean,
    created_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT input_is_checked_beside_or_before
        CHECK ((kind = 'input') = (run_in_parallel IS NOT NULL))
);
COMMENT ON TABLE perdure.guardrails IS 'Guardrails of agents, each once. Of the deployment, not of a tenant.';
COMMENT ON COLUMN perdure.guardrails.id IS 'UUIDv7.';
COMMENT ON COLUMN perdure.guardrails.hash IS 'SHA-256 of the definition, in hex.';
COMMENT ON COLUMN perdure.guardrails.kind IS 'Whether it checks what an agent is given or its final output.';
COMMENT ON COLUMN perdure.guardrails.name IS 'What results name it by.';
COMMENT ON COLUMN perdure.guardrails.function IS 'The function that checks: module and name.';
COMMENT ON COLUMN perdure.guardrails.run_in_parallel IS 'Of input: whether it is checked while the agent runs, or before.';
COMMENT ON COLUMN perdure.guardrails.created_at IS 'When an engine first came with it.';

CREATE TABLE perdure.agent_guardrails (
    agent_version_id  uuid  NOT NULL REFERENCES perdure.agent_versions ON DELETE CASCADE,
    position          int   NOT NULL CHECK (position >= 0),
    guardrail_id      uuid  NOT NULL REFERENCES perdure.guardrails ON DELETE CASCADE,
    PRIMARY KEY (agent_version_id, position)
);
CREATE INDEX agent_guardrails_guardrail ON perdure.agent_guardrails (guardrail_id);
COMMENT ON TABLE perdure.agent_guardrails IS 'Which guardrails a version of an agent has.';
COMMENT ON COLUMN perdure.agent_guardrails.agent_version_id IS 'The version.';
COMMENT ON COLUMN perdure.agent_guardrails.position IS 'The guardrail''s place among them, from 0: those of input, then those of output.';
COMMENT ON COLUMN perdure.agent_guardrails.guardrail_id IS 'The guardrail.';

CREATE TABLE perdure.tool_guardrails (
    id          uuid        PRIMARY KEY,
    hash        text        NOT NULL UNIQUE CHECK (hash ~ '^[0-9a-f]{64}$'),
    kind        text        NOT NULL CHECK (kind IN ('input', 'output')),
    name        text        NOT NULL,
    function    text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE perdure.tool_guardrails IS 'Guardrails of tools, each once. Of the deployment, not of a tenant.';
COMMENT ON COLUMN perdure.tool_guardrails.id IS 'UUIDv7.';
COMMENT ON COLUMN perdure.tool_guardrails.hash IS 'SHA-256 of the definition, in hex.';
COMMENT ON COLUMN perdure.tool_guardrails.kind IS 'Whether it checks a call''s arguments or what the tool returned.';
COMMENT ON COLUMN perdure.tool_guardrails.name IS 'What results name it by.';
COMMENT ON COLUMN perdure.tool_guardrails.function IS 'The function that checks: module and name.';
COMMENT ON COLUMN perdure.tool_guardrails.created_at IS 'When an engine first came with it.';

CREATE TABLE perdure.tool_guardrail_tools (
    tool_id            uuid  NOT NULL REFERENCES perdure.tools ON DELETE CASCADE,
    position           int   NOT NULL CHECK (position >= 0),
    tool_guardrail_id  uuid  NOT NULL REFERENCES perdure.tool_guardrails ON DELETE CASCADE,
    PRIMARY KEY (tool_id, position)
);
CREATE INDEX tool_guardrail_tools_guardrail ON perdure.tool_guardrail_tools (tool_guardrail_id);
COMMENT ON TABLE perdure.tool_guardrail_tools IS 'Which guardrails a tool has.';
COMMENT ON COLUMN perdure.tool_guardrail_tools.tool_id IS 'The tool.';
COMMENT ON COLUMN perdure.tool_guardrail_tools.position IS 'The guardrail''s place among them, from 0: those of input, then those of output.';
COMMENT ON COLUMN perdure.tool_guardrail_tools.tool_guardrail_id IS 'The guardrail.';

CREATE TABLE perdure.mcp_servers (
    id          uuid        PRIMARY KEY,
    hash        text        NOT NULL UNIQUE CHECK (hash ~ '^[0-9a-f]{64}$'),
    name        text        NOT NULL,
    transport   text        NOT NULL CHECK (transport IN ('stdio', 'sse', 'streamable_http', 'other')),
    gate        text        NOT NULL CHECK (gate IN ('never', 'always', 'function', 'by_tool')),
    gate_by     text,
    effects     jsonb       NOT NULL,
    settings    jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT gate_of_a_function CHECK ((gate = 'function') = (gate_by IS NOT NULL)),
    CONSTRAINT effects_are_an_object CHECK (jsonb_typeof(effects) = 'object'),
    CONSTRAINT settings_are_an_object CHECK (jsonb_typeof(settings) = 'object')
);
COMMENT ON TABLE perdure.mcp_servers IS 'MCP servers agents use, each once. Never what could be a secret. Of the deployment, not of a tenant.';
COMMENT ON COLUMN perdure.mcp_servers.id IS 'UUIDv7.';
COMMENT ON COLUMN perdure.mcp_servers.hash IS 'SHA-256 of the definition, in hex.';
COMMENT ON COLUMN perdure.mcp_servers.name IS 'Its name; of a URL in it only where it leads to.';
COMMENT ON COLUMN perdure.mcp_servers.transport IS 'How it is reached.';
COMMENT ON COLUMN perdure.mcp_servers.gate IS 'Whether the program has people approve calls of its tools; by_tool: settings say of which.';
COMMENT ON COLUMN perdure.mcp_servers.gate_by IS 'The function of that gate: module and name.';
COMMENT ON COLUMN perdure.mcp_servers.effects IS 'The effect classes its tools were marked with, by name; "*": all.';
COMMENT ON COLUMN perdure.mcp_servers.settings IS 'The program or the origin of its URL, names of options, headers and variables without their values, tool filter.';
COMMENT ON COLUMN perdure.mcp_servers.created_at IS 'When an engine first came with it.';

CREATE TABLE perdure.agent_mcp_servers (
    agent_version_id  uuid  NOT NULL REFERENCES perdure.agent_versions ON DELETE CASCADE,
    position          int   NOT NULL CHECK (position >= 0),
    mcp_server_id     uuid  NOT NULL REFERENCES perdure.mcp_servers ON DELETE CASCADE,
    PRIMARY KEY (agent_version_id, position)
);
CREATE INDEX agent_mcp_servers_server ON perdure.agent_mcp_servers (mcp_server_id);
COMMENT ON TABLE perdure.agent_mcp_servers IS 'Which MCP servers a version of an agent uses.';
COMMENT ON COLUMN perdure.agent_mcp_servers.agent_version_id IS 'The version.';
COMMENT ON COLUMN perdure.agent_mcp_servers.position IS 'The server''s place among them, from 0.';
COMMENT ON COLUMN perdure.agent_mcp_servers.mcp_server_id IS 'The server.';

ALTER TABLE perdure.runs
    ADD COLUMN agent_id          uuid REFERENCES perdure.agents ON DELETE RESTRICT,
    ADD COLUMN agent_version_id  uuid REFERENCES perdure.agent_versions ON DELETE RESTRICT,
    ADD CONSTRAINT a_version_is_of_an_agent CHECK (agent_version_id IS NULL OR agent_id IS NOT NULL);
COMMENT ON COLUMN perdure.runs.agent_id IS 'The agent of that name: from its start, or from when a worker first begins it where the agent was not known then.';
COMMENT ON COLUMN perdure.runs.agent_version_id IS 'The version it was first begun with; null before, and of runs older than the catalogue.';

-- Runs of before know their agent by its name; no build has told yet what it is.
INSERT INTO perdure.agents (id, name, roots)
SELECT perdure.uuid7(), agent, ARRAY[agent] FROM (SELECT DISTINCT agent FROM perdure.runs) known;
UPDATE perdure.runs r SET agent_id = a.id FROM perdure.agents a WHERE a.name = r.agent;

CREATE INDEX runs_agent ON perdure.runs (agent_id, id DESC);
CREATE INDEX runs_agent_version ON perdure.runs (agent_version_id) WHERE agent_version_id IS NOT NULL;

INSERT INTO perdure.schema_migrations (version, name) VALUES (21, 'catalogue');
