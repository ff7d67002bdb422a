-- name: cancel_requested
SELECT id FROM perdure.runs WHERE id = ANY(%(runs)s) AND cancel_requested_at IS NOT NULL
