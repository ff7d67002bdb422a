-- Writes what models streamed, of however many runs, and never waits: a head that somebody holds is
-- passed over, its run's part comes with the next batch. The head says whose stream is taken, so
-- nothing of an execution that was taken over gets in, and which batch was written last, so one that
-- is sent again after a lost answer is written once.
-- name: write
WITH of AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(runs)s::jsonb) AS o(
           run_id uuid, tenant_id uuid, segment int, epoch int, n int)
), free AS MATERIALIZED (
    SELECT h.run_id, of.tenant_id, of.n
      FROM of JOIN perdure.run_event_heads h USING (run_id)
     WHERE h.segment = of.segment AND h.epoch = of.epoch
       AND h.batch IS DISTINCT FROM %(batch)s::bigint
       FOR UPDATE OF h SKIP LOCKED
), head AS (
    UPDATE perdure.run_event_heads h
       SET seq = h.seq + free.n, batch = %(batch)s,
           thin_at = coalesce(h.thin_at, now() + interval '1 hour')
      FROM free
     WHERE h.run_id = free.run_id
    RETURNING h.run_id, free.tenant_id, h.seq - free.n AS seq, clock_timestamp() AS at
), told AS (
    INSERT INTO perdure.run_events (run_id, seq, tenant_id, kind, data, created_at)
    SELECT run_id, head.seq + t.i, head.tenant_id, t.kind, t.data, head.at
      FROM jsonb_to_recordset(%(events)s::jsonb) AS t(
           run_id uuid, i int, kind perdure.event_kind, data jsonb)
      JOIN head USING (run_id)
)
SELECT of.run_id::text AS run_id,
       of.run_id IN (SELECT run_id FROM head) OR h.batch = %(batch)s AS written,
       h.segment = of.segment AND h.epoch = of.epoch AS current
  FROM of LEFT JOIN perdure.run_event_heads h USING (run_id)

-- name: announce
SELECT pg_notify('perdure_events', %s)
