-- Growth: tables in partitions by month, and what is needed to keep runs for so long and no longer.

-- Finished runs by age, a status at a time: what retention looks for.
CREATE INDEX runs_finished ON perdure.runs (status, finished_at, id) WHERE finished_at IS NOT NULL;

CREATE FUNCTION perdure.first_id_at(moment timestamptz) RETURNS uuid
LANGUAGE sql STABLE AS $$
    SELECT (lpad(to_hex(trunc(extract(epoch FROM moment) * 1000)::bigint), 12, '0')
            || '70008000000000000000')::uuid
$$;
COMMENT ON FUNCTION perdure.first_id_at IS 'The smallest UUIDv7 of a millisecond: the bound of a partition.';

-- The partitions of a table with their bounds; null where one has none, and no row for the default.
CREATE FUNCTION perdure.partitions_of(parted text)
RETURNS TABLE (name text, lower_id uuid, upper_id uuid)
LANGUAGE sql STABLE AS $$
    SELECT c.relname::text, substring(b.bound FROM 'FROM \(''([0-9a-f-]{36})''\)')::uuid,
           substring(b.bound FROM 'TO \(''([0-9a-f-]{36})''\)')::uuid
      FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) b
     WHERE i.inhparent = to_regclass(format('perdure.%I', parted)) AND b.bound <> 'DEFAULT'
$$;
COMMENT ON FUNCTION perdure.partitions_of IS 'The partitions of a table of this schema, without the default one: from which id on, and up to which.';

-- Makes the partitions of this month and the next ones where they are missing; returns their names.
-- As the owner, since whoever serves may not make tables. What stands in the default partition of
-- such a month is moved, unless other tables refer to it: then it stays, and no partition is made.
-- It waits for nobody longer than two seconds, and raises then: the next try will do.
CREATE FUNCTION perdure.make_partitions(ahead int DEFAULT 2) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' SET timezone = 'UTC' AS $$
DECLARE
    parted   record;
    month    timestamptz;
    from_id  uuid;
    to_id    uuid;
    part     text;
    strays   boolean;
BEGIN
    FOR parted IN
        SELECT c.oid, c.relname, d.relname AS fallback,
               EXISTS (SELECT FROM pg_constraint f
                        WHERE f.contype = 'f' AND f.confrelid = c.oid) AS referred_to
          FROM pg_partitioned_table p
          JOIN pg_class c ON c.oid = p.partrelid
          LEFT JOIN pg_class d ON d.oid = p.partdefid
         WHERE c.relnamespace = 'perdure'::regnamespace AND p.partstrat = 'r' AND NOT c.relispartition
         ORDER BY c.relname
    LOOP
        FOR i IN 0 .. least(greatest(ahead, 0), 24) LOOP
            month := date_trunc('month', now()) + make_interval(months => i);
            from_id := perdure.first_id_at(month);
            to_id := perdure.first_id_at(month + interval '1 month');
            part := parted.relname || to_char(month, '_YYYY_MM');
            CONTINUE WHEN EXISTS (
                SELECT FROM perdure.partitions_of(parted.relname) p
                 WHERE (p.lower_id IS NULL OR p.lower_id < to_id)
                   AND (p.upper_id IS NULL OR p.upper_id > from_id));
            -- Of two that make it at once one waits here, and finds it made.
            EXECUTE format('LOCK TABLE ONLY perdure.%I IN SHARE UPDATE EXCLUSIVE MODE', parted.relname);
            CONTINUE WHEN to_regclass(format('perdure.%I', part)) IS NOT NULL;
            strays := false;
            IF parted.fallback IS NOT NULL THEN
                EXECUTE format('LOCK TABLE perdure.%I IN ACCESS EXCLUSIVE MODE', parted.fallback);
                EXECUTE format('SELECT EXISTS (SELECT FROM perdure.%I WHERE run_id >= $1 AND run_id < $2)',
                               parted.fallback) INTO strays USING from_id, to_id;
            END IF;
            CONTINUE WHEN strays AND parted.referred_to;
            EXECUTE format('CREATE TABLE perdure.%I (LIKE perdure.%I INCLUDING ALL)', part, parted.relname);
            EXECUTE format('COMMENT ON TABLE perdure.%I IS %L', part,
                           format('Rows of %s of runs begun in %s (UTC).', parted.relname,
                                  to_char(month, 'YYYY-MM')));
            IF strays THEN
                EXECUTE format('WITH gone AS (DELETE FROM perdure.%I WHERE run_id >= $1 AND run_id < $2
                                              RETURNING *)
                                INSERT INTO perdure.%I SELECT * FROM gone', parted.fallback, part)
                  USING from_id, to_id;
            END IF;
            EXECUTE format('ALTER TABLE perdure.%I ATTACH PARTITION perdure.%I FOR VALUES FROM (%L) TO (%L)',
                           parted.relname, part, from_id, to_id);
            RETURN NEXT part;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION perdure.make_partitions IS 'Makes the partitions of this month and so many next ones, of every partitioned table here; returns those it made.';

