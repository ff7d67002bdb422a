-- Policies: which calls people are asked about, and who they are.

ALTER TABLE perdure.api_keys
    ADD COLUMN groups text[] NOT NULL DEFAULT '{}' CHECK (cardinality(groups) <= 100);
COMMENT ON COLUMN perdure.api_keys.groups IS 'What its holder belongs to: policies name groups that may decide.';

ALTER TABLE perdure.tenants
    ADD COLUMN policies_revision bigint NOT NULL DEFAULT 0 CHECK (policies_revision >= 0);
COMMENT ON COLUMN perdure.tenants.policies_revision IS 'Raised with every change of its policies, so that a process knows whether what it remembers still holds.';

CREATE TABLE perdure.policies (
    id          uuid        PRIMARY KEY,
    tenant_id   uuid        NOT NULL REFERENCES perdure.tenants ON DELETE CASCADE,
    position    int         NOT NULL CHECK (position >= 0),
    definition  jsonb       NOT NULL CHECK (
                    jsonb_typeof(definition) = 'object'
                    AND (definition ->> 'name') <> ''
                    AND (definition ->> 'then') IN ('allow', 'ask', 'deny')),
    created_by  jsonb,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at  timestamptz
);
CREATE INDEX policies_tenant ON perdure.policies (tenant_id, id);
CREATE INDEX policies_standing ON perdure.policies (tenant_id, position, id) WHERE deleted_at IS NULL;
COMMENT ON TABLE perdure.policies IS 'Policies made by the API; those of the application file stand behind them.';
COMMENT ON COLUMN perdure.policies.position IS 'Of two that match a call the one of the lower position counts, except that any deny counts first.';
COMMENT ON COLUMN perdure.policies.definition IS 'The policy as it was checked: name, tool, agent, when, then, deciders, …';
COMMENT ON COLUMN perdure.policies.deleted_at IS 'When it was deleted: it is kept, as interruptions and decisions name it.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (7, 'policies');
