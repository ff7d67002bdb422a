-- What a table is; no row where there is none of that name. `why_not` says what keeps it from being
-- in partitions.
-- name: look
SELECT c.relkind = 'p' AS parted, pg_total_relation_size(c.oid) AS bytes,
       CASE WHEN NOT EXISTS (
                SELECT FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attname = 'run_id' AND a.attnotnull)
            THEN 'it has no run_id for each row'
            WHEN EXISTS (
                SELECT FROM pg_index i
                 WHERE i.indrelid = c.oid AND i.indisunique AND NOT EXISTS (
                       SELECT FROM pg_attribute a
                        WHERE a.attrelid = c.oid AND a.attname = 'run_id'
                          AND a.attnum = ANY (i.indkey)))
            THEN 'it has a key without run_id'
            WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
            THEN 'it has triggers, which would have to be made for each partition'
            WHEN EXISTS (
                SELECT FROM pg_depend d JOIN pg_rewrite w ON w.oid = d.objid
                  JOIN pg_class v ON v.oid = w.ev_class
                 WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = c.oid AND v.relkind = 'm')
            THEN 'a materialized view reads it; drop that first, and make it anew afterwards'
       END AS why_not
  FROM pg_class c
 WHERE c.oid = to_regclass(format('perdure.%%I', %(table)s::text)) AND c.relkind IN ('r', 'p')

-- name: parted_by_month
SELECT c.relname::text AS name,
       (SELECT count(*) FROM perdure.partitions_of(c.relname::text))::int AS partitions
  FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid
 WHERE c.relnamespace = 'perdure'::regnamespace AND NOT c.relispartition
 ORDER BY c.relname