-- Drops the months of events in which every run has ended so long ago; with null, those of which no
-- run is left. Returns what it dropped, or with `dry` would drop, and its size.
CREATE FUNCTION perdure.drop_events(keep interval, dry boolean DEFAULT false)
RETURNS TABLE (partition text, bytes bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    part record;
BEGIN
    FOR part IN
        SELECT p.name, coalesce(p.lower_id, '00000000-0000-0000-0000-000000000000') AS lower_id, p.upper_id
          FROM perdure.partitions_of('run_events') p
         WHERE p.upper_id <= perdure.first_id_at(now() - greatest(keep, interval '0'))
         ORDER BY p.upper_id
    LOOP
        CONTINUE WHEN EXISTS (
            SELECT FROM perdure.runs r
             WHERE r.id >= part.lower_id AND r.id < part.upper_id
               AND (keep IS NULL OR r.finished_at IS NULL OR r.finished_at >= now() - keep));
        partition := part.name;
        bytes := pg_total_relation_size(format('perdure.%I', part.name)::regclass);
        IF NOT dry THEN
            EXECUTE format('DROP TABLE perdure.%I', part.name);
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION perdure.drop_events IS 'Drops the months of run_events whose runs have all ended so long ago, or are all deleted; returns them.';

REVOKE ALL ON FUNCTION perdure.make_partitions, perdure.drop_events FROM PUBLIC;

-- What was written before there were months becomes a partition of its own, up to the next month, so
-- that the default one is empty and no partition has to be looked for in it. Stray rows stay there.
DO $$
DECLARE
    next_month uuid := perdure.first_id_at(
        (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC');
BEGIN
    IF EXISTS (SELECT FROM perdure.run_events_default) THEN
        ALTER TABLE perdure.run_events DETACH PARTITION perdure.run_events_default;
        ALTER TABLE perdure.run_events_default RENAME TO run_events_before;
        CREATE TABLE perdure.run_events_default PARTITION OF perdure.run_events DEFAULT;
        WITH stray AS (
            DELETE FROM perdure.run_events_before WHERE run_id >= next_month RETURNING *
        )
        INSERT INTO perdure.run_events_default SELECT * FROM stray;
        EXECUTE format('ALTER TABLE perdure.run_events ATTACH PARTITION perdure.run_events_before
                        FOR VALUES FROM (MINVALUE) TO (%L)', next_month);
        COMMENT ON TABLE perdure.run_events_before IS 'Rows of run_events of runs begun before its partitions by month were.';
    END IF;
    COMMENT ON TABLE perdure.run_events_default IS 'Rows of run_events of runs begun in a month without a partition: a safety net, empty otherwise.';
    PERFORM perdure.make_partitions();
END
$$;

INSERT INTO perdure.schema_migrations (version, name) VALUES (27, 'growth');
