-- What is personal of one who acted, or whom it was about. Others' names stay where they decided
-- on that one's runs; what it was about does not.
-- name: erase
WITH person AS (
    SELECT encode(sha256(t.audit_salt || convert_to(%(person)s, 'UTF8')), 'hex') AS pseudonym
    FROM perdure.tenants t WHERE t.id = %(tenant_id)s
), theirs AS (
    SELECT l.id, false AS acted FROM perdure.audit_log l, person
    WHERE l.tenant_id = %(tenant_id)s AND l.concerns = person.pseudonym
    UNION ALL
    SELECT l.id, true FROM perdure.audit_log l, person
    WHERE l.tenant_id = %(tenant_id)s AND l.actor = person.pseudonym
), gone AS (
    DELETE FROM perdure.audit_payloads p USING theirs
    WHERE p.id = theirs.id AND (p.part = 'details' OR theirs.acted)
    RETURNING p.id
)
SELECT person.pseudonym, (SELECT count(DISTINCT id) FROM gone)::int AS rows FROM person

-- name: forget_runs
DELETE FROM perdure.audit_payloads WHERE run_id = ANY (%(run_ids)s) AND part = 'details'
