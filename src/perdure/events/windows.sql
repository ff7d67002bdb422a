-- Where the log of all runs is now; whether what somebody comes with can have been read here.
-- name: now
SELECT pg_current_snapshot()::text AS now,
       coalesce(%(above)s::text::xid8 <= pg_snapshot_xmax(pg_current_snapshot()), true) AS known

-- What `seen` does not show and `until` does (null: what can be seen now), behind a place. One row
-- at least, with a null `seq` where there is nothing. What `seen` does not show are the
-- transactions from `above` on and those that were `under_way`: both are ranges of the index.
-- name: window
SELECT n.until, x.*
  FROM (SELECT coalesce(%(until)s::pg_snapshot, pg_current_snapshot()) AS snapshot,
               coalesce(%(until)s::pg_snapshot, pg_current_snapshot())::text AS until) n
  LEFT JOIN LATERAL (
       SELECT t.run_id, t.seq, t.kind::text, (/*data*/)::text AS data, t.created_at,
              r.agent, r.user_id, r.session_id
         FROM (SELECT e.* FROM perdure.run_events e
                WHERE e.tenant_id = %(tenant_id)s AND e.kind <> 'model.delta'
                  AND e.written_by >= %(above)s::text::xid8
                  AND e.written_by < pg_snapshot_xmax(n.snapshot)
                UNION ALL
               SELECT e.* FROM perdure.run_events e
                WHERE e.tenant_id = %(tenant_id)s AND e.kind <> 'model.delta'
                  AND e.written_by = ANY (%(under_way)s::text[]::xid8[])) t
         JOIN perdure.runs r ON r.id = t.run_id AND r.deleted_at IS NULL
        WHERE pg_visible_in_snapshot(t.written_by, n.snapshot)
          AND (%(created_at)s::timestamptz IS NULL
               OR (t.created_at, t.run_id, t.seq)
                  > (%(created_at)s::timestamptz, %(run_id)s::uuid, %(number)s::int))
          AND (%(kinds)s::text[] IS NULL OR t.kind = ANY (%(kinds)s::text[]::perdure.event_kind[]))
          AND (%(agent)s::text IS NULL OR r.agent = %(agent)s)
          AND (%(user_id)s::text IS NULL OR r.user_id = %(user_id)s)
          AND (%(session_id)s::uuid IS NULL OR r.session_id = %(session_id)s)
        ORDER BY t.created_at, t.run_id, t.seq
        LIMIT %(fetch)s) x ON true
 ORDER BY x.created_at, x.run_id, x.seq
