-- Whether the catalogue has what an engine comes with, as the current of all its agents.
-- name: unchanged
SELECT NOT EXISTS (
           SELECT FROM jsonb_to_recordset(%(versions)s::jsonb) AS given (agent text, version text)
           LEFT JOIN perdure.agents a ON a.name = given.agent AND a.deleted_at IS NULL
                 AND a.roots = ARRAY(SELECT jsonb_array_elements_text(%(roots)s::jsonb))
           LEFT JOIN perdure.agent_versions v
                  ON v.id = a.current_version_id AND v.version = given.version
           WHERE v.id IS NULL)
   AND NOT EXISTS (
           SELECT FROM perdure.agents a
           WHERE a.deleted_at IS NULL
             AND a.roots && ARRAY(SELECT jsonb_array_elements_text(%(roots)s::jsonb))
             AND NOT EXISTS (
                 SELECT FROM jsonb_to_recordset(%(versions)s::jsonb) AS given (agent text)
                 WHERE given.agent = a.name)) AS unchanged

-- Whoever writes the catalogue or prunes it, one after the other.
-- name: lock
SELECT pg_advisory_xact_lock(hashtextextended('perdure:catalogue', 0))

-- name: add_model_settings
INSERT INTO perdure.model_settings (id, hash, settings)
SELECT id, hash, settings
FROM jsonb_populate_recordset(NULL::perdure.model_settings, %(rows)s::jsonb)
ON CONFLICT (hash) DO NOTHING

-- name: add_tools
INSERT INTO perdure.tools (
    id, hash, name, kind, description, input_schema, output_schema, effect, gate, gate_by, enabled,
    enabled_by, agent, timeout_seconds, settings)
SELECT id, hash, name, kind, description, input_schema, output_schema, effect, gate, gate_by, enabled,
       enabled_by, agent, timeout_seconds, settings
FROM jsonb_populate_recordset(NULL::perdure.tools, %(rows)s::jsonb)
ON CONFLICT (hash) DO NOTHING

-- name: add_tool_guardrails
INSERT INTO perdure.tool_guardrails (id, hash, kind, name, function)
SELECT id, hash, kind, name, function
FROM jsonb_populate_recordset(NULL::perdure.tool_guardrails, %(rows)s::jsonb)
ON CONFLICT (hash) DO NOTHING

-- name: add_tool_guardrail_tools
INSERT INTO perdure.tool_guardrail_tools (tool_id, position, tool_guardrail_id)
SELECT t.id, given.position, g.id
FROM jsonb_to_recordset(%(rows)s::jsonb) AS given (of text, position int, hash text)
JOIN perdure.tools t ON t.hash = given.of
JOIN perdure.tool_guardrails g ON g.hash = given.hash
ON CONFLICT DO NOTHING

-- name: add_handoff_configs
INSERT INTO perdure.handoff_configs (
    id, hash, tool_name, tool_description, input_schema, input_filter, nest_history, enabled,
    enabled_by)
SELECT id, hash, tool_name, tool_description, input_schema, input_filter, nest_history, enabled,
       enabled_by
FROM jsonb_populate_recordset(NULL::perdure.handoff_configs, %(rows)s::jsonb)
ON CONFLICT (hash) DO NOTHING

-- name: add_guardrails
INSERT INTO perdure.guardrails (id, hash, kind, name, function, run_in_parallel)
SELECT id, hash, kind, name, function, run_in_parallel
FROM jsonb_populate_recordset(NULL::perdure.guardrails, %(rows)s::jsonb)
ON CONFLICT (hash) DO NOTHING

-- name: add_mcp_servers
INSERT INTO perdure.mcp_servers (id, hash, name, transport, gate, gate_by, effects, settings)
SELECT id, hash, name, transport, gate, gate_by, effects, settings
FROM jsonb_populate_recordset(NULL::perdure.mcp_servers, %(rows)s::jsonb)
ON CONFLICT (hash) DO NOTHING

-- name: add_agents
INSERT INTO perdure.agents (id, name, roots)
SELECT given.id, given.agent, ARRAY(SELECT jsonb_array_elements_text(%(roots)s::jsonb))
FROM jsonb_to_recordset(%(rows)s::jsonb) AS given (id uuid, agent text)
ON CONFLICT (name) DO NOTHING

-- name: add_versions
INSERT INTO perdure.agent_versions (
    id, agent_id, version, definition_hash, handoff_description, instructions, instructions_by,
    prompt, prompt_by, model, model_settings_id, output_type, output_schema, behavior, run_config)
SELECT given.version_id, a.id, given.version, given.definition_hash, given.handoff_description,
       given.instructions, given.instructions_by, given.prompt, given.prompt_by, given.model, m.id,
       given.output_type, given.output_schema, given.behavior, given.run_config
