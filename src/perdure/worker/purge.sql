-- name: old_repairs
DELETE FROM perdure.repairs WHERE repaired_at < now() - interval '90 days'
