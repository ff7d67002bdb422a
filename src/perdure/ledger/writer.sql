-- One statement for all that is recorded at a moment, of however many runs. Each entry counts
-- only if its segment is still this execution's: the row is locked FOR SHARE and its epoch
-- compared here, so that a takeover waits for us or we see it, and never in between. Each brings
-- the events that tell of it, which are written if it changed anything: one sent again tells nothing
-- twice. The heads of their runs are the last that is locked, and no two writers lock several of the
-- same.
-- name: write
WITH entry AS MATERIALIZED (
    SELECT *
      FROM jsonb_to_recordset(%s::jsonb) AS e(
           n int, kind text, run_id uuid, segment int, epoch int, base_seq int, scope text,
           id uuid, agent text, input_hash text, model text, response_id text, request_id text,
           output jsonb, settings jsonb, attempt int, usage jsonb, latency_ms int, calls jsonb,
           call_id text, status text, error jsonb, context jsonb, events jsonb
           /*operations*/)
), fence AS MATERIALIZED (
    SELECT e.n, s.tenant_id
      FROM entry e
      JOIN perdure.segments s
        ON s.run_id = e.run_id AND s.seq = e.segment AND s.epoch = e.epoch AND s.status = 'running'
       FOR SHARE OF s
), reply AS (
    INSERT INTO perdure.model_responses (
           id, run_id, tenant_id, segment, base_seq, scope, agent, input_hash, model, response_id,
           request_id, output, settings, attempt, latency_ms)
    SELECT e.id, e.run_id, f.tenant_id, e.segment, e.base_seq, e.scope, e.agent, e.input_hash,
           e.model, e.response_id, e.request_id, e.output, e.settings, e.attempt, e.latency_ms
      FROM entry e JOIN fence f USING (n)
     WHERE e.kind = 'reply'
     ORDER BY e.n
        ON CONFLICT (run_id, id) DO NOTHING
    RETURNING id
), used AS (
    INSERT INTO perdure.request_usage_entries (
           id, run_id, model_response_id, position, tenant_id, agent, model, requests, input_tokens,
           cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, total_tokens,
           cost_usd, price, price_source, price_date)
    SELECT u.id, e.run_id, e.id, u.position, f.tenant_id, e.agent, e.model, u.requests,
           u.input_tokens, u.cached_input_tokens, u.cache_write_tokens, u.output_tokens,
           u.reasoning_tokens, u.total_tokens, u.cost_usd, u.price, u.price_source,
           CASE WHEN u.cost_usd IS NOT NULL
                THEN coalesce(u.price_date, (now() AT TIME ZONE 'UTC')::date) END
      FROM entry e
      JOIN fence f USING (n)
     CROSS JOIN jsonb_to_recordset(e.usage) AS u(
           id uuid, position int, requests int, input_tokens bigint, cached_input_tokens bigint,
           cache_write_tokens bigint, output_tokens bigint, reasoning_tokens bigint,
           total_tokens bigint, cost_usd numeric, price jsonb, price_source text, price_date date)
     WHERE e.kind = 'reply' AND e.id IN (SELECT id FROM reply)
    RETURNING *
-- Only of what was written now: what is sent again counts once.
), counted AS (
    INSERT INTO perdure.usage_metrics AS m (
           run_id, agent, model, tenant_id, requests, unpriced_requests, input_tokens,
           cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, total_tokens,
           cost_usd)
    SELECT run_id, agent, model, tenant_id, sum(requests),
           coalesce(sum(requests) FILTER (WHERE cost_usd IS NULL), 0), sum(input_tokens),
           sum(cached_input_tokens), sum(cache_write_tokens), sum(output_tokens),
           sum(reasoning_tokens), sum(total_tokens), coalesce(sum(cost_usd), 0)
      FROM used GROUP BY run_id, agent, model, tenant_id
        ON CONFLICT (run_id, agent, model) DO UPDATE SET
           requests = m.requests + excluded.requests,
           unpriced_requests = m.unpriced_requests + excluded.unpriced_requests,
           input_tokens = m.input_tokens + excluded.input_tokens,
           cached_input_tokens = m.cached_input_tokens + excluded.cached_input_tokens,
           cache_write_tokens = m.cache_write_tokens + excluded.cache_write_tokens,
           output_tokens = m.output_tokens + excluded.output_tokens,
           reasoning_tokens = m.reasoning_tokens + excluded.reasoning_tokens,
           total_tokens = m.total_tokens + excluded.total_tokens,
           cost_usd = m.cost_usd + excluded.cost_usd,
           updated_at = now()
-- Budgets in the order of their ids, as everybody locks them; a call that waits is told.
), spent AS (
    INSERT INTO perdure.budget_periods AS p (
           budget_id, starts_at, spent_usd, spent_tokens, unpriced_requests, largest_usd,
           largest_tokens)
    SELECT o.budget_id, o.starts_at, coalesce(sum(u.usd), 0), sum(u.tokens), sum(u.unpriced),
           max(u.usd), max(u.tokens)
      FROM (SELECT run_id, tenant_id, agent, sum(cost_usd) AS usd, sum(total_tokens) AS tokens,
                   coalesce(sum(requests) FILTER (WHERE cost_usd IS NULL), 0) AS unpriced
              FROM used GROUP BY run_id, tenant_id, agent, model_response_id) u
     CROSS JOIN perdure.budgets_of(u.run_id, u.tenant_id, u.agent) o
     GROUP BY o.budget_id, o.starts_at
     ORDER BY o.budget_id, o.starts_at
        ON CONFLICT (budget_id, starts_at) DO UPDATE SET
           spent_usd = p.spent_usd + excluded.spent_usd,
           spent_tokens = p.spent_tokens + excluded.spent_tokens,
           unpriced_requests = p.unpriced_requests + excluded.unpriced_requests,
           largest_usd = greatest(p.largest_usd, excluded.largest_usd),
           largest_tokens = greatest(p.largest_tokens, excluded.largest_tokens),
           awaited = CASE WHEN p.awaited THEN pg_notify('perdure_budgets', '') IS NULL END IS TRUE,
           updated_at = now()
), released AS (
    DELETE FROM perdure.budget_reservations x USING entry e
     WHERE e.kind = 'reply' AND x.reply_id = e.id
), proposed AS (
    INSERT INTO perdure.tool_calls (
           id, run_id, tenant_id, segment, base_seq, scope, call_id, tool, kind, agent, arguments,
           arguments_raw, effect, status, attempt, epoch, idempotency_key, started_at)
    SELECT c.id, e.run_id, f.tenant_id, e.segment, e.base_seq, e.scope, c.call_id, c.tool, c.kind,
           e.agent, c.arguments, c.arguments_raw, c.effect, c.status,
           CASE c.status WHEN 'executing' THEN 1 ELSE 0 END, e.epoch, c.idempotency_key,
           CASE c.status WHEN 'executing' THEN now() END
      FROM entry e
      JOIN fence f USING (n)
     CROSS JOIN jsonb_to_recordset(e.calls) AS c(
           id uuid, call_id text, tool text, kind text, arguments jsonb, arguments_raw text,
           effect text, status text, idempotency_key text)
     WHERE e.kind IN ('reply', 'call')
     ORDER BY e.n
        ON CONFLICT ON CONSTRAINT one_row_per_call DO NOTHING
    RETURNING id
), started AS (
    UPDATE perdure.tool_calls t
       SET status = 'executing', attempt = t.attempt + 1, epoch = e.epoch, segment = e.segment,
           base_seq = e.base_seq, started_at = now(), finished_at = NULL
      FROM entry e JOIN fence f USING (n)
     WHERE e.kind = 'intent'
       AND t.run_id = e.run_id AND t.scope = e.scope AND t.call_id = e.call_id
       AND (t.status IN ('proposed', 'approved')
            OR (t.status = 'executing' AND t.epoch < e.epoch AND t.effect <> 'at_most_once'))
    RETURNING e.n
-- A reply that names a call is the outcome of that call as well. An answer is that of a call which is
-- not made.
), finished AS (
    UPDATE perdure.tool_calls t
       SET status = e.status, output = CASE WHEN e.kind <> 'reply' THEN e.output END,
           error = e.error, context = e.context,
           finished_at = now(),
           started_at = COALESCE(t.started_at, t.requested_at)
      FROM entry e JOIN fence f USING (n)
     WHERE e.kind IN ('outcome', 'reply', 'answer')
       AND t.run_id = e.run_id AND t.scope = e.scope AND t.call_id = e.call_id
       AND ((t.status = 'executing' AND t.epoch = e.epoch)
            OR (e.kind = 'answer' AND t.status IN ('proposed', 'approved'))
            OR (t.effect = 'nested' AND t.status IN ('proposed', 'approved', 'executing')))
    RETURNING e.n
), event AS MATERIALIZED (
    SELECT e.run_id, f.tenant_id, x.kind, x.data,
           row_number() OVER (PARTITION BY e.run_id ORDER BY e.n, x.i) AS i
      FROM entry e
      JOIN fence f USING (n)
     CROSS JOIN ROWS FROM (jsonb_to_recordset(e.events) AS (kind perdure.event_kind, data jsonb))
           WITH ORDINALITY AS x(kind, data, i)
     WHERE CASE e.kind WHEN 'reply' THEN e.id IN (SELECT id FROM reply)
                       WHEN 'call' THEN e.id IN (SELECT id FROM proposed)
                       WHEN 'intent' THEN e.n IN (SELECT n FROM started)
                       ELSE e.n IN (SELECT n FROM finished) END
), head AS (
    UPDATE perdure.run_event_heads h SET seq = h.seq + e.n
      FROM (SELECT run_id, max(i)::int AS n FROM event GROUP BY run_id) e
     WHERE h.run_id = e.run_id
    RETURNING h.run_id, h.seq - e.n AS seq, clock_timestamp() AS at
), told AS (
    INSERT INTO perdure.run_events (run_id, seq, tenant_id, kind, data, created_at)
    SELECT e.run_id, h.seq + e.i, e.tenant_id, e.kind, e.data, h.at
      FROM event e JOIN head h USING (run_id)
)/*operated*/
SELECT f.n,
       e.kind <> 'outcome' OR f.n IN (SELECT n FROM finished) AS settled,
       e.kind <> 'intent'
       OR f.n IN (SELECT n FROM started)
       OR EXISTS (SELECT FROM perdure.tool_calls t
                   WHERE t.run_id = e.run_id AND t.scope = e.scope AND t.call_id = e.call_id
                     AND t.status = 'executing' AND t.epoch = e.epoch) AS accepted,
       e.kind = 'reply' AND EXISTS (
           SELECT FROM perdure.budgets b
            WHERE b.tenant_id = f.tenant_id AND b.scope <> 'run') AS budgeted
  FROM fence f JOIN entry e USING (n)

-- Outcomes that changed nothing, as their call is another execution's by now or was settled
-- otherwise: kept for people. One that was recorded before, whose answer was lost, is none.
-- name: keep_late
INSERT INTO perdure.tool_call_evidence (
       id, run_id, tenant_id, tool_call_id, kind, epoch, status, output, error)
SELECT e.evidence_id, t.run_id, t.tenant_id, t.id, 'late_outcome', e.epoch, e.status, e.output,
       e.error
  FROM jsonb_to_recordset(%s::jsonb) AS e(
       evidence_id uuid, run_id uuid, epoch int, scope text, call_id text, status text,
       output jsonb, error jsonb)
  JOIN perdure.tool_calls t
    ON t.run_id = e.run_id AND t.scope = e.scope AND t.call_id = e.call_id
 WHERE t.effect <> 'nested'
   AND (t.epoch, t.status, t.output, t.error)
       IS DISTINCT FROM (e.epoch, e.status, e.output, e.error)
    ON CONFLICT (run_id, id) DO NOTHING
