-- One row at least for a run there is: with a null `event` where the page is empty, and always with
-- how its log ends at this moment. Numbers commit in their order, so a page has no hole that is
-- filled later.
-- name: page
SELECT x.event::text AS event, l.seq AS last_seq, l.kind AS last_kind
  FROM perdure.runs r
  LEFT JOIN LATERAL (
       SELECT t.seq, t.kind FROM perdure.run_events t
        WHERE t.run_id = r.id ORDER BY t.seq DESC LIMIT 1) l ON true
  LEFT JOIN LATERAL (
       SELECT t.seq, to_jsonb(t) AS event FROM perdure.run_events t
        WHERE t.run_id = r.id AND t.seq > %(after)s
        ORDER BY t.seq LIMIT %(fetch)s) x ON true
 WHERE r.tenant_id = %(tenant_id)s AND r.id = %(run_id)s AND r.deleted_at IS NULL
 ORDER BY x.seq
