-- Versions that nobody needs: not current, not of a run, not part of one that is needed, and of no
-- worker that lives. A minute more, as a worker's start and its word are not one moment.
-- name: unneeded
WITH needed AS (
    SELECT v.id
    FROM perdure.agent_versions v
    WHERE v.replaced_at IS NULL
       OR v.replaced_at > (SELECT min(e.started_at) - interval '1 minute'
                           FROM perdure.executors e
                           WHERE e.stopped_at IS NULL AND e.lost_at IS NULL)
       OR EXISTS (SELECT FROM perdure.runs r WHERE r.agent_version_id = v.id)
)
SELECT v.id, jsonb_build_object('agent', a.name, 'version', v.version)::text AS shown
FROM perdure.agent_versions v
JOIN perdure.agents a ON a.id = v.agent_id
WHERE NOT EXISTS (SELECT FROM needed n WHERE n.id = v.id)
  AND NOT EXISTS (SELECT FROM perdure.agent_version_parts p
                  JOIN needed n ON n.id = p.version_id WHERE p.part_id = v.id)
ORDER BY a.name, v.id

-- name: let_go
UPDATE perdure.agents SET current_version_id = NULL WHERE current_version_id = ANY (%(ids)s)

-- name: remove_parts
DELETE FROM perdure.agent_version_parts WHERE version_id = ANY (%(ids)s)

-- name: remove_versions
DELETE FROM perdure.agent_versions WHERE id = ANY (%(ids)s)

-- Agents of no build that nothing is left of.
-- name: remove_agents
DELETE FROM perdure.agents a
WHERE a.deleted_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM perdure.agent_versions v WHERE v.agent_id = a.id)
  AND NOT EXISTS (SELECT FROM perdure.runs r WHERE r.agent_id = a.id)
  AND NOT EXISTS (SELECT FROM perdure.agent_handoffs h WHERE h.target_agent_id = a.id)
RETURNING to_jsonb(a.name)::text AS name

-- name: remove_model_settings
DELETE FROM perdure.model_settings o
WHERE NOT EXISTS (SELECT FROM perdure.agent_versions v WHERE v.model_settings_id = o.id)

-- name: remove_tools
DELETE FROM perdure.tools o
WHERE NOT EXISTS (SELECT FROM perdure.agent_tools x WHERE x.tool_id = o.id)

-- name: remove_tool_guardrails
DELETE FROM perdure.tool_guardrails o
WHERE NOT EXISTS (SELECT FROM perdure.tool_guardrail_tools x WHERE x.tool_guardrail_id = o.id)

-- name: remove_handoff_configs
DELETE FROM perdure.handoff_configs o
WHERE NOT EXISTS (SELECT FROM perdure.agent_handoffs x WHERE x.handoff_config_id = o.id)

-- name: remove_guardrails
DELETE FROM perdure.guardrails o
WHERE NOT EXISTS (SELECT FROM perdure.agent_guardrails x WHERE x.guardrail_id = o.id)

-- name: remove_mcp_servers
DELETE FROM perdure.mcp_servers o
WHERE NOT EXISTS (SELECT FROM perdure.agent_mcp_servers x WHERE x.mcp_server_id = o.id)
