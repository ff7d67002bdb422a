-- What events speak of, each as JSON; read with the events themselves.

-- name: replies
SELECT (to_jsonb(t) || jsonb_build_object(
           'usage', perdure.usage_of_reply(t.run_id, t.id)))::text AS record
  FROM perdure.model_responses t
 WHERE t.run_id = %(run_id)s AND t.id = ANY(%(ids)s::uuid[])

-- name: calls
SELECT jsonb_build_object('id', t.id, 'call_id', t.call_id, 'tool', t.tool, 'kind', t.kind,
                          'output', t.output, 'error', t.error)::text AS record
  FROM perdure.tool_calls t
 WHERE t.run_id = %(run_id)s AND t.id = ANY(%(ids)s::uuid[])

-- name: outputs
SELECT jsonb_build_object('type', t.type, 'agent', t.agent, 'item', perdure.whole_item(t),
                          'created_at', t.created_at)::text AS record
  FROM perdure.run_items t
 WHERE t.run_id = %(run_id)s
   AND t.type IN ('tool_call_output', 'handoff_output', 'mcp_approval_response')
   AND coalesce(t.item ->> 'call_id', t.item ->> 'approval_request_id') = ANY(%(open)s)
 ORDER BY t.seq
