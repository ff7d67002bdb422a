-- name: finish
WITH fence AS (
    SELECT FROM perdure.segments
     WHERE run_id = %(run_id)s AND seq = %(segment)s AND epoch = %(epoch)s AND status = 'running'
       FOR SHARE
), changed AS (
    UPDATE perdure.tool_calls t
       SET status = 'succeeded', output = %(output)s::jsonb, context = %(context)s::jsonb,
           finished_at = now()
     WHERE run_id = %(run_id)s AND scope = %(scope)s AND call_id = %(call_id)s
       AND status = 'executing' AND epoch = %(epoch)s
       AND EXISTS (SELECT FROM fence)
    RETURNING t AS call
)
SELECT perdure.add_event((call).run_id, 'tool.completed', perdure.call_event(call)) AS events
  FROM changed

-- name: operations
INSERT INTO perdure.operations (id, run_id, tool_call_id, tenant_id, kind, target, previous, new)
SELECT o.id, %(run_id)s, %(tool_call_id)s, %(tenant_id)s, o.kind, o.target, o.previous, o.new
  FROM jsonb_to_recordset(%(operations)s::jsonb) AS o(
       id uuid, kind text, target text, previous jsonb, new jsonb)
