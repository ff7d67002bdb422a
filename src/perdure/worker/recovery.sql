-- Gives back to the queue what a dead executor was running. An executor whose advisory lock can
-- be taken is dead; the lock is ours until this statement commits, so two workers do not both act.
-- name: recover
WITH suspect AS (
    SELECT DISTINCT executor_id FROM dbos.workflow_status
     WHERE status = 'PENDING' AND name = 'perdure_segment' AND executor_id <> %(executor_id)s
), dead AS MATERIALIZED (
    SELECT executor_id FROM suspect
     WHERE pg_try_advisory_xact_lock(hashtextextended('perdure:' || executor_id, 0))
), recovered AS (
    UPDATE dbos.workflow_status w
       SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL,
           updated_at = (extract(epoch FROM now()) * 1000)::bigint
      FROM dead
     WHERE w.executor_id = dead.executor_id AND w.status = 'PENDING'
       AND w.name = 'perdure_segment'
    RETURNING w.workflow_uuid, dead.executor_id
)
SELECT workflow_uuid, executor_id, pg_notify('perdure_segments', '') FROM recovered

-- A worker that stops gives back what it did not finish.
-- name: hand_over
UPDATE dbos.workflow_status
   SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL,
       updated_at = (extract(epoch FROM now()) * 1000)::bigint
 WHERE executor_id = %(executor_id)s AND status = 'PENDING' AND name = 'perdure_segment'
RETURNING workflow_uuid, pg_notify('perdure_segments', '')
