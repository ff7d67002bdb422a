-- Conversations: sessions, their items, branches that read their ancestors.

ALTER TABLE perdure.tenants
    ADD COLUMN search_language text NOT NULL DEFAULT 'english';
COMMENT ON COLUMN perdure.tenants.search_language IS 'Text search configuration the words of its items are made with; change it by perdure.set_search_language.';

CREATE TABLE perdure.sessions (
    id                 uuid        PRIMARY KEY,
    tenant_id          uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    key                text        CHECK (length(key) BETWEEN 1 AND 255),
    user_id            text        CHECK (length(user_id) BETWEEN 1 AND 255),
    group_id           text        CHECK (length(group_id) BETWEEN 1 AND 255),
    title              text,
    system_prompt      text,
    tags               jsonb       NOT NULL DEFAULT '[]',
    metadata           jsonb       NOT NULL DEFAULT '{}',
    status             text        NOT NULL DEFAULT 'active'
                           CHECK (status IN ('active', 'archived', 'completed')),
    rating             smallint    CHECK (rating BETWEEN 1 AND 5),
    root_session_id    uuid        NOT NULL REFERENCES perdure.sessions,
    parent_session_id  uuid,
    fork_seq           int         CHECK (fork_seq >= 0),
    fork_version       int         CHECK (fork_version >= 0),
    depth              int         NOT NULL DEFAULT 0 CHECK (depth BETWEEN 0 AND 256),
    parent_depth       int         GENERATED ALWAYS AS (nullif(depth, 0) - 1) STORED,
    version            int         NOT NULL DEFAULT 0 CHECK (version >= 0),
    last_seq           int         NOT NULL DEFAULT 0 CHECK (last_seq >= 0),
    created_by         jsonb       NOT NULL,
    updated_by         jsonb       NOT NULL,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    deleted_at         timestamptz,
    UNIQUE (id, depth),
    FOREIGN KEY (parent_session_id, parent_depth) REFERENCES perdure.sessions (id, depth),
    CONSTRAINT branches_say_where_they_fork
        CHECK (num_nonnulls(parent_session_id, fork_seq, fork_version, parent_depth) IN (0, 4)),
    CONSTRAINT roots_are_their_own
        CHECK ((parent_session_id IS NULL) = (root_session_id = id)),
    CONSTRAINT branches_go_on_after_the_fork CHECK (last_seq >= coalesce(fork_seq, 0)),
    CONSTRAINT tags_are_a_list CHECK (jsonb_typeof(tags) = 'array'),
    CONSTRAINT metadata_is_an_object CHECK (jsonb_typeof(metadata) = 'object')
) WITH (fillfactor = 85);
-- Its row changes with every append: none of the columns that change then is in an index.
CREATE UNIQUE INDEX sessions_one_per_key ON perdure.sessions (tenant_id, user_id, key)
    NULLS NOT DISTINCT WHERE key IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX sessions_tenant ON perdure.sessions (tenant_id, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX sessions_user ON perdure.sessions (tenant_id, user_id, id DESC)
    WHERE user_id IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX sessions_group ON perdure.sessions (tenant_id, group_id, id DESC)
    WHERE group_id IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX sessions_status ON perdure.sessions (tenant_id, status, id DESC)
    WHERE status <> 'active' AND deleted_at IS NULL;
CREATE INDEX sessions_tags ON perdure.sessions USING gin (tags jsonb_path_ops)
    WHERE deleted_at IS NULL;
CREATE INDEX sessions_branches ON perdure.sessions (parent_session_id, id DESC)
    WHERE parent_session_id IS NOT NULL;
CREATE INDEX sessions_root ON perdure.sessions (root_session_id, id);
COMMENT ON TABLE perdure.sessions IS 'A conversation. A branch reads its ancestors'' items up to the fork; nothing is copied.';
COMMENT ON COLUMN perdure.sessions.key IS 'The caller''s own name for it, found or made; one living session per tenant, user and key.';
COMMENT ON COLUMN perdure.sessions.group_id IS 'What groups conversations: a project, a visit.';
COMMENT ON COLUMN perdure.sessions.root_session_id IS 'Where its tree begins: itself, for one that is no branch.';
COMMENT ON COLUMN perdure.sessions.fork_seq IS 'The last number of the parent''s that it reads; its own numbers go on from there.';
COMMENT ON COLUMN perdure.sessions.fork_version IS 'The parent''s version when it forked: what the parent removed later it still reads.';
COMMENT ON COLUMN perdure.sessions.parent_depth IS 'Within the foreign key: a parent is one less deep, so no chain of parents is a ring.';
COMMENT ON COLUMN perdure.sessions.version IS 'Raised by whatever removes items from it.';
COMMENT ON COLUMN perdure.sessions.last_seq IS 'The number of the last item it was given. Appends raise it under the row''s lock; a number is never used twice.';

CREATE TABLE perdure.session_items (
    id               uuid        NOT NULL,
    session_id       uuid        NOT NULL REFERENCES perdure.sessions ON DELETE CASCADE,
    tenant_id        uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    seq              int         NOT NULL CHECK (seq > 0),
    role             text        CHECK (role IN
                         ('user', 'assistant', 'system', 'developer', 'tool')),
    sender           text,
    text             text,
    item             json        NOT NULL,
    agent            text,
    run_id           uuid        REFERENCES perdure.runs ON DELETE SET NULL,
    user_id          text,
    token_count      int         CHECK (token_count >= 0),
    metadata         jsonb       NOT NULL DEFAULT '{}',
    search           tsvector    NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    removed_version  int         CHECK (removed_version > 0),
    PRIMARY KEY (session_id, id),
    CONSTRAINT one_item_after_the_other UNIQUE (session_id, seq),
    CONSTRAINT items_are_objects CHECK (json_typeof(item) = 'object'),
    CONSTRAINT item_metadata_is_an_object CHECK (jsonb_typeof(metadata) = 'object')
);
CREATE INDEX session_items_id ON perdure.session_items (id);
CREATE INDEX session_items_run ON perdure.session_items (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX session_items_removed ON perdure.session_items (session_id, seq)
    WHERE removed_version IS NOT NULL;
CREATE INDEX session_items_search ON perdure.session_items USING gin (search)
    WHERE removed_version IS NULL;
COMMENT ON TABLE perdure.session_items IS 'What was said in a session, item by item; branches read the same rows.';
COMMENT ON COLUMN perdure.session_items.role IS 'Whose it is; null for what says nothing of itself, as an encrypted item.';
COMMENT ON COLUMN perdure.session_items.sender IS 'Who said it, by a name of the caller''s, where the role does not say.';
COMMENT ON COLUMN perdure.session_items.text IS 'What of the item a person would read.';
COMMENT ON COLUMN perdure.session_items.item IS 'As it was given: json, as jsonb sorts members and rewrites numbers.';
COMMENT ON COLUMN perdure.session_items.search IS 'Words of the text''s first 100,000 characters, in the tenant''s search_language.';
COMMENT ON COLUMN perdure.session_items.removed_version IS 'The version of the session that has it no more. The row stays for branches that forked before; without such it is deleted.';

CREATE TABLE perdure.session_holes (
    session_id  uuid        NOT NULL REFERENCES perdure.sessions ON DELETE CASCADE,
    version     int         NOT NULL CHECK (version > 0),
    from_seq    int         NOT NULL CHECK (from_seq > 0),
    to_seq      int         NOT NULL CHECK (to_seq < 2147483647),
    tenant_id   uuid        NOT NULL REFERENCES perdure.tenants ON DELETE RESTRICT,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (session_id, version, from_seq),
    CONSTRAINT holes_are_not_empty CHECK (to_seq >= from_seq)
);
COMMENT ON TABLE perdure.session_holes IS 'What a branch removed of its ancestors'' items, by number: they keep them.';
COMMENT ON COLUMN perdure.session_holes.version IS 'The version of the branch that has them no more; branches of it that forked before read them.';

CREATE FUNCTION perdure.search_vector(language text, words text) RETURNS tsvector
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN to_tsvector(language::regconfig, left(coalesce(words, ''), 100000));
COMMENT ON FUNCTION perdure.search_vector IS 'Words to search for. The rest of a long text is left out: a tsvector holds a megabyte.';

CREATE FUNCTION perdure.set_search_language(tenant uuid, language text) RETURNS bigint
    LANGUAGE plpgsql AS $$
DECLARE
    made bigint;
BEGIN
    PERFORM language::regconfig;
    UPDATE perdure.tenants SET search_language = language WHERE id = tenant;
    UPDATE perdure.session_items SET search = perdure.search_vector(language, text)
    WHERE tenant_id = tenant;
    GET DIAGNOSTICS made = ROW_COUNT;
    RETURN made;
END
$$;
COMMENT ON FUNCTION perdure.set_search_language IS 'Changes the language of a tenant''s search and makes all its items'' words anew; returns of how many.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (11, 'sessions');
