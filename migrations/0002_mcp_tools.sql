-- What MCP servers offered a segment, so that an execution that begins it again sees the same.

ALTER TABLE perdure.segments ADD COLUMN mcp_tools jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN perdure.segments.mcp_tools IS 'What MCP servers offered, by agent and server: listed once, for every execution of the segment.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (2, 'mcp_tools');
