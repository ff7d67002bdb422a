-- Two sessions, and the last number both read of the deepest ancestor they share; one may be the
-- other's. No row: one of the two is not there. `fork_seq` is null where they share none.
-- name: pair
WITH RECURSIVE mine AS (
    SELECT s.id, s.parent_session_id, s.fork_seq, s.depth, 2147483646 AS upto
    FROM perdure.sessions s
    WHERE s.id = %(session_id)s
    UNION ALL
    SELECT p.id, p.parent_session_id, p.fork_seq, p.depth, least(c.upto, c.fork_seq)
    FROM mine c
    JOIN perdure.sessions p ON p.id = c.parent_session_id
), other AS (
    SELECT s.id, s.parent_session_id, s.fork_seq, 2147483646 AS upto
    FROM perdure.sessions s
    WHERE s.id = %(base_id)s
    UNION ALL
    SELECT p.id, p.parent_session_id, p.fork_seq, least(c.upto, c.fork_seq)
    FROM other c
    JOIN perdure.sessions p ON p.id = c.parent_session_id
)
SELECT to_jsonb(b)::text AS base,
       (SELECT least(mine.upto, other.upto)
        FROM mine JOIN other ON other.id = mine.id
        ORDER BY mine.depth DESC
        LIMIT 1) AS fork_seq
FROM perdure.sessions b
WHERE b.id = %(base_id)s AND b.tenant_id = %(tenant_id)s AND b.deleted_at IS NULL
  AND (%(user_id)s::text IS NULL OR b.user_id = %(user_id)s)

-- Items of a session after a number, by turn: a user's message begins one, unless it goes on what
-- was said just before, in the same run or by hand. What stands before the first message is turn 0.
-- What a run says that replays is in that turn, also when it was resumed later; one that has said
-- nothing, as it waits or failed at once, has its place.
-- name: turns
, said AS (
    SELECT i.session_id, i.id, i.seq, i.run_id, i.is_message, r.replays_seq
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT i.session_id, i.id, i.seq, i.run_id,
               coalesce(i.role = 'user', false)
               AND coalesce(i.item ->> 'type', 'message') = 'message' AS is_message
        FROM perdure.session_items i
        WHERE i.session_id = c.id AND i.seq > %(fork_seq)s AND i.seq <= c.upto
          AND (i.removed_version IS NULL OR i.removed_version > c.version)
          AND NOT i.seq <@ c.holes
    ) i
    LEFT JOIN perdure.runs r ON r.id = i.run_id
), placed AS (
    SELECT session_id, id, seq, run_id,
           coalesce(replays_seq, max(replays_seq) OVER told) AS place,
           is_message AND NOT coalesce(
               lag(is_message) OVER told AND lag(run_id) OVER told IS NOT DISTINCT FROM run_id,
               false) AS begins
    FROM said
    WINDOW told AS (ORDER BY seq)
    UNION ALL
    SELECT NULL, NULL, NULL, r.id, r.replays_seq, true
    FROM perdure.runs r
    WHERE r.session_id = %(session_id)s AND r.tenant_id = %(tenant_id)s
      AND r.replays_seq IS NOT NULL AND r.deleted_at IS NULL
      AND NOT EXISTS (SELECT FROM said WHERE said.run_id = r.id)
), numbered AS (
    SELECT session_id, id, seq, run_id,
           count(*) FILTER (WHERE begins) OVER (
               ORDER BY place NULLS FIRST, seq NULLS FIRST) AS turn
    FROM placed
)
SELECT n.turn, r.id AS run_id, r.status AS run_status,
       CASE WHEN i.id IS NULL THEN r.input::text END AS input,
       CASE WHEN i.id IS NOT NULL THEN row_to_json(i)::text END AS shown
FROM numbered n
LEFT JOIN LATERAL (
    SELECT i.id, i.session_id, i.seq, i.role, i.sender, i.text, i.item, i.agent, i.run_id,
           i.user_id, i.token_count, i.metadata, i.created_at
    FROM perdure.session_items i
    WHERE i.session_id = n.session_id AND i.id = n.id
) i ON true
LEFT JOIN perdure.runs r ON r.id = n.run_id AND r.deleted_at IS NULL
WHERE n.turn > %(after)s AND n.turn <= %(after)s + %(limit)s
ORDER BY n.turn, n.seq
