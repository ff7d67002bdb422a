-- name: one_segment
WITH queued AS (
    SELECT %(run_id)s::uuid AS run_id, %(seq)s::int AS seq, %(priority)s::int AS priority
)

-- Every row of `queued`, which the statement this ends has to name, becomes a workflow.
-- name: enqueue_queued
SELECT dbos.enqueue_workflow(
           workflow_name   => 'perdure_segment',
           queue_name      => 'perdure',
           positional_args => ARRAY[to_json(run_id::text), to_json(seq)],
           workflow_id     => run_id::text || ':' || seq::text,
           app_version     => 'perdure',
           application_name => 'perdure',
           priority        => priority),
       pg_notify('perdure_segments', '')
  FROM queued
