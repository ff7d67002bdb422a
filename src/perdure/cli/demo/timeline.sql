-- What happened to a run, from its own rows; `rank` orders what one transaction wrote at once.
-- name: timeline
SELECT at, kind, data::text AS data FROM (
    SELECT created_at AS at, 0 AS rank, 'accepted' AS kind,
           jsonb_build_object('agent', agent, 'input', input) AS data
      FROM perdure.runs WHERE id = %(run_id)s
    UNION ALL
    SELECT started_at, 1, 'worker', jsonb_build_object('worker', id)
      FROM perdure.executors
    UNION ALL
    SELECT started_at, 2, 'segment', jsonb_build_object('seq', seq)
      FROM perdure.segments WHERE run_id = %(run_id)s AND started_at IS NOT NULL
    UNION ALL
    SELECT rested_at, 9, 'rest',
           jsonb_build_object('seq', seq, 'outcome', outcome, 'executions', executions,
                              'epoch', epoch, 'worker', executor_id)
      FROM perdure.segments WHERE run_id = %(run_id)s AND rested_at IS NOT NULL
    UNION ALL
    SELECT created_at, 3, 'reply',
           jsonb_build_object('agent', agent, 'output', output, 'tokens',
                              (perdure.usage_of_reply(run_id, id) ->> 'total_tokens')::bigint)
      FROM perdure.model_responses WHERE run_id = %(run_id)s
    UNION ALL
    SELECT created_at, 4, 'checkpoint', jsonb_build_object('kind', kind, 'seq', seq)
      FROM perdure.run_states WHERE run_id = %(run_id)s
    UNION ALL
    SELECT requested_at, 5, 'question', jsonb_build_object('agent', agent, 'tool', tool)
      FROM perdure.interruptions WHERE run_id = %(run_id)s
    UNION ALL
    SELECT d.decided_at, 6, 'decision',
           jsonb_build_object('decision', d.decision, 'by', coalesce(d.by_subject, d.by_type),
                              'tool', i.tool)
      FROM perdure.decisions d
      JOIN perdure.interruptions i ON i.id = d.interruption_id
     WHERE d.run_id = %(run_id)s
    UNION ALL
    SELECT started_at, 7, 'again', jsonb_build_object('tool', tool, 'attempt', attempt)
      FROM perdure.tool_calls WHERE run_id = %(run_id)s AND attempt > 1
    UNION ALL
    SELECT finished_at, 7, 'tool',
           jsonb_build_object('agent', agent, 'tool', tool, 'status', status, 'effect', effect,
                              'attempt', attempt, 'output', output)
      FROM perdure.tool_calls WHERE run_id = %(run_id)s AND finished_at IS NOT NULL
    UNION ALL
    SELECT finished_at, 8, 'finished', jsonb_build_object('status', status, 'agent', current_agent)
      FROM perdure.runs WHERE id = %(run_id)s AND finished_at IS NOT NULL
) AS happened
ORDER BY at, rank

-- name: reply_count
SELECT count(*) AS replies FROM perdure.model_responses WHERE run_id = %(run_id)s

-- name: executors
SELECT id, pid FROM perdure.executors

-- name: now
SELECT clock_timestamp() AS now
