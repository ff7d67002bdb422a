-- Calls of which nobody knows whether they happened. Each statement changes a row only while the
-- segment is still this execution's, whose row is locked.

-- name: doubt_call
WITH fence AS (
    SELECT FROM perdure.segments
     WHERE run_id = %(run_id)s AND seq = %(segment)s AND epoch = %(epoch)s AND status = 'running'
       FOR SHARE
), changed AS (
    UPDATE perdure.tool_calls t
       SET status = 'uncertain', error = %(error)s::jsonb
     WHERE run_id = %(run_id)s AND scope = %(scope)s AND call_id = %(call_id)s
       AND status = 'executing' AND epoch = %(epoch)s
       AND EXISTS (SELECT FROM fence)
    RETURNING t AS call
)
SELECT perdure.add_event((call).run_id, 'tool.uncertain', perdure.call_event(call)) AS events
  FROM changed

-- What a probe said, and what became of its call with it. Whoever began the call may be dead.
-- name: probed
WITH fence AS (
    SELECT tenant_id FROM perdure.segments
     WHERE run_id = %(run_id)s AND seq = %(segment)s AND epoch = %(epoch)s AND status = 'running'
       FOR SHARE
), changed AS (
    UPDATE perdure.tool_calls t
       SET status = %(becomes)s, output = %(output)s::jsonb,
           error = CASE WHEN %(becomes)s = 'uncertain' THEN error END,
           finished_at = CASE WHEN %(becomes)s = 'succeeded' THEN now() END
     WHERE run_id = %(run_id)s AND scope = %(scope)s AND call_id = %(call_id)s
       AND status IN ('executing', 'uncertain')
       AND EXISTS (SELECT FROM fence)
    RETURNING t AS call
), evidence AS (
    INSERT INTO perdure.tool_call_evidence (
           id, run_id, tenant_id, tool_call_id, kind, epoch, status, output, error)
    SELECT %(id)s, %(run_id)s, fence.tenant_id, (call).id, 'probe', %(epoch)s, %(status)s,
           %(output)s::jsonb, %(error)s::jsonb
      FROM changed, fence
)
SELECT CASE WHEN (call).status = 'succeeded' THEN perdure.add_event(
           (call).run_id, 'tool.completed', perdure.call_event(call)) END AS events
  FROM changed

-- The same execution makes the same call again: an intent of its own, with the next attempt.
-- name: begin_again
WITH fence AS (
    SELECT FROM perdure.segments
     WHERE run_id = %(run_id)s AND seq = %(segment)s AND epoch = %(epoch)s AND status = 'running'
       FOR SHARE
), changed AS (
    UPDATE perdure.tool_calls t
       SET attempt = attempt + 1, started_at = now()
     WHERE run_id = %(run_id)s AND scope = %(scope)s AND call_id = %(call_id)s
       AND status = 'executing' AND epoch = %(epoch)s
       AND EXISTS (SELECT FROM fence)
    RETURNING t AS call
)
SELECT perdure.add_event((call).run_id, 'tool.started', perdure.call_event(call)) AS events
  FROM changed
