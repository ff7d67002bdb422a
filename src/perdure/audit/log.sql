-- One statement, and it locks nothing that another one waits for. Time, cluster and transaction are
-- the table's defaults: the role that serves may not write those columns.
-- name: record
WITH given AS MATERIALIZED (
    -- Looked up row by row: a join could be planned as a scan of all runs.
    SELECT e.*, (SELECT t.audit_salt FROM perdure.tenants t WHERE t.id = e.tenant_id) AS audit_salt,
           (SELECT r.user_id FROM perdure.runs r WHERE r.id = e.run_id) AS user_id
    FROM jsonb_to_recordset(%(entries)s::jsonb) AS e (
        id uuid, tenant_id uuid, kind text, subject_type text, subject_id text, run_id uuid,
        actor_type text, person text, about text, way text, shown_digest text, executed_digest text,
        who text, who_digest text, details text, details_digest text)
), logged AS (
    INSERT INTO perdure.audit_log (
        id, tenant_id, kind, subject_type, subject_id, run_id, actor_type, actor, concerns, way,
        shown_digest, executed_digest, who_digest, details_digest)
    SELECT id, tenant_id, kind, subject_type, subject_id, run_id, actor_type,
           encode(sha256(audit_salt || convert_to(person, 'UTF8')), 'hex'),
           encode(sha256(audit_salt || convert_to(coalesce(about, user_id), 'UTF8')), 'hex'),
           way, shown_digest, executed_digest, who_digest, details_digest
    FROM given
)
INSERT INTO perdure.audit_payloads (id, part, tenant_id, run_id, payload)
SELECT id, 'who', tenant_id, run_id, who::json FROM given WHERE who IS NOT NULL
UNION ALL
SELECT id, 'details', tenant_id, run_id, details::json FROM given
