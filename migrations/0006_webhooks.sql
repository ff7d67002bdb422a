INSERT INTO perdure.schema_migrations (version, name) VALUES (6, 'webhooks');
