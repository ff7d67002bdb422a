-- name: prepare
CREATE SCHEMA chaos;
CREATE TABLE chaos.bookings (order_id text NOT NULL, call_id text NOT NULL);
CREATE TABLE chaos.begins (
    run_id      uuid        NOT NULL,
    seq         int         NOT NULL,
    executor_id text,
    at          timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE FUNCTION chaos.note_begin() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.begins (run_id, seq, executor_id) VALUES (NEW.run_id, NEW.seq, NEW.executor_id);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_begin AFTER UPDATE ON perdure.segments
    FOR EACH ROW WHEN (NEW.epoch > OLD.epoch) EXECUTE FUNCTION chaos.note_begin();

-- name: pending
SELECT i.id, i.run_id, i.type, i.digest, i.tool ->> 'call_id' AS call_id,
       extract(epoch FROM now() - i.requested_at)::float8 AS age
  FROM perdure.interruptions i WHERE i.status = 'pending'

-- name: who_began
SELECT DISTINCT e.pid FROM chaos.begins b JOIN perdure.executors e ON e.id = b.executor_id
 WHERE b.run_id = %(run_id)s

-- name: unfinished
SELECT count(*) AS n FROM perdure.runs WHERE finished_at IS NULL

-- name: runs
SELECT id, status, output, error_type, error_message,
       extract(epoch FROM finished_at)::float8 AS finished_at
  FROM perdure.runs

-- name: begins
SELECT b.run_id, extract(epoch FROM b.at)::float8 AS at, e.pid
  FROM chaos.begins b LEFT JOIN perdure.executors e ON e.id = b.executor_id
 ORDER BY b.at

-- A run waits from the rest of one segment to the making of the next.
-- name: waits
SELECT s.run_id, extract(epoch FROM s.rested_at)::float8 AS since,
       extract(epoch FROM n.created_at)::float8 AS until
  FROM perdure.segments s
  LEFT JOIN perdure.segments n ON n.run_id = s.run_id AND n.seq = s.seq + 1
 WHERE s.outcome = 'interrupted'

-- name: bookings
SELECT order_id, count(*) AS n FROM chaos.bookings GROUP BY order_id
