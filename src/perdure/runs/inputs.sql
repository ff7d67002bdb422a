-- Messages added to a run. Who adds one and who gives them to a state hold the run's row.

-- name: lock_run
SELECT id, status, inputs_waiting, cancel_requested_at IS NOT NULL AS cancel_requested
FROM perdure.runs
WHERE id = %(run_id)s AND tenant_id = %(tenant_id)s AND deleted_at IS NULL
FOR NO KEY UPDATE

-- name: add
WITH run AS (
    UPDATE perdure.runs SET inputs_waiting = inputs_waiting + 1, updated_at = now()
    WHERE id = %(run_id)s
    RETURNING id, tenant_id, status
), added AS (
    INSERT INTO perdure.run_inputs (
        id, run_id, tenant_id, seq, input, added_by_type, added_by_id, added_by_subject)
    SELECT %(id)s, run.id, run.tenant_id,
           (SELECT coalesce(max(i.seq), 0) + 1 FROM perdure.run_inputs i WHERE i.run_id = run.id),
           %(input)s::jsonb, %(by_type)s, %(by_id)s, %(by_subject)s
    FROM run
    RETURNING *
)
SELECT (to_jsonb(added) || jsonb_build_object('run_status', run.status,
                                              'run_error_type', NULL))::text AS input,
       perdure.add_event(added.run_id, 'input.added',
                         %(told)s::jsonb || jsonb_build_object('input_id', added.id)) AS events,
       pg_notify('perdure_input', added.run_id::text)
FROM added, run

-- name: waiting
SELECT id, input::text FROM perdure.run_inputs
WHERE run_id = %(run_id)s AND given_seq IS NULL
ORDER BY seq

-- Those of `ids`; all that wait, where it is null.
-- name: give
WITH given AS (
    UPDATE perdure.run_inputs SET given_seq = %(state_seq)s, given_at = now()
    WHERE run_id = %(run_id)s AND given_seq IS NULL
      AND (%(ids)s::uuid[] IS NULL OR id = ANY(%(ids)s))
    RETURNING id, seq, input
), counted AS (
    UPDATE perdure.runs
    SET inputs_waiting = inputs_waiting - (SELECT count(*) FROM given)
    WHERE id = %(run_id)s
    RETURNING id
)
-- The run first, as everywhere: its head is locked after it.
SELECT (SELECT coalesce(jsonb_agg(g.input ORDER BY g.seq), '[]') FROM given g)::text AS inputs,
       perdure.add_events(
           id,
           (SELECT array_agg('input.given'::text) FROM given),
           (SELECT array_agg(jsonb_build_object('input_id', g.id) ORDER BY g.seq) FROM given g)
       ) AS events
FROM counted
