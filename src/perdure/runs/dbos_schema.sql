-- name: version
SELECT coalesce(max(version), 0) AS version FROM dbos.dbos_migrations
