-- `one_interruption` or `page_of_interruptions` follows.
-- name: select_interruptions
SELECT (to_jsonb(i) || jsonb_build_object('decisions', (
           SELECT coalesce(jsonb_agg(to_jsonb(d) ORDER BY d.decided_at, d.id), '[]')
           FROM perdure.decisions d WHERE d.run_id = i.run_id AND d.interruption_id = i.id),
       'evidence', (
           SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.created_at, e.id), '[]')
           FROM perdure.tool_call_evidence e WHERE e.run_id = i.run_id AND e.tool_call_id = i.tool_call_id)))::text AS interruption
FROM perdure.interruptions i
JOIN perdure.runs r ON r.id = i.run_id AND r.deleted_at IS NULL

-- name: one_interruption
WHERE i.tenant_id = %(tenant_id)s AND i.id = %(id)s

-- name: these_interruptions
WHERE i.tenant_id = %(tenant_id)s AND i.id = ANY(%(ids)s)
ORDER BY array_position(%(ids)s, i.id)

-- name: page_of_interruptions
WHERE i.tenant_id = %(tenant_id)s
  AND i.status = %(status)s
  AND (%(run_id)s::uuid IS NULL OR i.run_id = %(run_id)s)
  AND (%(type)s::text IS NULL OR i.type = %(type)s)
  AND (%(agent)s::text IS NULL OR i.agent = %(agent)s)
  AND (%(after)s::uuid IS NULL OR i.id /*beyond*/ < %(after)s)
ORDER BY i.id /*order*/ DESC
LIMIT %(fetch)s

-- name: lock_run
-- The run is what every decision on any of its interruptions waits for: without it two last
-- decisions at once would each still see the other's interruption pending.
SELECT r.id, r.tenant_id, r.status, r.segment, r.priority, r.started_by::text AS started_by, r.user_id
FROM perdure.runs r
WHERE r.id = (SELECT i.run_id FROM perdure.interruptions i
              WHERE i.id = %(id)s AND i.tenant_id = %(tenant_id)s)
  AND r.deleted_at IS NULL
FOR NO KEY UPDATE

-- name: read_for_decision
SELECT i.id, i.status, i.type, i.digest, i.tool_call_id, i.run_id, i.base_seq, i.scope, i.reason,
       i.agent, i.question, i.tool::text AS tool, i.schema::text AS schema, t.kind,
       i.expires_at, coalesce(i.expires_at <= now(), false) AS expired,
       i.rules::text AS rules, i.required, i.budget::text AS budget,
       (SELECT to_jsonb(d)::text FROM perdure.decisions d
        WHERE d.run_id = i.run_id AND d.interruption_id = i.id ORDER BY d.decided_at DESC, d.id DESC LIMIT 1) AS recorded
FROM perdure.interruptions i
LEFT JOIN perdure.tool_calls t ON t.run_id = i.run_id AND t.id = i.tool_call_id
WHERE i.id = %(id)s

-- Records a decision. One that closes the interruption changes its call as well; one that does not
-- (others have to decide too) may change what is asked about.
-- name: decide
WITH recorded AS (
    INSERT INTO perdure.decisions (
        id, interruption_id, run_id, tenant_id, decision, by_type, by_id, by_subject,
        digest, executes, message, arguments, answer, outcome, result, source, decided_at)
    VALUES (
        %(decision_id)s, %(id)s, %(run_id)s, %(tenant_id)s, %(decision)s, %(by_type)s, %(by_id)s,
        %(by_subject)s, %(digest)s, %(executes)s, %(message)s, %(arguments)s::jsonb,
        %(answer)s::jsonb, %(outcome)s, %(result)s::jsonb, %(source)s,
        -- Under the lock: of two decisions the later one has the later time.
        clock_timestamp())
), decided AS (
    UPDATE perdure.interruptions
    SET status = CASE WHEN %(closes)s THEN %(closes_as)s ELSE status END,
        closed_at = CASE WHEN %(closes)s THEN now() END,
        tool = coalesce(%(tool)s::jsonb, tool),
        digest = coalesce(%(executes)s, digest),
        rules = coalesce(%(rules)s::jsonb, rules),
        required = coalesce(%(required)s::int, required)
    WHERE id = %(id)s AND status = 'pending'
    RETURNING id, interruptions AS one
), called AS (
    UPDATE perdure.tool_calls
    SET status = %(call_to)s,
        output = coalesce(%(output)s::jsonb, output),
        error = CASE WHEN %(call_to)s = 'uncertain' THEN error ELSE %(error)s::jsonb END,
        approved_arguments = %(approved_arguments)s::jsonb,
        finished_at = CASE WHEN %(call_to)s IN ('succeeded', 'rejected') THEN now() END
    WHERE %(closes)s AND run_id = %(run_id)s AND id = %(tool_call_id)s AND status = %(call_from)s
    RETURNING id, tool_calls AS call
), told AS MATERIALIZED (
    SELECT perdure.add_events(%(run_id)s, array_agg(kind ORDER BY step),
                              array_agg(data ORDER BY step)) AS events
    FROM (SELECT 0 AS step, 'interruption.decided' AS kind,
                 perdure.closed_event(one) || jsonb_build_object(
                     'decision', %(decision)s::text, 'decision_id', %(decision_id)s::uuid,
                     'by', jsonb_build_object('type', %(by_type)s::text, 'id', %(by_id)s::text,
                                              'subject', %(by_subject)s::text)) AS data
          FROM decided
          UNION ALL
          SELECT 1, 'tool.completed', perdure.call_event(call)
          FROM called WHERE (call).status = 'succeeded') AS event
)
SELECT (SELECT events FROM told) AS events,
       (SELECT count(*) FROM decided) AS decided,
       (SELECT count(*) FROM called) AS called,
       (SELECT count(*) FROM perdure.interruptions
        WHERE run_id = %(run_id)s AND status = 'pending' AND (id <> %(id)s OR NOT %(closes)s))
           AS pending_left
