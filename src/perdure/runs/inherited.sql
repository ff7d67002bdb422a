-- What a fork's calls may be answered with: outcomes its parent had after the checkpoint, in the
-- order they were asked for, less those that have answered one already. A call that was edited is
-- what was executed.
-- name: outcomes
SELECT COALESCE(jsonb_agg(jsonb_build_object(
           'id', t.id, 'run_id', t.run_id, 'tool', t.tool, 'kind', t.kind,
           'arguments', COALESCE(t.approved_arguments, t.arguments),
           'arguments_raw', t.arguments_raw, 'output', t.output)
           ORDER BY t.requested_at, t.id), '[]')::text AS outcomes
  FROM perdure.runs f
  JOIN perdure.tool_calls t
    ON t.run_id = f.forked_from AND t.base_seq >= f.forked_seq AND t.tenant_id = f.tenant_id
 WHERE f.id = %(run_id)s AND t.status = 'succeeded' AND t.effect <> 'nested'
   AND t.kind <> 'hosted_mcp'
   AND NOT EXISTS (SELECT FROM perdure.tool_calls mine
                    WHERE mine.run_id = f.id
                      AND mine.output -> 'answered_from' ->> 'tool_call_id' = t.id::text)
