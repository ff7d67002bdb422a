-- Goes into `write` when there is any: with the outcomes it finds recorded.
-- name: written_with_outcomes
, operated AS (
    INSERT INTO perdure.operations (id, run_id, tool_call_id, tenant_id, kind, target, previous, new)
    SELECT o.id, e.run_id, t.id, f.tenant_id, o.kind, o.target, o.previous, o.new
      FROM entry e
      JOIN fence f USING (n)
      JOIN perdure.tool_calls t
        ON t.run_id = e.run_id AND t.scope = e.scope AND t.call_id = e.call_id
     CROSS JOIN jsonb_to_recordset(e.operations) AS o(
           id uuid, kind text, target text, previous jsonb, new jsonb)
     WHERE e.kind = 'outcome' AND e.n IN (SELECT n FROM finished)
)