-- The first id of the month after this one, or after that of the newest row.
-- {table}: a name.
-- name: bound
SELECT perdure.first_id_at((date_trunc('month', greatest(now(), to_timestamp(
           ('x' || left(replace(max(run_id::text COLLATE "C"), '-', ''), 12))::bit(48)::bigint / 1000.0))
           AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC')::text AS bound
  FROM perdure.{table}

-- What follows are statements, made of the table as it is. All are read before the first one runs.
-- name: locks
SELECT 'LOCK TABLE perdure.runs IN SHARE ROW EXCLUSIVE MODE' AS statement
UNION ALL
SELECT format('LOCK TABLE %%s IN ACCESS EXCLUSIVE MODE', string_agg(rel::text, ', ' ORDER BY rel::text))
  FROM (SELECT to_regclass(format('perdure.%%I', %(table)s::text)) AS rel
        UNION
        SELECT f.conrelid::regclass FROM pg_constraint f
         WHERE f.contype = 'f' AND f.conparentid = 0
           AND f.confrelid = to_regclass(format('perdure.%%I', %(table)s::text))) r

-- name: keys_to_drop
SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', f.conrelid::regclass, f.conname) AS statement
  FROM pg_constraint f
 WHERE f.contype = 'f' AND f.conparentid = 0
   AND f.confrelid = to_regclass(format('perdure.%%I', %(table)s::text))
 ORDER BY f.conrelid::regclass::text, f.conname

-- name: renamings
SELECT format('ALTER INDEX perdure.%%I RENAME TO %%I', c.relname, left(c.relname, 56) || '_before')
           AS statement
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = to_regclass(format('perdure.%%I', %(table)s::text))
 ORDER BY c.relname

-- name: table_statements
SELECT unnest(ARRAY[
           format('ALTER TABLE perdure.%%1$I RENAME TO %%2$I', t, t || '_before'),
           format('CREATE TABLE perdure.%%1$I (LIKE perdure.%%2$I INCLUDING ALL EXCLUDING INDEXES '
                  'EXCLUDING CONSTRAINTS) PARTITION BY RANGE (run_id)', t, t || '_before'),
           format('COMMENT ON TABLE perdure.%%I IS %%L', t,
                  obj_description(to_regclass(format('perdure.%%I', t)), 'pg_class')),
           format('COMMENT ON TABLE perdure.%%I IS %%L', t || '_before',
                  format('Rows of %%s of runs begun before its partitions by month were.', t))
       ]) AS statement
  FROM (SELECT %(table)s::text AS t) named

-- name: constraints
SELECT format('ALTER TABLE perdure.%%I ADD CONSTRAINT %%I %%s', %(table)s::text, k.conname,
              pg_get_constraintdef(k.oid)) AS statement
  FROM pg_constraint k
 WHERE k.conrelid = to_regclass(format('perdure.%%I', %(table)s::text))
   AND k.contype IN ('c', 'p', 'u', 'f') AND k.conparentid = 0 AND k.conname <> %(helper)s
 ORDER BY k.contype = 'f', k.conname

-- name: indexes
SELECT pg_get_indexdef(i.indexrelid) AS statement
  FROM pg_index i
 WHERE i.indrelid = to_regclass(format('perdure.%%I', %(table)s::text))
   AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid
                      AND k.conrelid = i.indrelid)
 ORDER BY 1

-- name: attachments
SELECT unnest(ARRAY[
           format('ALTER TABLE perdure.%%I ATTACH PARTITION perdure.%%I FOR VALUES FROM (MINVALUE) TO (%%L)',
                  t, t || '_before', %(bound)s::text),
           format('ALTER TABLE perdure.%%I DROP CONSTRAINT %%I', t || '_before', %(helper)s::text),
           format('CREATE TABLE perdure.%%I PARTITION OF perdure.%%I DEFAULT', t || '_default', t),
           format('COMMENT ON TABLE perdure.%%I IS %%L', t || '_default',
                  format('Rows of %%s of runs begun in a month without a partition: a safety net.', t)),
           'SELECT perdure.make_partitions()'
       ]) AS statement
  FROM (SELECT %(table)s::text AS t) named

-- name: keys_to_add
SELECT format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', f.conrelid::regclass, f.conname,
              pg_get_constraintdef(f.oid)) AS statement
  FROM pg_constraint f
 WHERE f.contype = 'f' AND f.conparentid = 0
   AND f.confrelid = to_regclass(format('perdure.%%I', %(table)s::text))
 ORDER BY f.conrelid::regclass::text, f.conname

-- Functions over its rows are of the type of the table that is renamed: they are made again for the
-- new one, before the views that use them.
-- name: functions
SELECT unnest(ARRAY[pg_get_functiondef(f.oid),
           format('COMMENT ON FUNCTION %%s IS %%L', f.oid::regprocedure,
                  obj_description(f.oid, 'pg_proc'))]) AS statement
  FROM (SELECT DISTINCT p.oid
          FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
          JOIN pg_class c ON c.reltype = d.refobjid
         WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_type'::regclass
           AND c.oid = to_regclass(format('perdure.%%I', %(table)s::text))) f

-- name: views
SELECT format('CREATE OR REPLACE VIEW %%s%%s AS %%s', v.oid::regclass,
              ' WITH (' || array_to_string(v.reloptions, ', ') || ')', pg_get_viewdef(v.oid)) AS statement
  FROM (SELECT DISTINCT v.oid, v.reloptions
          FROM pg_depend d JOIN pg_rewrite w ON w.oid = d.objid
          JOIN pg_class v ON v.oid = w.ev_class
         WHERE d.classid = 'pg_rewrite'::regclass AND v.relkind = 'v'
           AND (d.refobjid = to_regclass(format('perdure.%%I', %(table)s::text))
                OR d.refclassid = 'pg_proc'::regclass AND d.refobjid IN (
                   SELECT f.objid FROM pg_depend f JOIN pg_class c ON c.reltype = f.refobjid
                    WHERE f.classid = 'pg_proc'::regclass AND f.refclassid = 'pg_type'::regclass
                      AND c.oid = to_regclass(format('perdure.%%I', %(table)s::text))))) v
 ORDER BY v.oid

-- name: old_functions
SELECT format('DROP FUNCTION perdure.%%I(%%s)', p.proname,
              (SELECT string_agg(CASE WHEN a.type = c.reltype THEN format('perdure.%%I', c.relname || '_before')
                                      ELSE format_type(a.type, NULL) END, ', ' ORDER BY a.n)
                 FROM unnest(p.proargtypes) WITH ORDINALITY a(type, n))) AS statement
  FROM pg_proc p
  JOIN pg_class c ON c.oid = to_regclass(format('perdure.%%I', %(table)s::text))
 WHERE c.reltype = ANY (p.proargtypes)

-- name: grants
SELECT format('GRANT %%s ON perdure.%%I TO %%s', a.privilege_type, c.relname,
              CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
           AS statement
  FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
 WHERE c.oid = to_regclass(format('perdure.%%I', %(table)s::text)) AND a.grantee <> c.relowner
 ORDER BY 1

-- Before the swap, while everybody goes on: what the new partition has to be looked through for.
-- name: preparations
SELECT unnest(ARRAY[
           format('ALTER TABLE perdure.%%I DROP CONSTRAINT IF EXISTS %%I', %(table)s::text, %(helper)s::text),
           format('ALTER TABLE perdure.%%I ADD CONSTRAINT %%I CHECK (run_id < %%L) NOT VALID',
                  %(table)s::text, %(helper)s::text, %(bound)s::text),
           format('ALTER TABLE perdure.%%I VALIDATE CONSTRAINT %%I', %(table)s::text, %(helper)s::text)
       ]) AS statement
