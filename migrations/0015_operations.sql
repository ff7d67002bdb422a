-- What tools changed, as they say it themselves: part of their calls' outcomes.

CREATE TABLE perdure.operations (
    id            uuid        NOT NULL,
    run_id        uuid        NOT NULL REFERENCES perdure.runs ON DELETE CASCADE,
    tool_call_id  uuid        NOT NULL,
    tenant_id     uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    kind          text        NOT NULL CHECK (length(kind) BETWEEN 1 AND 50),
    target        text        NOT NULL CHECK (length(target) BETWEEN 1 AND 255),
    previous      jsonb,
    new           jsonb,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, id),
    FOREIGN KEY (run_id, tool_call_id) REFERENCES perdure.tool_calls (run_id, id) ON DELETE CASCADE
);
CREATE INDEX operations_tool_call ON perdure.operations (run_id, tool_call_id);
CREATE INDEX operations_tenant ON perdure.operations (tenant_id, id DESC);
CREATE INDEX operations_target ON perdure.operations (tenant_id, target, id DESC);
COMMENT ON TABLE perdure.operations IS 'What a tool call changed, by its own word, written with its outcome: once, and not without it.';
COMMENT ON COLUMN perdure.operations.kind IS 'One of those the engine declares.';
COMMENT ON COLUMN perdure.operations.target IS 'What was changed, by a name of the tool''s: todo/42.';
COMMENT ON COLUMN perdure.operations.previous IS 'How it was; null where it was not there.';
COMMENT ON COLUMN perdure.operations.new IS 'How it is since; null where it is not there any more.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (15, 'operations');
