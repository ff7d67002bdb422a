-- What belongs to one run. Each statement gives at least one row for a run there is, with a null
-- `record` where the page is empty, and none for a run there is not.

-- name: items
SELECT x.record::text
FROM perdure.runs r
LEFT JOIN LATERAL (
    SELECT t.seq, to_jsonb(t) || jsonb_build_object(
               'user_id', r.user_id, 'session_id', r.session_id,
               'item', perdure.whole_item(t), 'text', perdure.item_text(t)) AS record
    FROM perdure.run_items t
    WHERE t.run_id = r.id
      AND (%(after)s::uuid IS NULL OR t.seq /*beyond*/ <
           (SELECT a.seq FROM perdure.run_items a WHERE a.run_id = r.id AND a.id = %(after)s))
    ORDER BY t.seq /*order*/ DESC
    LIMIT %(fetch)s) x ON true
WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL
ORDER BY x.seq /*order*/ DESC

-- name: inputs
SELECT x.record::text
FROM perdure.runs r
LEFT JOIN LATERAL (
    SELECT t.seq, to_jsonb(t) || jsonb_build_object(
               'run_status', r.status, 'run_error_type', r.error_type) AS record
    FROM perdure.run_inputs t
    WHERE t.run_id = r.id
      AND (%(after)s::uuid IS NULL OR t.seq /*beyond*/ <
           (SELECT a.seq FROM perdure.run_inputs a WHERE a.run_id = r.id AND a.id = %(after)s))
    ORDER BY t.seq /*order*/ DESC
    LIMIT %(fetch)s) x ON true
WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL
ORDER BY x.seq /*order*/ DESC

-- name: tool_calls
SELECT x.record::text
FROM perdure.runs r
LEFT JOIN LATERAL (
    SELECT t.requested_at, t.id, to_jsonb(t) || jsonb_build_object('evidence', (
               SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.created_at, e.id), '[]')
               FROM perdure.tool_call_evidence e
               WHERE e.run_id = t.run_id AND e.tool_call_id = t.id)) AS record
    FROM perdure.tool_calls t
    WHERE t.run_id = r.id
      AND (%(after)s::uuid IS NULL OR (t.requested_at, t.id) /*beyond*/ <
           (SELECT a.requested_at, a.id FROM perdure.tool_calls a
            WHERE a.run_id = r.id AND a.id = %(after)s))
    ORDER BY t.requested_at /*order*/ DESC, t.id /*order*/ DESC
    LIMIT %(fetch)s) x ON true
WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL
ORDER BY x.requested_at /*order*/ DESC, x.id /*order*/ DESC

-- name: checkpoints
SELECT x.record::text
FROM perdure.runs r
LEFT JOIN LATERAL (
    SELECT t.seq, jsonb_build_object(
               'id', t.id, 'run_id', t.run_id, 'seq', t.seq, 'kind', t.kind,
               'schema_version', t.schema_version, 'sdk_version', t.sdk_version,
               'current_agent', t.current_agent, 'turn', t.turn, 'size_bytes', t.size_bytes,
               'is_active', t.is_active, 'created_at', t.created_at,
               'resumed_at', t.resumed_at) AS record
    FROM perdure.run_states t
    WHERE t.run_id = r.id
      AND (%(after)s::uuid IS NULL OR t.seq /*beyond*/ <
           (SELECT a.seq FROM perdure.run_states a WHERE a.run_id = r.id AND a.id = %(after)s))
    ORDER BY t.seq /*order*/ DESC
    LIMIT %(fetch)s) x ON true
WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL
ORDER BY x.seq /*order*/ DESC

-- name: usage
SELECT x.record::text
FROM perdure.runs r
LEFT JOIN LATERAL (
    SELECT m.position, t.position AS place, to_jsonb(t) || jsonb_build_object(
               'segment', m.segment, 'response_id', m.response_id, 'latency_ms', m.latency_ms,
               'superseded', m.superseded, 'cost_usd', t.cost_usd::text) AS record
    FROM perdure.request_usage_entries t
    JOIN perdure.model_responses m ON m.run_id = t.run_id AND m.id = t.model_response_id
    WHERE t.run_id = r.id
      AND (%(after)s::uuid IS NULL OR (m.position, t.position) /*beyond*/ <
           (SELECT b.position, a.position FROM perdure.request_usage_entries a
              JOIN perdure.model_responses b ON b.run_id = a.run_id AND b.id = a.model_response_id
            WHERE a.run_id = r.id AND a.id = %(after)s))
    ORDER BY m.position /*order*/ DESC, t.position /*order*/ DESC
    LIMIT %(fetch)s) x ON true
WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL
ORDER BY x.position /*order*/ DESC, x.place /*order*/ DESC

-- name: model_responses
SELECT x.record::text
FROM perdure.runs r
LEFT JOIN LATERAL (
    SELECT t.position, to_jsonb(t) || jsonb_build_object(
               'usage', perdure.usage_of_reply(t.run_id, t.id)) AS record
    FROM perdure.model_responses t
    WHERE t.run_id = r.id
      AND (%(after)s::uuid IS NULL OR t.position /*beyond*/ <
           (SELECT a.position FROM perdure.model_responses a
            WHERE a.run_id = r.id AND a.id = %(after)s))
    ORDER BY t.position /*order*/ DESC
    LIMIT %(fetch)s) x ON true
WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL
ORDER BY x.position /*order*/ DESC

-- name: guardrail_results
SELECT x.record::text
FROM perdure.runs r
LEFT JOIN LATERAL (
    SELECT t.id, t.record
    FROM (SELECT g.id, to_jsonb(g) || '{"tool": null, "call_id": null, "behavior": null, "message": null}'
                 AS record
          FROM perdure.guardrail_results g WHERE g.run_id = r.id
          UNION ALL
          SELECT g.id, to_jsonb(g) || jsonb_build_object(
                     'kind', 'tool_' || g.kind, 'tripwire_triggered', g.behavior <> 'allow')
          FROM perdure.tool_guardrail_results g WHERE g.run_id = r.id) t
    WHERE (%(after)s::uuid IS NULL OR t.id /*beyond*/ < %(after)s)
    ORDER BY t.id /*order*/ DESC
    LIMIT %(fetch)s) x ON true
WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL
ORDER BY x.id /*order*/ DESC

-- name: usage_metrics
SELECT x.record::text
FROM perdure.runs r
LEFT JOIN LATERAL (
    SELECT t.agent, t.model, to_jsonb(t) || jsonb_build_object(
               'cost_usd', CASE WHEN t.unpriced_requests < t.requests OR t.requests = 0
                                THEN t.cost_usd::text END) AS record
    FROM perdure.usage_metrics t WHERE t.run_id = r.id) x ON true
WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL
ORDER BY x.agent, x.model

-- name: active_state
SELECT (to_jsonb(t) - ARRAY['body', 'parts', 'next_part']
        || jsonb_build_object('state', perdure.whole_state(t.run_id, t.seq)))::text AS record
FROM perdure.runs r
LEFT JOIN perdure.run_states t ON t.run_id = r.id AND t.is_active
WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL
