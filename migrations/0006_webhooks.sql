-- Reaching people: webhooks, what is delivered to them, and links by which somebody decides.
--
-- A delivery's row is written in the transaction of the change it tells of, by triggers whose WHEN
-- conditions keep every other change of a run from paying for them. Workers send what is due.

-- RFC 9562: milliseconds, then random bits. Those of one transaction have no order among each other.
CREATE FUNCTION perdure.uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
               PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
               FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;

CREATE TABLE perdure.webhooks (
    id               uuid        PRIMARY KEY,
    tenant_id        uuid        NOT NULL REFERENCES perdure.tenants ON DELETE CASCADE,
    url              text        NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
    events           text[]      NOT NULL CHECK (cardinality(events) > 0 AND events <@ ARRAY['*',
                         'interruption.created', 'interruption.decided', 'interruption.reminder',
                         'interruption.escalated', 'run.completed', 'run.failed', 'run.cancelled']),
    description      text        NOT NULL DEFAULT '',
    link_subject     text        CHECK (link_subject <> ''),
    link_groups      text[]      NOT NULL DEFAULT '{}',
    secret           text        NOT NULL,
    old_secret       text,
    old_secret_until timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    disabled_at      timestamptz,
    disabled_reason  text,
    CONSTRAINT disabled_webhooks_say_why CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL)),
    CONSTRAINT old_secrets_end CHECK ((old_secret IS NULL) = (old_secret_until IS NULL))
);
CREATE INDEX webhooks_tenant ON perdure.webhooks (tenant_id, id DESC);
CREATE INDEX webhooks_enabled ON perdure.webhooks (tenant_id) WHERE disabled_at IS NULL;
COMMENT ON TABLE perdure.webhooks IS 'Addresses that are told what happened, signed by the Standard Webhooks scheme.';
COMMENT ON COLUMN perdure.webhooks.events IS 'What it is told of; * is everything.';
COMMENT ON COLUMN perdure.webhooks.link_subject IS 'Who decides by the link that comes with a question; null: none comes.';
COMMENT ON COLUMN perdure.webhooks.link_groups IS 'What they belong to: policies may ask for a group.';
COMMENT ON COLUMN perdure.webhooks.secret IS 'What signs: sealed with a key of PERDURE_ENCRYPTION_KEYS, or as it is where there was none.';
COMMENT ON COLUMN perdure.webhooks.old_secret IS 'The one before, which signs as well until old_secret_until.';

CREATE TABLE perdure.webhook_deliveries (
    id               uuid        PRIMARY KEY,
    tenant_id        uuid        NOT NULL REFERENCES perdure.tenants ON DELETE CASCADE,
    webhook_id       uuid        NOT NULL REFERENCES perdure.webhooks ON DELETE CASCADE,
    event            text        NOT NULL CHECK (event IN ('interruption.created', 'interruption.decided',
                         'interruption.reminder', 'interruption.escalated', 'run.completed',
                         'run.failed', 'run.cancelled', 'webhook.test')),
    run_id           uuid        REFERENCES perdure.runs ON DELETE CASCADE,
    interruption_id  uuid,
    status           text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    payload          text,
    attempt          int         NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    tries            int         NOT NULL DEFAULT 0 CHECK (tries >= 0),
    due_at           timestamptz NOT NULL DEFAULT now(),
    queued_at        timestamptz,
    status_code      int,
    error            text,
    response         text,
    latency_ms       int         CHECK (latency_ms >= 0),
    attempts         jsonb       NOT NULL DEFAULT '[]',
    created_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz,
    FOREIGN KEY (run_id, interruption_id) REFERENCES perdure.interruptions (run_id, id) ON DELETE CASCADE,
    CONSTRAINT questions_belong_to_runs CHECK (interruption_id IS NULL OR run_id IS NOT NULL),
    CONSTRAINT finished_deliveries_have_an_end CHECK ((status = 'pending') = (finished_at IS NULL)),
    CONSTRAINT only_pending_deliveries_are_queued CHECK (status = 'pending' OR queued_at IS NULL)
);
CREATE INDEX webhook_deliveries_webhook ON perdure.webhook_deliveries (webhook_id, id DESC);
CREATE INDEX webhook_deliveries_run ON perdure.webhook_deliveries (run_id, interruption_id);
CREATE INDEX webhook_deliveries_tenant ON perdure.webhook_deliveries (tenant_id);
CREATE INDEX webhook_deliveries_due ON perdure.webhook_deliveries (webhook_id, due_at)
    WHERE status = 'pending' AND queued_at IS NULL;
CREATE INDEX webhook_deliveries_queued ON perdure.webhook_deliveries (webhook_id, queued_at)
    WHERE status = 'pending' AND queued_at IS NOT NULL;
CREATE INDEX webhook_deliveries_open ON perdure.webhook_deliveries (webhook_id, status, id DESC)
    WHERE status IN ('pending', 'failed');
CREATE INDEX webhook_deliveries_finished ON perdure.webhook_deliveries (finished_at)
    WHERE finished_at IS NOT NULL;
