-- `page_of_agents` or `one_agent` follows.
-- name: select_agents
SELECT a.id, a.name, v.version,
       jsonb_build_object(
           'id', a.id, 'name', a.name, 'version', v.version, 'model', v.model,
           'handoff_description', v.handoff_description, 'created_at', a.created_at,
           'updated_at', a.updated_at, 'deleted_at', a.deleted_at)::text AS shown
FROM perdure.agents a
LEFT JOIN perdure.agent_versions v ON v.id = a.current_version_id

-- name: page_of_agents
WHERE (%(deleted)s OR a.deleted_at IS NULL)
  AND (%(after)s::uuid IS NULL OR a.id /*beyond*/ < %(after)s)
ORDER BY a.id /*order*/ DESC
LIMIT %(fetch)s

-- name: one_agent
WHERE a.name = %(name)s

-- A version without what it is defined by; `page_of_versions` or `latest_versions` follows.
-- name: select_versions
SELECT jsonb_build_object(
           'id', v.id, 'agent', a.name, 'version', v.version,
           'current', a.current_version_id = v.id AND a.deleted_at IS NULL,
           'definition_hash', v.definition_hash, 'model', v.model, 'created_at', v.created_at,
           'served_at', v.served_at, 'replaced_at', v.replaced_at)::text AS shown
FROM perdure.agent_versions v
JOIN perdure.agents a ON a.id = v.agent_id

-- name: page_of_versions
WHERE a.id = %(agent_id)s
  AND (%(after)s::uuid IS NULL OR v.id /*beyond*/ < %(after)s)
ORDER BY v.id /*order*/ DESC
LIMIT %(fetch)s

-- The current one first, then those that were current last.
-- name: latest_versions
WHERE a.id = %(agent_id)s
ORDER BY v.replaced_at IS NULL DESC, v.served_at DESC, v.id DESC
LIMIT %(fetch)s

-- A version whole.
-- name: version
SELECT jsonb_build_object(
           'id', v.id, 'agent', a.name, 'version', v.version,
           'current', a.current_version_id = v.id AND a.deleted_at IS NULL,
           'definition_hash', v.definition_hash, 'model', v.model, 'created_at', v.created_at,
           'served_at', v.served_at, 'replaced_at', v.replaced_at, 'run_config', v.run_config,
           'agents', (
               SELECT coalesce(jsonb_agg(jsonb_build_object(
                          'name', o.name, 'version', p.version,
                          'definition_hash', p.definition_hash) ORDER BY o.name), '[]')
               FROM perdure.agent_version_parts x
               JOIN perdure.agent_versions p ON p.id = x.part_id
               JOIN perdure.agents o ON o.id = p.agent_id
               WHERE x.version_id = v.id),
           'definition', jsonb_build_object(
               'handoff_description', v.handoff_description, 'instructions', v.instructions,
               'instructions_by', v.instructions_by, 'prompt', v.prompt, 'prompt_by', v.prompt_by,
               'model', v.model,
               'model_settings', (SELECT m.settings FROM perdure.model_settings m
                                   WHERE m.id = v.model_settings_id),
               'output_type', v.output_type, 'output_schema', v.output_schema,
               'behavior', v.behavior,
               'tools', (
                   SELECT coalesce(jsonb_agg(
                              to_jsonb(t) - ARRAY['id', 'hash', 'created_at']
                              || jsonb_build_object('guardrails', (
                                  SELECT coalesce(jsonb_agg(
                                             to_jsonb(g) - ARRAY['id', 'hash', 'created_at']
                                             ORDER BY y.position), '[]')
                                  FROM perdure.tool_guardrail_tools y
                                  JOIN perdure.tool_guardrails g ON g.id = y.tool_guardrail_id
                                  WHERE y.tool_id = t.id))
                              ORDER BY x.position), '[]')
                   FROM perdure.agent_tools x JOIN perdure.tools t ON t.id = x.tool_id
                   WHERE x.agent_version_id = v.id),
               'handoffs', (
                   SELECT coalesce(jsonb_agg(
                              to_jsonb(h) - ARRAY['id', 'hash', 'created_at']
                              || jsonb_build_object('agent', x.target)
                              ORDER BY x.position), '[]')
                   FROM perdure.agent_handoffs x
                   JOIN perdure.handoff_configs h ON h.id = x.handoff_config_id
                   WHERE x.agent_version_id = v.id),
               'guardrails', (
                   SELECT coalesce(jsonb_agg(to_jsonb(g) - ARRAY['id', 'hash', 'created_at']
                                             ORDER BY x.position), '[]')
                   FROM perdure.agent_guardrails x
                   JOIN perdure.guardrails g ON g.id = x.guardrail_id
                   WHERE x.agent_version_id = v.id),
               'mcp_servers', (
                   SELECT coalesce(jsonb_agg(to_jsonb(m) - ARRAY['id', 'hash', 'created_at']
                                             ORDER BY x.position), '[]')
                   FROM perdure.agent_mcp_servers x
                   JOIN perdure.mcp_servers m ON m.id = x.mcp_server_id
                   WHERE x.agent_version_id = v.id)))::text AS shown
FROM perdure.agent_versions v
JOIN perdure.agents a ON a.id = v.agent_id
WHERE a.name = %(name)s AND v.version = %(version)s
