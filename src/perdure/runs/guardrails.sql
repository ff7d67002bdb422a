-- name: insert_results
WITH said AS MATERIALIZED (
    SELECT s.*, r.tenant_id
      FROM perdure.runs r,
           jsonb_to_recordset(%(said)s::jsonb) AS s(
               id uuid, guardrail text, kind text, scope text, agent text, tool text, call_id text,
               tripwire_triggered boolean, behavior text, message text, output_info jsonb,
               latency_ms int)
     WHERE r.id = %(run_id)s
), of_agents AS (
    INSERT INTO perdure.guardrail_results (
           id, run_id, tenant_id, segment, scope, agent, guardrail, kind, tripwire_triggered,
           output_info, latency_ms)
    SELECT id, %(run_id)s, tenant_id, %(segment)s, scope, agent, guardrail, kind,
           tripwire_triggered, output_info, latency_ms
      FROM said WHERE tool IS NULL
)
INSERT INTO perdure.tool_guardrail_results (
       id, run_id, tenant_id, segment, scope, agent, tool, call_id, guardrail, kind, behavior,
       message, output_info, latency_ms)
SELECT id, %(run_id)s, tenant_id, %(segment)s, scope, agent, tool, call_id, guardrail, kind,
       behavior, message, output_info, latency_ms
  FROM said WHERE tool IS NOT NULL
