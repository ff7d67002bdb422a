-- Who is alive, who keeps dying, and what was repaired.

ALTER TABLE perdure.executors
    ADD COLUMN renewed_at  timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN lease_until timestamptz,
    ADD COLUMN lost_at     timestamptz,
    ADD COLUMN lost_to     text;
CREATE INDEX executors_living ON perdure.executors (id) WHERE stopped_at IS NULL AND lost_at IS NULL;
COMMENT ON COLUMN perdure.executors.lease_until IS 'Until when its word is taken that it lives, on this clock; it renews it all the time. Null: by its lock alone.';
COMMENT ON COLUMN perdure.executors.lost_at IS 'When another executor found it dead and took its segments: it will never be let in again under this id.';

ALTER TABLE perdure.segments
    ADD COLUMN recorded     bigint NOT NULL DEFAULT 0 CHECK (recorded >= 0),
    ADD COLUMN stalled      int    NOT NULL DEFAULT 0 CHECK (stalled >= 0),
    ADD COLUMN alone        boolean NOT NULL DEFAULT false,
    ADD COLUMN alone_deaths int    NOT NULL DEFAULT 0 CHECK (alone_deaths >= 0);
COMMENT ON COLUMN perdure.segments.executor_id IS 'Who began it last; null when that one has let go of it in good order.';
COMMENT ON COLUMN perdure.segments.alone IS 'Whether the last execution has a process to itself: its death is counted by who started that process.';
COMMENT ON COLUMN perdure.segments.recorded IS 'How much the run had recorded when an execution last began after a death.';
COMMENT ON COLUMN perdure.segments.stalled IS 'How many executions in a row died with their process without recording anything.';
COMMENT ON COLUMN perdure.segments.alone_deaths IS 'How many processes died in a row that ran this segment alone and recorded nothing.';

-- A repair outlives the run it was made for: no foreign key.
CREATE TABLE perdure.repairs (
    id           uuid        PRIMARY KEY,
    kind         text        NOT NULL CHECK (kind IN ('taken_over', 'unheld_claim', 'ended_workflow',
                     'missing_workflow', 'misplaced_workflow', 'missing_segment')),
    run_id       uuid        NOT NULL,
    segment      int         NOT NULL,
    executor_id  text,
    repaired_by  text        NOT NULL,
    repaired_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX repairs_kind ON perdure.repairs (kind, repaired_at);
CREATE INDEX repairs_run ON perdure.repairs (run_id);
COMMENT ON TABLE perdure.repairs IS 'What nobody ran and was set going again: one row each time.';
COMMENT ON COLUMN perdure.repairs.executor_id IS 'Whom it was taken from, where somebody had it.';

CREATE TABLE perdure.repairs_purged (
    kind     text    PRIMARY KEY,
    repairs  bigint  NOT NULL CHECK (repairs > 0)
);
COMMENT ON TABLE perdure.repairs_purged IS 'How many repairs of each kind are not kept any more: a count of all there ever were must not fall.';

-- One row a look: whoever holds its lock looks, and nobody before it is due again.
CREATE TABLE perdure.sweeps (
    name     text        PRIMARY KEY CHECK (name IN ('open_segments', 'parked_runs')),
    due_at   timestamptz NOT NULL DEFAULT now(),
    reached  uuid
);
INSERT INTO perdure.sweeps (name) VALUES ('open_segments'), ('parked_runs');
COMMENT ON TABLE perdure.sweeps IS 'When all workers together look next for what nobody runs, so that many of them look no more often than one.';
COMMENT ON COLUMN perdure.sweeps.reached IS 'The last run looked at, where a look was too large for one go.';

-- What doctor and /metrics count: few rows each, whatever else there is.
CREATE INDEX runs_quarantined ON perdure.runs (finished_at) WHERE error_type = 'quarantined';
CREATE INDEX interruptions_uncertain ON perdure.interruptions (requested_at)
    WHERE status = 'pending' AND type = 'uncertain_effect';

-- What became known of a call's effect by another way than its outcome.
CREATE TABLE perdure.tool_call_evidence (
    id            uuid        NOT NULL,
    run_id        uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    tenant_id     uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    tool_call_id  uuid        NOT NULL,
    kind          text        NOT NULL CHECK (kind IN ('late_outcome', 'probe')),
    epoch         int         NOT NULL CHECK (epoch >= 0),
    status        text        NOT NULL CHECK (status IN ('succeeded', 'failed', 'done', 'not_done', 'unknown')),
    output        jsonb,
    error         jsonb,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, id),
    FOREIGN KEY (run_id, tool_call_id) REFERENCES perdure.tool_calls (run_id, id) ON DELETE CASCADE
);
CREATE INDEX tool_call_evidence_call ON perdure.tool_call_evidence (run_id, tool_call_id);
COMMENT ON TABLE perdure.tool_call_evidence IS 'An outcome reported by an execution that had been taken over, or what a tool''s probe said: kept for people, changing nothing by itself.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (3, 'executors');
