-- name: asked_of
SELECT id, cancel_requested_at IS NOT NULL AS cancel_requested
FROM perdure.runs
WHERE id = ANY(%(runs)s) AND (cancel_requested_at IS NOT NULL OR inputs_waiting > 0)
