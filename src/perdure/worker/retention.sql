-- One worker at a time, to the end of the session.
-- name: take
SELECT pg_try_advisory_lock(hashtextextended('perdure:retention', 0)) AS taken

-- name: a_week_ago
SELECT now() - interval '7 days' AS before
