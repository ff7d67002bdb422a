-- name: prepare
CREATE SCHEMA chaos;
CREATE TABLE chaos.bookings (order_id text NOT NULL, call_id text NOT NULL);

-- name: unfinished
SELECT count(*) AS n FROM dbos.workflow_status
 WHERE parent_workflow_id IS NULL AND status IN ('PENDING', 'ENQUEUED', 'DELAYED')

-- name: bookings
SELECT order_id, count(*) AS n FROM chaos.bookings GROUP BY order_id
