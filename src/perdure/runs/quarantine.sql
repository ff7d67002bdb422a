-- Executors found dead in the last minute, whatever they ran.
-- name: deaths
SELECT count(*)::int AS deaths FROM perdure.executors WHERE lost_at > now() - interval '1 minute'

-- The execution lets go of the segment: whoever begins it next does not take this one for dead.
-- name: let_go
UPDATE perdure.segments SET executor_id = NULL
 WHERE run_id = %(run_id)s AND seq = %(seq)s AND epoch = %(epoch)s AND status = 'running'

-- A process died that ran the segment alone; a row: the segment was still its own.
-- name: died_alone
UPDATE perdure.segments s
   SET alone_deaths = CASE WHEN c.recorded > s.recorded THEN 1 ELSE s.alone_deaths + 1 END,
       recorded = c.recorded, executor_id = NULL
  FROM (SELECT (SELECT count(*) FROM perdure.model_responses WHERE run_id = %(run_id)s)
             + (SELECT count(*) FROM perdure.tool_calls
                 WHERE run_id = %(run_id)s AND finished_at IS NOT NULL)
             + (SELECT count(*) FROM perdure.run_states
                 WHERE run_id = %(run_id)s) AS recorded) c
 WHERE s.run_id = %(run_id)s AND s.seq = %(seq)s AND s.epoch = %(epoch)s
   AND s.status = 'running'
RETURNING s.alone_deaths
