INSERT INTO perdure.schema_migrations (version, name) VALUES (8, 'grants');
