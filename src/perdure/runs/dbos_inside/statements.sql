-- All that is done by SQL to the tables of DBOS, except a dead worker's recovery.

-- The number of the last migration.
-- name: version
SELECT coalesce(max(version), 0) AS version FROM dbos.dbos_migrations

-- Every row of `queued` (run_id, seq, priority), which the statement this ends has to name, becomes
-- a workflow. One that is there already stays as it is.
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

-- Every row of `seen` (workflow_id, status, owner), which the statement this ends has to name, goes
-- back to the queue as if it had just been enqueued, whatever has become of its row; unless it has
-- changed since it was seen. `owner` is dbos.workflow_status.owner_xid, which every claim renews.
-- What its id says is all there is to know of a segment. Returns the ids of those it took.
-- name: requeue_seen
, requeued AS (
    UPDATE dbos.workflow_status w
       SET status = 'ENQUEUED', name = 'perdure_segment', class_name = NULL, config_name = NULL,
           queue_name = 'perdure', queue_partition_key = NULL, deduplication_id = NULL,
           application_version = 'perdure', application_name = 'perdure',
           serialization = 'portable_json', inputs = NULL, output = NULL, error = NULL,
           executor_id = NULL, owner_xid = NULL, started_at_epoch_ms = NULL, completed_at = NULL,
           recovery_attempts = 0, rate_limited = false,
           workflow_timeout_ms = NULL, workflow_deadline_epoch_ms = NULL,
           delay_until_epoch_ms = NULL, debounce_deadline_epoch_ms = NULL, is_debounced = false,
           authenticated_user = NULL, authenticated_roles = NULL, assumed_role = NULL,
           attributes = NULL, updated_at = (extract(epoch FROM now()) * 1000)::bigint
      FROM seen s
     WHERE w.workflow_uuid = s.workflow_id
       AND w.workflow_uuid ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:[0-9]{1,9}$'
       AND w.status IS NOT DISTINCT FROM s.status AND w.owner_xid IS NOT DISTINCT FROM s.owner
    RETURNING w.workflow_uuid
), inputs AS (
    INSERT INTO dbos.workflow_input (workflow_uuid, inputs)
    SELECT workflow_uuid,
           json_build_object('positionalArgs',
                             json_build_array(split_part(workflow_uuid, ':', 1),
                                              split_part(workflow_uuid, ':', 2)::int),
                             'namedArgs', '{}'::json)::text
      FROM requeued
        ON CONFLICT (workflow_uuid) DO UPDATE SET inputs = excluded.inputs
), outcomes AS (
    DELETE FROM dbos.workflow_output o USING requeued r WHERE o.workflow_uuid = r.workflow_uuid
)
SELECT workflow_uuid AS workflow_id, pg_notify('perdure_segments', '') FROM requeued
