-- name: one_segment
WITH queued AS (
    SELECT %(run_id)s::uuid AS run_id, %(seq)s::int AS seq, %(priority)s::int AS priority
)
