-- What an event is about. What a reply is and says is not with its event: it is read from the reply.
-- Nor is the beginning of a longer text that a tool returned: it is read from the call.
-- name: data
CASE t.kind WHEN 'model.completed' THEN t.data || coalesce((
    SELECT jsonb_build_object(
               'response_id', m.response_id, 'agent', m.agent, 'scope', m.scope, 'model', m.model,
               'latency_ms', m.latency_ms,
               'usage', perdure.usage_of_reply(m.run_id, m.id) - 'cache_write_tokens',
               'text', coalesce((
               SELECT string_agg(said #>> '{}', '')
                 FROM jsonb_path_query(m.output, 'lax $[*] ? (@.type == "message").content[*]
                          ? (@.type == "output_text").text') said), ''))
      FROM perdure.model_responses m
     WHERE m.run_id = t.run_id AND m.id = (t.data ->> 'model_response_id')::uuid), '{}')
WHEN 'tool.completed' THEN CASE WHEN t.data ? 'output' THEN t.data ELSE t.data || coalesce((
    SELECT jsonb_build_object('output', left(c.output ->> 'text', 500))
      FROM perdure.tool_calls c
     WHERE c.run_id = t.run_id AND c.id = (t.data ->> 'tool_call_id')::uuid
       AND c.output ? 'text'), '{}') END
ELSE t.data END

-- One row at least for a run there is: with a null `seq` where the page is empty, and always with
-- how its log ends at this moment. Numbers commit in their order, so a page has no hole that is
-- filled later. Where retention took the events of a run, its status says that nothing follows.
-- name: page
SELECT x.run_id, x.seq, x.kind, x.data, x.created_at,
       coalesce(l.seq, (SELECT h.seq FROM perdure.run_event_heads h WHERE h.run_id = r.id)) AS last_seq,
       coalesce(l.kind, 'run.' || r.status) AS last_kind
  FROM perdure.runs r
  LEFT JOIN LATERAL (
       SELECT t.seq, t.kind::text FROM perdure.run_events t
        WHERE t.run_id = r.id ORDER BY t.seq DESC LIMIT 1) l ON true
  LEFT JOIN LATERAL (
       SELECT t.run_id, t.seq, t.kind::text, (/*data*/)::text AS data, t.created_at
         FROM perdure.run_events t
        WHERE t.run_id = r.id AND t.seq > %(after)s
        ORDER BY t.seq LIMIT %(fetch)s) x ON true
 WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL
 ORDER BY x.seq

-- The same of many runs at once, a row at least for each.
-- name: news
SELECT f.run_id::text, r.id IS NULL AS gone, x.seq, x.kind, x.data, x.created_at
  FROM unnest(%(runs)s::uuid[], %(after)s::int[]) AS f (run_id, after)
  LEFT JOIN perdure.runs r ON r.id = f.run_id AND r.deleted_at IS NULL
  LEFT JOIN LATERAL (
       SELECT t.seq, t.kind::text, (/*data*/)::text AS data, t.created_at
         FROM perdure.run_events t
        WHERE t.run_id = r.id AND t.seq > f.after
        ORDER BY t.seq LIMIT %(fetch)s) x ON true
 ORDER BY f.run_id, x.seq

-- Writers of many runs tell of what they wrote only while somebody reads.
-- name: say_that_somebody_reads
SELECT pg_notify(%(channel)s, '')
