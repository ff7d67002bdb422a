-- What tools said of what they gave, with the items it went into.

ALTER TABLE perdure.run_items
    ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT run_item_metadata_is_an_object CHECK (jsonb_typeof(metadata) = 'object');
CREATE INDEX run_items_annotated ON perdure.run_items (run_id, seq) WHERE metadata <> '{}';
COMMENT ON COLUMN perdure.run_items.metadata IS 'What tools said by annotate(): on their outputs, and on the message that followed.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (16, 'item_metadata');
