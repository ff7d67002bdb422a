-- What goes when a run is deleted: its own table, and all whose foreign keys lead to it by ON DELETE
-- CASCADE. Events have no key and go with their heads. A partition is part of its table. Parents
-- that are named have rows of their runs alone.
-- name: kin
WITH RECURSIVE kin AS (
    SELECT to_regclass('perdure.runs')::oid AS rel
    UNION
    SELECT f.conrelid
      FROM kin JOIN pg_constraint f ON f.confrelid = kin.rel
     WHERE f.contype = 'f' AND f.confdeltype = 'c' AND f.conparentid = 0
), with_events AS (
    SELECT rel FROM kin UNION SELECT to_regclass('perdure.run_events')
)
SELECT c.relname::text AS name,
       EXISTS (SELECT FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attname = 'run_id' AND NOT a.attisdropped) AS of_runs,
       (SELECT array_agg(a.attname::text ORDER BY k.n)
          FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(attnum, n)
          JOIN pg_attribute a ON a.attnum = k.attnum
         WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid) AS keys,
       (SELECT jsonb_agg(jsonb_build_object(
                   'parent', p.relname,
                   'columns', (SELECT jsonb_agg(a.attname ORDER BY k.n)
                                 FROM unnest(f.conkey) WITH ORDINALITY k(attnum, n)
                                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum),
                   'keys', (SELECT jsonb_agg(a.attname ORDER BY k.n)
                              FROM unnest(f.confkey) WITH ORDINALITY k(attnum, n)
                              JOIN pg_attribute a ON a.attrelid = p.oid AND a.attnum = k.attnum)))
          FROM pg_constraint f JOIN pg_class p ON p.oid = f.confrelid
         WHERE f.conrelid = c.oid AND f.contype = 'f' AND f.confdeltype = 'c' AND f.conparentid = 0
           AND f.confrelid IN (SELECT rel FROM kin)) AS links
  FROM with_events JOIN pg_class c ON c.oid = with_events.rel
 ORDER BY c.oid <> to_regclass('perdure.runs'), c.relname

-- Columns of runs that name another run: what is not over there may read this one.
-- name: references
SELECT a.attname::text AS name
  FROM pg_constraint f JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
 WHERE f.contype = 'f' AND f.conrelid = to_regclass('perdure.runs')
   AND f.confrelid = to_regclass('perdure.runs') AND cardinality(f.conkey) = 1
 ORDER BY a.attname

-- {table} and {rows} are put in: a name, and what makes a row one of these runs.
-- name: count
SELECT count(*) AS rows, coalesce(sum(pg_column_size(t.*)), 0)::bigint AS bytes
  FROM perdure.{table} t WHERE {rows}

-- name: lines
SELECT ({row})::text AS row FROM perdure.{table} t WHERE {rows} ORDER BY {keys}

-- A row as it goes to an archive, where nobody puts together what is stored once: as it is, and with
-- states and items whole.
-- name: row
row_to_json(t)

-- name: whole_state
to_jsonb(t) - 'body' - 'parts' - 'next_part'
    || jsonb_build_object('state', perdure.whole_state(t.run_id, t.seq))

-- name: whole_item
to_jsonb(t) - 'output_of'
    || jsonb_build_object('item', perdure.whole_item(t), 'text', perdure.item_text(t))

-- name: needed_by_runs
SELECT {column} AS id FROM perdure.runs WHERE {column} = ANY (%(runs)s) AND finished_at IS NULL
