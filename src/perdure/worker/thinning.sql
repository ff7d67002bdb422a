-- Runs to look at; who looks at one has ten minutes for it before another worker does.
-- name: claim
UPDATE perdure.run_event_heads h SET thin_at = now() + interval '10 minutes'
  FROM (SELECT run_id FROM perdure.run_event_heads
         WHERE thin_at <= now()
         ORDER BY thin_at
         LIMIT %(runs)s
           FOR UPDATE SKIP LOCKED) due
 WHERE h.run_id = due.run_id
RETURNING h.run_id, h.seq

-- What was streamed of replies that ended an hour ago, well or not.
-- name: thin
DELETE FROM perdure.run_events e
 USING (SELECT data ->> 'model_response_id' AS reply, data ->> 'attempt' AS attempt
          FROM perdure.run_events
         WHERE run_id = %(run_id)s AND kind IN ('model.completed', 'model.superseded')
           AND created_at < now() - interval '1 hour') ended
 WHERE e.run_id = %(run_id)s AND e.kind = 'model.delta'
   AND e.data ->> 'model_response_id' = ended.reply AND e.data ->> 'attempt' = ended.attempt

-- Where something was streamed since, or is left, somebody has to look again.
-- name: thinned
UPDATE perdure.run_event_heads h
   SET thin_at = CASE WHEN h.seq <> %(seq)s OR EXISTS (
           SELECT FROM perdure.run_events e
            WHERE e.run_id = h.run_id AND e.kind = 'model.delta')
       THEN now() + interval '1 hour' END
 WHERE h.run_id = %(run_id)s
