INSERT INTO perdure.schema_migrations (version, name) VALUES (7, 'policies');
