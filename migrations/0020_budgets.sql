-- Budgets: how much runs, sessions, users, agents and tenants may spend, in money or tokens.
--
-- A call of a model is let begin when what is spent, what others have reserved and what it may
-- take fit within each budget it counts to. The counters of a budget change in the statements that
-- write the usage they count, and whoever lets a call begin has their rows locked: two runs cannot
-- both take the rest.

CREATE TABLE perdure.budgets (
    id            uuid        PRIMARY KEY,
    tenant_id     uuid        NOT NULL REFERENCES perdure.tenants ON DELETE CASCADE,
    scope         text        NOT NULL CHECK (scope IN ('run', 'session', 'user', 'agent', 'tenant')),
    run_id        uuid        REFERENCES perdure.runs ON DELETE CASCADE,
    session_id    uuid        REFERENCES perdure.sessions ON DELETE CASCADE,
    subject       text        CHECK (length(subject) BETWEEN 1 AND 255),
    period        text        NOT NULL DEFAULT 'total' CHECK (period IN ('total', 'month')),
    name          text        NOT NULL DEFAULT '' CHECK (length(name) <= 255),
    cost_usd      numeric     CHECK (cost_usd >= 0),
    total_tokens  bigint      CHECK (total_tokens >= 0),
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT budgets_limit_something CHECK (num_nonnulls(cost_usd, total_tokens) > 0),
    CONSTRAINT budgets_are_of_their_scope CHECK (
        (scope = 'run') = (run_id IS NOT NULL) AND (scope = 'session') = (session_id IS NOT NULL)
        AND (scope IN ('user', 'agent')) = (subject IS NOT NULL)),
    CONSTRAINT runs_have_one_budget_for_all_time CHECK (scope <> 'run' OR period = 'total')
);
CREATE UNIQUE INDEX budgets_of_runs ON perdure.budgets (run_id) WHERE scope = 'run';
CREATE UNIQUE INDEX budgets_of_sessions ON perdure.budgets (session_id, period) WHERE scope = 'session';
CREATE UNIQUE INDEX budgets_of_subjects ON perdure.budgets (tenant_id, scope, subject, period)
    WHERE scope IN ('user', 'agent');
CREATE UNIQUE INDEX budgets_of_tenants ON perdure.budgets (tenant_id, period) WHERE scope = 'tenant';
CREATE INDEX budgets_shared ON perdure.budgets (tenant_id, id DESC) WHERE scope <> 'run';
COMMENT ON TABLE perdure.budgets IS 'How much may be spent, by whom and in which time.';
COMMENT ON COLUMN perdure.budgets.scope IS 'What it is the budget of: a run, all runs of a session, of a user or of the tenant, or what an agent asks in any run.';
COMMENT ON COLUMN perdure.budgets.subject IS 'The user''s id or the agent''s name.';
COMMENT ON COLUMN perdure.budgets.period IS 'total: for all time; month: anew each calendar month, UTC.';
COMMENT ON COLUMN perdure.budgets.cost_usd IS 'The most it may cost; null: any.';
COMMENT ON COLUMN perdure.budgets.total_tokens IS 'The most tokens, in and out; null: any.';

CREATE TABLE perdure.budget_periods (
    budget_id         uuid        NOT NULL REFERENCES perdure.budgets ON DELETE CASCADE,
    starts_at         timestamptz NOT NULL,
    spent_usd         numeric     NOT NULL DEFAULT 0,
    spent_tokens      bigint      NOT NULL DEFAULT 0,
    unpriced_requests int         NOT NULL DEFAULT 0,
    largest_usd       numeric,
    largest_tokens    bigint,
    cost_usd          numeric     CHECK (cost_usd >= 0),
    total_tokens      bigint      CHECK (total_tokens >= 0),
    allows_unpriced   boolean     NOT NULL DEFAULT false,
    awaited           boolean     NOT NULL DEFAULT false,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (budget_id, starts_at)
) WITH (fillfactor = 50);
COMMENT ON TABLE perdure.budget_periods IS 'What was spent of a budget in a period of it. Who holds the row''s lock may let a call begin.';
COMMENT ON COLUMN perdure.budget_periods.starts_at IS 'When the period began; -infinity where the budget is for all time.';
COMMENT ON COLUMN perdure.budget_periods.spent_usd IS 'What the requests cost that counted to it and whose price is known.';
COMMENT ON COLUMN perdure.budget_periods.spent_tokens IS 'The tokens of the requests that counted to it.';
COMMENT ON COLUMN perdure.budget_periods.unpriced_requests IS 'Requests that counted to it and whose price is not known.';
COMMENT ON COLUMN perdure.budget_periods.largest_usd IS 'What the dearest reply so far cost: what the first call of a run may take.';
COMMENT ON COLUMN perdure.budget_periods.largest_tokens IS 'The tokens of the largest reply so far.';
COMMENT ON COLUMN perdure.budget_periods.cost_usd IS 'The limit a decision raised it to, for this period; null: the budget''s own.';
COMMENT ON COLUMN perdure.budget_periods.total_tokens IS 'The same in tokens.';
COMMENT ON COLUMN perdure.budget_periods.allows_unpriced IS 'Whether a person let models be asked whose price is not known.';
COMMENT ON COLUMN perdure.budget_periods.awaited IS 'Whether a call waits for others'' to end: who settles one says so.';

