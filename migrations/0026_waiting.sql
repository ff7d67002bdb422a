-- What waits for people, by kind and since when, counted without reading the questions themselves.

CREATE INDEX interruptions_waiting ON perdure.interruptions (type, requested_at)
    WHERE status = 'pending';
-- It answers what this one did.
DROP INDEX perdure.interruptions_uncertain;

INSERT INTO perdure.schema_migrations (version, name) VALUES (26, 'waiting');
