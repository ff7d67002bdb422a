-- name: try_lock
SELECT pg_try_advisory_lock(%(key)s) AS locked

-- name: unlock
SELECT pg_advisory_unlock(%(key)s)

-- name: has_table
SELECT to_regclass('perdure.schema_migrations') IS NOT NULL AS present

-- Migrations may create this themselves, so that they can be run by hand: keep the two alike.
-- name: create_schema
CREATE SCHEMA IF NOT EXISTS perdure

-- name: create_table
CREATE TABLE IF NOT EXISTS perdure.schema_migrations (
    version     int         PRIMARY KEY CHECK (version > 0),
    name        text        NOT NULL,
    checksum    text,
    applied_at  timestamptz NOT NULL DEFAULT now()
)

-- name: applied
SELECT version, name, checksum, applied_at
  FROM perdure.schema_migrations
 ORDER BY version

-- A file run by hand recorded itself without a checksum.
-- name: record
INSERT INTO perdure.schema_migrations (version, name, checksum)
VALUES (%(version)s, %(name)s, %(checksum)s)
ON CONFLICT (version) DO UPDATE
   SET checksum = excluded.checksum
 WHERE schema_migrations.checksum IS NULL

-- name: has_partitions
SELECT to_regprocedure('perdure.make_partitions(int)') IS NOT NULL AS present

-- name: make_partitions
SELECT perdure.make_partitions() AS name