CREATE TABLE perdure.budget_reservations (
    budget_id    uuid        NOT NULL REFERENCES perdure.budgets ON DELETE CASCADE,
    reply_id     uuid        NOT NULL,
    run_id       uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    cost_usd     numeric     NOT NULL DEFAULT 0,
    total_tokens bigint      NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (reply_id, budget_id)
);
CREATE INDEX budget_reservations_budget ON perdure.budget_reservations (budget_id);
CREATE INDEX budget_reservations_run ON perdure.budget_reservations (run_id);
COMMENT ON TABLE perdure.budget_reservations IS 'What calls under way may take of budgets: gone when the reply is recorded, when the run rests, and when another execution begins.';
COMMENT ON COLUMN perdure.budget_reservations.reply_id IS 'Id of the reply that is waited for.';

CREATE FUNCTION perdure.budget_starts_at(period text) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE period WHEN 'month' THEN date_trunc('month', now(), 'UTC') ELSE '-infinity' END
$$;

-- The budgets that what `agent` asks in a run counts to, with the period it is now.
CREATE FUNCTION perdure.budgets_of(run uuid, tenant uuid, agent text)
RETURNS TABLE (budget_id uuid, starts_at timestamptz) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT b.id, perdure.budget_starts_at(b.period) FROM perdure.budgets b
     WHERE b.scope = 'run' AND b.run_id = run
    UNION ALL
    SELECT b.id, perdure.budget_starts_at(b.period) FROM perdure.budgets b
     WHERE b.scope = 'tenant' AND b.tenant_id = tenant
    UNION ALL
    SELECT b.id, perdure.budget_starts_at(b.period) FROM perdure.budgets b
     WHERE b.scope = 'agent' AND b.tenant_id = tenant AND b.subject = agent
    UNION ALL
    SELECT b.id, perdure.budget_starts_at(b.period) FROM perdure.budgets b
     WHERE b.scope = 'user' AND b.tenant_id = tenant
       AND b.subject = (SELECT r.user_id FROM perdure.runs r WHERE r.id = run)
    UNION ALL
    SELECT b.id, perdure.budget_starts_at(b.period) FROM perdure.budgets b
     WHERE b.scope = 'session'
       AND b.session_id = (SELECT r.session_id FROM perdure.runs r WHERE r.id = run)
$$;

-- Reserves what a call may take of each budget it counts to, or of none. `tokens` and `cost` are
-- what it takes at least, as far as can be told; `cost` is null where the price is not known.
-- `own_*` are what the run's largest call took, null before the first. Answers with a `verdict`:
-- `reserved`; `wait`: others' calls have to end first; `reached` or `unpriced`: a person has to
-- decide, on the budget that comes with it; `fenced`.
CREATE FUNCTION perdure.reserve_budgets(
    run uuid, segment int, at_epoch int, agent text, reply uuid,
    tokens bigint, cost numeric, own_tokens bigint, own_cost numeric)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    tenant uuid;
    one record;
    held record;
    most_usd numeric;
    most_tokens bigint;
    takes_usd numeric;
    takes_tokens bigint;
    shown jsonb;
    waits boolean := false;
    taken jsonb[] := '{}';
