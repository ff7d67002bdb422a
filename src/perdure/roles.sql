-- {role} is put in as an identifier.
-- name: grant_perdure
GRANT USAGE ON SCHEMA perdure TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA perdure TO {role};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA perdure TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA perdure TO {role};
GRANT USAGE ON SCHEMA perdure_read TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA perdure_read TO {role};
REVOKE ALL ON perdure.schema_migrations, perdure.audit_log, perdure.audit_seals,
              perdure.audit_payloads FROM {role};
GRANT SELECT ON perdure.schema_migrations, perdure.audit_log, perdure.audit_seals,
                perdure.audit_payloads TO {role};
GRANT INSERT (id, tenant_id, kind, subject_type, subject_id, run_id, actor_type, actor, concerns,
              way, shown_digest, executed_digest, who_digest, details_digest)
   ON perdure.audit_log TO {role};
GRANT INSERT ON perdure.audit_seals TO {role};
GRANT INSERT, DELETE ON perdure.audit_payloads TO {role}

-- name: grant_dbos
GRANT USAGE ON SCHEMA dbos TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dbos TO {role};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA dbos TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dbos TO {role}

-- name: has_role
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %(role)s) AS present

-- name: has_dbos
SELECT to_regnamespace('dbos') IS NOT NULL AS present

-- What a role could do to the audit beyond adding to it; owners and superusers everything.
-- name: powers_over_audit
SELECT coalesce(bool_or(pg_has_role(%(role)s, c.relowner, 'MEMBER')), false) AS owns,
       coalesce(bool_or(has_table_privilege(%(role)s, c.oid, 'UPDATE')
                        OR has_table_privilege(%(role)s, c.oid, 'TRUNCATE')
                        OR has_table_privilege(%(role)s, c.oid, 'TRIGGER')
                        OR (c.relname <> 'audit_payloads'
                            AND has_table_privilege(%(role)s, c.oid, 'DELETE'))), false) AS may_change
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'perdure' AND c.relname IN ('audit_log', 'audit_seals', 'audit_payloads')
