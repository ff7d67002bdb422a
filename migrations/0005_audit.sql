INSERT INTO perdure.schema_migrations (version, name) VALUES (5, 'audit');
