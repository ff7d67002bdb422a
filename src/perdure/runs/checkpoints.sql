-- One checkpoint without its state, and the moment it was written at; 0 is the run's beginning.
-- name: checkpoint
SELECT (to_jsonb(t) - '{state,body,parts,next_part}'::text[])::text AS record, r.agent,
       COALESCE(r.initial_context, r.context)::text AS context
  FROM perdure.runs r
  LEFT JOIN perdure.run_states t ON t.run_id = r.id AND t.seq = %(seq)s
 WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL

-- name: latest
SELECT max(t.seq) AS seq
  FROM perdure.runs r
  LEFT JOIN perdure.run_states t ON t.run_id = r.id
 WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL
 GROUP BY r.id

-- What came between two checkpoints: items are stored in the transaction of the state they came
-- with, which has one time.
-- name: items_between
SELECT (to_jsonb(i) || jsonb_build_object(
           'item', perdure.whole_item(i), 'text', perdure.item_text(i),
           'user_id', r.user_id, 'session_id', r.session_id))::text AS item
  FROM perdure.run_items i
  JOIN perdure.runs r ON r.id = i.run_id
 WHERE i.run_id = %(run_id)s
   AND i.created_at <= (SELECT s.created_at FROM perdure.run_states s
                         WHERE s.run_id = %(run_id)s AND s.seq = %(to)s)
   AND i.seq > COALESCE((SELECT max(o.seq) FROM perdure.run_items o
                           JOIN perdure.run_states s ON s.run_id = o.run_id AND s.seq = %(from)s
                          WHERE o.run_id = %(run_id)s AND o.created_at <= s.created_at), 0)
   AND i.seq > %(after)s
 ORDER BY i.seq
 LIMIT %(fetch)s

-- What a run asked models for after a checkpoint, up to another: as `usage_of` tells of all of it.
-- name: usage_between
SELECT jsonb_build_object(
           'requests', coalesce(sum(u.requests), 0),
           'unpriced_requests', coalesce(sum(u.requests) FILTER (WHERE u.cost_usd IS NULL), 0),
           'input_tokens', coalesce(sum(u.input_tokens), 0),
           'cached_input_tokens', coalesce(sum(u.cached_input_tokens), 0),
           'cache_write_tokens', coalesce(sum(u.cache_write_tokens), 0),
           'output_tokens', coalesce(sum(u.output_tokens), 0),
           'reasoning_tokens', coalesce(sum(u.reasoning_tokens), 0),
           'total_tokens', coalesce(sum(u.total_tokens), 0),
           'cost_usd', CASE WHEN count(*) = 0 THEN '0' ELSE sum(u.cost_usd)::text END) AS usage
  FROM perdure.model_responses m
  JOIN perdure.request_usage_entries u
    ON u.run_id = m.run_id AND u.model_response_id = m.id
 WHERE m.run_id = %(run_id)s AND m.base_seq >= %(from)s
   AND (%(to)s::int IS NULL OR m.base_seq < %(to)s)
