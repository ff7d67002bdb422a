-- All that is done by SQL to the tables of DBOS. looks.sql has what is only read.

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

-- The same of every row of `queued` (id, attempt): an attempt at a delivery.
-- name: enqueue_deliveries
SELECT dbos.enqueue_workflow(
           workflow_name   => 'perdure_delivery',
           queue_name      => 'perdure_deliveries',
           positional_args => ARRAY[to_json(id::text), to_json(attempt)],
           workflow_id     => id::text || ':' || attempt::text,
           app_version     => 'perdure',
           application_name => 'perdure'),
       pg_notify('perdure_deliveries', '')
  FROM queued

-- Every row of `seen` (workflow_id, name, status, owner), which the statement this ends has to name,
-- goes back to the queue as if it had just been enqueued, whatever has become of its row; unless it
-- has changed since it was seen. `owner` is dbos.workflow_status.owner_xid, which every claim renews.
-- What its id says, beside the kind it is of, is all there is to know of a workflow of ours.
-- `requeued` (workflow_id, name) are those it took.
-- name: requeue_seen
, requeued AS (
    UPDATE dbos.workflow_status w
       SET status = 'ENQUEUED', name = s.name, class_name = NULL, config_name = NULL,
           queue_name = CASE s.name WHEN 'perdure_segment' THEN 'perdure'
                                    WHEN 'perdure_delivery' THEN 'perdure_deliveries' END,
           queue_partition_key = NULL, deduplication_id = NULL,
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
    RETURNING w.workflow_uuid AS workflow_id, w.name
), inputs AS (
    INSERT INTO dbos.workflow_input (workflow_uuid, inputs)
    SELECT workflow_id,
           json_build_object('positionalArgs',
                             json_build_array(split_part(workflow_id, ':', 1),
                                              split_part(workflow_id, ':', 2)::int),
                             'namedArgs', '{}'::json)::text
      FROM requeued
        ON CONFLICT (workflow_uuid) DO UPDATE SET inputs = excluded.inputs
), outcomes AS (
    DELETE FROM dbos.workflow_output o USING requeued r WHERE o.workflow_uuid = r.workflow_id
)

-- name: woken
SELECT workflow_id,
       pg_notify(CASE name WHEN 'perdure_delivery' THEN 'perdure_deliveries'
                           ELSE 'perdure_segments' END, '')
  FROM requeued

-- Segments, as somebody saw them.
-- name: these
WITH seen AS (
    SELECT *, 'perdure_segment' AS name FROM unnest(%(ids)s::text[], %(statuses)s::text[], %(owners)s::text[])
        AS seen (workflow_id, status, owner)
)

-- What executors hold that are not alive: stopped, lost or unknown ones. Given back, nothing of it
-- is found a second time.
-- name: of_the_dead
WITH seen AS (
    SELECT workflow_uuid AS workflow_id, name, status, owner_xid AS owner, executor_id AS held_by
      FROM dbos.workflow_status w
     WHERE status = 'PENDING' AND name IN ('perdure_segment', 'perdure_delivery')
       AND executor_id IS DISTINCT FROM %(executor_id)s
       AND NOT EXISTS (SELECT FROM perdure.executors e
                        WHERE e.id = w.executor_id AND e.stopped_at IS NULL AND e.lost_at IS NULL)
)

-- name: taken_over
, noted AS (
    INSERT INTO perdure.repairs (id, kind, run_id, segment, executor_id, repaired_by)
    SELECT gen_random_uuid(), 'taken_over', split_part(workflow_id, ':', 1)::uuid,
           split_part(workflow_id, ':', 2)::int, held_by, %(executor_id)s
      FROM requeued JOIN seen USING (workflow_id)
     WHERE requeued.name = 'perdure_segment'
)

-- name: of_this_one
WITH seen AS (
    SELECT workflow_uuid AS workflow_id, name, status, owner_xid AS owner
      FROM dbos.workflow_status
     WHERE status = 'PENDING' AND name IN ('perdure_segment', 'perdure_delivery')
       AND executor_id = %(executor_id)s
)

-- Whoever begins one next is not to count a death of this executor.
-- name: handed_over
, let_go AS (
    UPDATE perdure.segments s SET executor_id = NULL
      FROM requeued
     WHERE requeued.name = 'perdure_segment' AND s.run_id = split_part(workflow_id, ':', 1)::uuid
       AND s.seq = split_part(workflow_id, ':', 2)::int
       AND s.executor_id = %(executor_id)s AND s.status = 'running'
)

-- name: has_workflow
SELECT FROM dbos.workflow_status WHERE workflow_uuid = %(workflow_id)s

-- What a workflow left whose own row was deleted: enqueued again it would go on from it.
-- name: clear_inputs
DELETE FROM dbos.workflow_input WHERE workflow_uuid = %(workflow_id)s

-- name: clear_outputs
DELETE FROM dbos.workflow_output WHERE workflow_uuid = %(workflow_id)s

-- Attempts of which nothing was heard since `seconds` ago, unless they wait in their queue: their
-- workflow is gone, ended, elsewhere, or with somebody who lives and should be done with it.
-- name: lost_deliveries
SELECT d.id, d.attempt
  FROM perdure.webhook_deliveries d
  LEFT JOIN dbos.workflow_status w ON w.workflow_uuid = d.id::text || ':' || d.attempt::text
 WHERE d.status = 'pending' AND d.queued_at < now() - make_interval(secs => %(seconds)s::float8)
   AND (w.status = 'ENQUEUED' AND w.name = 'perdure_delivery' AND w.queue_name = 'perdure_deliveries'
        AND w.application_version = 'perdure'
        AND COALESCE(w.application_name, 'perdure') = 'perdure') IS NOT TRUE
 LIMIT 100

-- The workflows of deliveries that are not kept any more.
-- name: forget_deliveries
WITH gone AS (
    SELECT workflow_uuid FROM dbos.workflow_status
     WHERE name = 'perdure_delivery' AND status NOT IN ('PENDING', 'ENQUEUED', 'DELAYED')
       AND workflow_uuid = ANY(%(ids)s)
), inputs AS (
    DELETE FROM dbos.workflow_input i USING gone WHERE i.workflow_uuid = gone.workflow_uuid
), outputs AS (
    DELETE FROM dbos.workflow_output o USING gone WHERE o.workflow_uuid = gone.workflow_uuid
)
DELETE FROM dbos.workflow_status w USING gone WHERE w.workflow_uuid = gone.workflow_uuid
