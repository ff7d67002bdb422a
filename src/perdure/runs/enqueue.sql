-- name: enqueue_segment
SELECT dbos.enqueue_workflow(
           workflow_name   => 'perdure_segment',
           queue_name      => 'perdure',
           positional_args => ARRAY[to_json(%(run_id)s::text), to_json(%(seq)s::int)],
           workflow_id     => %(run_id)s::text || ':' || %(seq)s::text,
           app_version     => 'perdure',
           application_name => 'perdure',
           priority        => %(priority)s::int),
       pg_notify('perdure_segments', '')
