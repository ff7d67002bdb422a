-- What people think of runs and of what was said, and which version of the agents that was.

ALTER TABLE perdure.runs
    ADD COLUMN agent_version  text  CHECK (agent_version <> '');
COMMENT ON COLUMN perdure.runs.agent_version IS 'A hash of its agent''s definition, and of those it can reach, in the build that first began it.';

CREATE TABLE perdure.feedback (
    id             uuid        PRIMARY KEY,
    tenant_id      uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    run_id         uuid        REFERENCES perdure.runs ON DELETE CASCADE,
    session_id     uuid,
    item_id        uuid,
    user_id        text        CHECK (length(user_id) BETWEEN 1 AND 255),
    type           text        NOT NULL DEFAULT 'other' CHECK (type IN
                       ('accuracy', 'relevance', 'completeness', 'agent_behavior', 'other')),
    rating         smallint    CHECK (rating BETWEEN 1 AND 5),
    liked          boolean,
    comment        text        CHECK (length(comment) BETWEEN 1 AND 50000),
    agent          text,
    agent_version  text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (run_id, item_id) REFERENCES perdure.run_items (run_id, id) ON DELETE CASCADE,
    FOREIGN KEY (session_id, item_id)
        REFERENCES perdure.session_items (session_id, id) ON DELETE CASCADE,
    CONSTRAINT feedback_is_on_a_run_or_an_item
        CHECK (num_nonnulls(run_id, session_id) = 1
               AND (session_id IS NULL OR item_id IS NOT NULL)),
    CONSTRAINT feedback_is_a_rating_or_a_like CHECK (num_nonnulls(rating, liked) = 1),
    CONSTRAINT one_feedback_of_a_user
        UNIQUE NULLS NOT DISTINCT (run_id, session_id, item_id, user_id, type, tenant_id)
);
CREATE INDEX feedback_tenant ON perdure.feedback (tenant_id, id DESC);
CREATE INDEX feedback_user ON perdure.feedback (tenant_id, user_id, id DESC)
    WHERE user_id IS NOT NULL;
CREATE INDEX feedback_age ON perdure.feedback (tenant_id, created_at);
CREATE INDEX feedback_session ON perdure.feedback (session_id, item_id)
    WHERE session_id IS NOT NULL;
COMMENT ON TABLE perdure.feedback IS 'What somebody thinks of a run (run_id alone), of an item of a run (with item_id) or of a session''s item. Said again it is replaced.';
COMMENT ON COLUMN perdure.feedback.session_id IS 'The session that has the item; null for runs and their items.';
COMMENT ON COLUMN perdure.feedback.user_id IS 'Who thinks so; null is nobody in particular, once.';
COMMENT ON COLUMN perdure.feedback.liked IS 'Instead of a rating: whether they like it.';
COMMENT ON COLUMN perdure.feedback.comment IS 'At most 10,000 characters; each takes up to five as it is kept.';
COMMENT ON COLUMN perdure.feedback.agent IS 'Who made what it is on: the item''s agent, or the run''s.';
COMMENT ON COLUMN perdure.feedback.agent_version IS 'The agent_version of the run that made it, as it was when the feedback came.';

-- An item of a run is found by its id alone too.
CREATE INDEX run_items_id ON perdure.run_items (id);

INSERT INTO perdure.schema_migrations (version, name) VALUES (14, 'feedback');