COMMENT ON TABLE perdure.webhook_deliveries IS 'One event for one webhook. Each attempt at it is one DBOS workflow, id <id>:<attempt>.';
COMMENT ON COLUMN perdure.webhook_deliveries.payload IS 'What is sent, made at the first attempt: every later one sends the same bytes.';
COMMENT ON COLUMN perdure.webhook_deliveries.attempt IS 'Number of the attempt that is under way or was the last; 0 before the first.';
COMMENT ON COLUMN perdure.webhook_deliveries.tries IS 'Attempts since it was made or last sent again: its place in the schedule.';
COMMENT ON COLUMN perdure.webhook_deliveries.queued_at IS 'Since when an attempt is with the queue or under way; null: it waits for due_at.';
COMMENT ON COLUMN perdure.webhook_deliveries.attempts IS 'What became of each attempt, oldest first: the last 25.';

CREATE TABLE perdure.decision_links (
    id               uuid        PRIMARY KEY,
    tenant_id        uuid        NOT NULL REFERENCES perdure.tenants ON DELETE CASCADE,
    run_id           uuid        NOT NULL,
    interruption_id  uuid        NOT NULL,
    delivery_id      uuid        UNIQUE REFERENCES perdure.webhook_deliveries ON DELETE SET NULL,
    nonce            bytea       NOT NULL CHECK (length(nonce) = 32),
    token_hash       bytea       NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    key_id           text        NOT NULL,
    mac              bytea       NOT NULL CHECK (length(mac) = 32),
    digest           text        NOT NULL CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
    subject          text        NOT NULL CHECK (subject <> ''),
    groups           text[]      NOT NULL DEFAULT '{}',
    decisions        text[]      NOT NULL CHECK (cardinality(decisions) > 0
                         AND decisions <@ ARRAY['approve', 'answer', 'reject']),
    created_by       jsonb,
    created_at       timestamptz NOT NULL DEFAULT now(),
    expires_at       timestamptz NOT NULL,
    used_at          timestamptz,
    FOREIGN KEY (run_id, interruption_id) REFERENCES perdure.interruptions (run_id, id) ON DELETE CASCADE
);
CREATE INDEX decision_links_interruption ON perdure.decision_links (run_id, interruption_id);
CREATE INDEX decision_links_tenant ON perdure.decision_links (tenant_id);
CREATE INDEX decision_links_expiry ON perdure.decision_links (expires_at);
COMMENT ON TABLE perdure.decision_links IS 'Links by which one person decides one question, once.';
COMMENT ON COLUMN perdure.decision_links.nonce IS '256 random bits; a key of PERDURE_SECRET_KEYS makes the token of them, which is kept nowhere.';
COMMENT ON COLUMN perdure.decision_links.token_hash IS 'SHA-256 of the token.';
COMMENT ON COLUMN perdure.decision_links.mac IS 'HMAC by a key of PERDURE_SECRET_KEYS over what the link says: a row that was edited is worth nothing.';

-- Tells the webhooks of a tenant that want to hear of it; how many. For whatever has an event to tell.
CREATE FUNCTION perdure.emit_webhooks(tenant uuid, event text, run uuid, interruption uuid DEFAULT NULL)
RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    told int;
BEGIN
    INSERT INTO perdure.webhook_deliveries (id, tenant_id, webhook_id, event, run_id, interruption_id)
    SELECT perdure.uuid7(), w.tenant_id, w.id, emit_webhooks.event, run, interruption
      FROM perdure.webhooks w
     WHERE w.tenant_id = tenant AND w.disabled_at IS NULL
       AND w.events && ARRAY['*', emit_webhooks.event]
       -- Or one that somebody deletes now would fail the change that is told of.
       FOR KEY SHARE;
    GET DIAGNOSTICS told = ROW_COUNT;
    IF told > 0 THEN
        PERFORM pg_notify('perdure_deliveries_due', '');
    END IF;
    RETURN told;
END
$$;

CREATE FUNCTION perdure.tell_of_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM perdure.emit_webhooks(NEW.tenant_id, 'run.' || NEW.status, NEW.id);
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_of_run AFTER UPDATE OF status ON perdure.runs FOR EACH ROW
    WHEN (NEW.status IN ('completed', 'failed', 'cancelled') AND OLD.status IS DISTINCT FROM NEW.status)
    EXECUTE FUNCTION perdure.tell_of_run();

-- What a policy or a grant closes in the transaction that opens it is nobody's business: at the end
-- of that transaction it is told of what still waits, and a closing only of what was told of.
CREATE FUNCTION perdure.tell_of_interruption() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'pending' AND NOT EXISTS (
        SELECT FROM perdure.interruptions i
         WHERE i.run_id = NEW.run_id AND i.id = NEW.id AND i.status = 'pending') THEN
        RETURN NULL;
    END IF;
    PERFORM pg_notify('perdure_interruptions', NEW.tenant_id::text);
    PERFORM perdure.emit_webhooks(NEW.tenant_id,
        CASE WHEN NEW.status = 'pending' THEN 'interruption.created' ELSE 'interruption.decided' END,
        NEW.run_id, NEW.id);
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER tell_of_interruption AFTER INSERT ON perdure.interruptions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.status = 'pending')
    EXECUTE FUNCTION perdure.tell_of_interruption();
CREATE TRIGGER tell_of_decision AFTER UPDATE OF status ON perdure.interruptions FOR EACH ROW
    WHEN (OLD.status = 'pending' AND NEW.status <> 'pending' AND NEW.requested_at <> NEW.closed_at)
    EXECUTE FUNCTION perdure.tell_of_interruption();

INSERT INTO perdure.schema_migrations (version, name) VALUES (6, 'webhooks');