FROM jsonb_to_recordset(%(rows)s::jsonb) AS given (
         version_id uuid, agent text, version text, definition_hash text, handoff_description text,
         instructions text, instructions_by text, prompt jsonb, prompt_by text, model text,
         settings text, output_type text, output_schema jsonb, behavior jsonb, run_config jsonb)
JOIN perdure.agents a ON a.name = given.agent
LEFT JOIN perdure.model_settings m ON m.hash = given.settings
ON CONFLICT (agent_id, version) DO NOTHING

-- The versions of the agents an engine comes with, for what is theirs. One of the following is put
-- behind it.
-- name: of_versions
WITH theirs AS (
    SELECT given.agent, v.id
    FROM jsonb_to_recordset(%(versions)s::jsonb) AS given (agent text, version text)
    JOIN perdure.agents a ON a.name = given.agent
    JOIN perdure.agent_versions v ON v.agent_id = a.id AND v.version = given.version
)

-- name: add_parts
INSERT INTO perdure.agent_version_parts (version_id, part_id)
SELECT whole.id, part.id
FROM jsonb_to_recordset(%(rows)s::jsonb) AS given (of text, part text)
JOIN theirs whole ON whole.agent = given.of
JOIN theirs part ON part.agent = given.part
ON CONFLICT DO NOTHING

-- name: add_agent_tools
INSERT INTO perdure.agent_tools (agent_version_id, position, tool_id)
SELECT theirs.id, given.position, t.id
FROM jsonb_to_recordset(%(rows)s::jsonb) AS given (of text, position int, hash text)
JOIN theirs ON theirs.agent = given.of
JOIN perdure.tools t ON t.hash = given.hash
ON CONFLICT DO NOTHING

-- name: add_agent_handoffs
INSERT INTO perdure.agent_handoffs (
    agent_version_id, position, handoff_config_id, target, target_agent_id)
SELECT theirs.id, given.position, h.id, given.target, a.id
FROM jsonb_to_recordset(%(rows)s::jsonb) AS given (of text, position int, hash text, target text)
JOIN theirs ON theirs.agent = given.of
JOIN perdure.handoff_configs h ON h.hash = given.hash
LEFT JOIN perdure.agents a ON a.name = given.target
ON CONFLICT DO NOTHING

-- name: add_agent_guardrails
INSERT INTO perdure.agent_guardrails (agent_version_id, position, guardrail_id)
SELECT theirs.id, given.position, g.id
FROM jsonb_to_recordset(%(rows)s::jsonb) AS given (of text, position int, hash text)
JOIN theirs ON theirs.agent = given.of
JOIN perdure.guardrails g ON g.hash = given.hash
ON CONFLICT DO NOTHING

-- name: add_agent_mcp_servers
INSERT INTO perdure.agent_mcp_servers (agent_version_id, position, mcp_server_id)
SELECT theirs.id, given.position, m.id
FROM jsonb_to_recordset(%(rows)s::jsonb) AS given (of text, position int, hash text)
JOIN theirs ON theirs.agent = given.of
JOIN perdure.mcp_servers m ON m.hash = given.hash
ON CONFLICT DO NOTHING

-- name: make_current
UPDATE perdure.agents a
   SET current_version_id = theirs.id, updated_at = now(), deleted_at = NULL,
       roots = ARRAY(SELECT jsonb_array_elements_text(%(roots)s::jsonb))
  FROM theirs
 WHERE a.name = theirs.agent
   AND (a.current_version_id IS DISTINCT FROM theirs.id OR a.deleted_at IS NOT NULL
        OR a.roots <> ARRAY(SELECT jsonb_array_elements_text(%(roots)s::jsonb)))

-- Agents of a build whose place this one takes, and that it does not have.
-- name: mark_gone
UPDATE perdure.agents a
   SET deleted_at = now(), updated_at = now()
 WHERE a.deleted_at IS NULL
   AND a.roots && ARRAY(SELECT jsonb_array_elements_text(%(roots)s::jsonb))
   AND NOT EXISTS (
       SELECT FROM jsonb_to_recordset(%(versions)s::jsonb) AS given (agent text)
       WHERE given.agent = a.name)

-- A moment of the lock's holder: later than when any worker began that came with what is replaced.
-- name: mark_versions
UPDATE perdure.agent_versions v
   SET replaced_at = CASE WHEN now_current THEN NULL ELSE clock_timestamp() END,
       served_at = CASE WHEN now_current THEN clock_timestamp() ELSE v.served_at END
  FROM (SELECT o.id, a.current_version_id = o.id AND a.deleted_at IS NULL AS now_current
          FROM perdure.agent_versions o JOIN perdure.agents a ON a.id = o.agent_id) seen
 WHERE v.id = seen.id AND coalesce(seen.now_current, false) <> (v.replaced_at IS NULL)
