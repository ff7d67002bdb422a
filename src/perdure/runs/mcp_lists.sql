-- name: record_list
UPDATE perdure.segments
   SET mcp_tools = mcp_tools || jsonb_build_object(%(key)s::text, %(tools)s::jsonb)
 WHERE run_id = %(run_id)s AND seq = %(seq)s AND epoch = %(epoch)s AND status = 'running'
