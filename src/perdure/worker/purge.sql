-- Counted as they go: /metrics tells how many there ever were.
-- name: old_repairs
WITH gone AS (
    DELETE FROM perdure.repairs WHERE repaired_at < now() - interval '90 days' RETURNING kind
)
INSERT INTO perdure.repairs_purged AS p (kind, repairs)
SELECT kind, count(*) FROM gone GROUP BY kind ORDER BY kind
    ON CONFLICT (kind) DO UPDATE SET repairs = p.repairs + EXCLUDED.repairs

-- name: old_user_sessions
DELETE FROM perdure.user_sessions
WHERE least(expires_at, revoked_at) < now() - interval '30 days'