BEGIN
    SELECT s.tenant_id INTO tenant FROM perdure.segments s
     WHERE s.run_id = run AND s.seq = segment AND s.epoch = at_epoch AND s.status = 'running'
       FOR SHARE;
    IF NOT FOUND THEN
        RETURN '{"verdict": "fenced"}';
    END IF;
    INSERT INTO perdure.budget_periods (budget_id, starts_at)
    SELECT o.budget_id, o.starts_at FROM perdure.budgets_of(run, tenant, agent) o ORDER BY 1, 2
        ON CONFLICT DO NOTHING;
    FOR one IN
        SELECT b.*, p.starts_at, p.spent_usd, p.spent_tokens, p.largest_usd, p.largest_tokens,
               p.allows_unpriced, p.cost_usd AS raised_usd, p.total_tokens AS raised_tokens
          FROM perdure.budgets_of(run, tenant, agent) o
          JOIN perdure.budget_periods p USING (budget_id, starts_at)
          JOIN perdure.budgets b ON b.id = o.budget_id
         ORDER BY p.budget_id, p.starts_at
           FOR UPDATE OF p
    LOOP
        SELECT count(*) AS calls, coalesce(sum(x.cost_usd), 0) AS usd,
               coalesce(sum(x.total_tokens), 0) AS tokens
          INTO held FROM perdure.budget_reservations x
         WHERE x.budget_id = one.id AND x.reply_id <> reply;
        most_usd := coalesce(one.raised_usd, one.cost_usd);
        most_tokens := coalesce(one.raised_tokens, one.total_tokens);
        takes_usd := greatest(cost, coalesce(own_cost, one.largest_usd, 0));
        takes_tokens := greatest(tokens, coalesce(own_tokens, one.largest_tokens, 0));
        shown := to_jsonb(one) || jsonb_build_object(
            'cost_usd', most_usd::text, 'total_tokens', most_tokens,
            'spent_usd', one.spent_usd::text);
        IF cost IS NULL THEN
            takes_usd := 0;
            IF most_usd IS NOT NULL AND NOT one.allows_unpriced THEN
                RETURN jsonb_build_object('verdict', 'unpriced', 'budget', shown);
            END IF;
        END IF;
        IF one.spent_usd >= most_usd OR one.spent_usd + takes_usd > most_usd
           OR one.spent_tokens >= most_tokens OR one.spent_tokens + takes_tokens > most_tokens THEN
            RETURN jsonb_build_object(
                'verdict', 'reached', 'budget', shown,
                'takes_usd', takes_usd::text, 'takes_tokens', takes_tokens);
        END IF;
        -- Before the first reply nobody can tell what one takes: one call goes ahead.
        IF one.spent_usd + held.usd + takes_usd > most_usd
           OR one.spent_tokens + held.tokens + takes_tokens > most_tokens
           OR (held.calls > 0 AND one.largest_tokens IS NULL AND own_tokens IS NULL) THEN
            UPDATE perdure.budget_periods p SET awaited = true
             WHERE p.budget_id = one.id AND p.starts_at = one.starts_at AND NOT p.awaited;
            waits := true;
        END IF;
        taken := taken || jsonb_build_object(
            'budget_id', one.id, 'usd', takes_usd, 'tokens', takes_tokens);
    END LOOP;
    IF waits THEN
        RETURN '{"verdict": "wait"}';
    END IF;
    INSERT INTO perdure.budget_reservations (budget_id, reply_id, run_id, cost_usd, total_tokens)
    SELECT (t ->> 'budget_id')::uuid, reply, run, (t ->> 'usd')::numeric, (t ->> 'tokens')::bigint
      FROM unnest(taken) t
        ON CONFLICT (reply_id, budget_id) DO NOTHING;
    RETURN jsonb_build_object('verdict', 'reserved', 'budgets', cardinality(taken));
END
$$;

-- Counts anew what was spent of a budget in the period it is now, from the usage there is.
CREATE FUNCTION perdure.recount_budget(budget uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    one perdure.budgets;
    since timestamptz;
BEGIN
    SELECT b.* INTO one FROM perdure.budgets b WHERE b.id = budget;
    since := perdure.budget_starts_at(one.period);
    INSERT INTO perdure.budget_periods (budget_id, starts_at) VALUES (budget, since)
        ON CONFLICT DO NOTHING;
    PERFORM FROM perdure.budget_periods p
      WHERE p.budget_id = budget AND p.starts_at = since FOR UPDATE;
    UPDATE perdure.budget_periods p
       SET (spent_usd, spent_tokens, unpriced_requests, largest_usd, largest_tokens) = (
           SELECT coalesce(sum(u.cost_usd), 0), coalesce(sum(u.total_tokens), 0),
                  coalesce(sum(u.requests) FILTER (WHERE u.cost_usd IS NULL), 0),
                  max(u.cost_usd), max(u.total_tokens)
             FROM perdure.request_usage_entries u
             JOIN perdure.runs r ON r.id = u.run_id
            WHERE u.tenant_id = one.tenant_id AND u.created_at >= since
              AND CASE one.scope
                  WHEN 'tenant' THEN true
                  WHEN 'agent' THEN u.agent = one.subject
                  WHEN 'user' THEN r.user_id = one.subject
                  WHEN 'session' THEN r.session_id = one.session_id
                  ELSE u.run_id = one.run_id END), updated_at = now()
     WHERE p.budget_id = budget AND p.starts_at = since;
END
$$;

ALTER TABLE perdure.interruptions ADD COLUMN budget jsonb;
COMMENT ON COLUMN perdure.interruptions.budget IS 'The budget it is about, as it stood when the run stopped at it.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (20, 'budgets');
