-- People decide: who may, how many have to, until when, and with which arguments.

ALTER TABLE perdure.runs ADD COLUMN started_by jsonb;
COMMENT ON COLUMN perdure.runs.started_by IS 'Who started it: type, id, subject. They may be kept from deciding on it.';

ALTER TABLE perdure.interruptions
    ADD COLUMN rules       jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN reason      text,
    ADD COLUMN escalated   int   NOT NULL DEFAULT 0 CHECK (escalated >= 0),
    ADD COLUMN reminded    int   NOT NULL DEFAULT 0 CHECK (reminded >= 0),
    ADD COLUMN remind_at   timestamptz,
    ADD COLUMN replaces    uuid;
COMMENT ON COLUMN perdure.interruptions.rules IS 'What the policy that matched asks for: its name, who may decide, what becomes of it when nobody does in time.';
COMMENT ON COLUMN perdure.interruptions.reason IS 'Why it was closed, where no person decided: schema_changed, tool_removed, tampered, run_cancelled.';
COMMENT ON COLUMN perdure.interruptions.replaces IS 'The interruption on the same call that was cancelled as what it had shown no longer stands.';
COMMENT ON COLUMN perdure.interruptions.escalated IS 'How often its time was over and others were asked.';
CREATE INDEX interruptions_expiring ON perdure.interruptions (expires_at)
    WHERE status = 'pending' AND expires_at IS NOT NULL;
CREATE INDEX interruptions_reminding ON perdure.interruptions (remind_at)
    WHERE status = 'pending' AND remind_at IS NOT NULL;

ALTER TABLE perdure.decisions
    ADD COLUMN executes text CHECK (executes ~ '^sha256:[0-9a-f]{64}$'),
    ADD COLUMN source   text;
COMMENT ON COLUMN perdure.decisions.digest IS 'Digest of what was shown to whoever decided.';
COMMENT ON COLUMN perdure.decisions.executes IS 'Digest of what an approval lets run: another than digest where the arguments were edited.';
COMMENT ON COLUMN perdure.decisions.source IS 'Where the decision came from: the way in, and the address.';

ALTER TABLE perdure.tool_calls ADD COLUMN approved_arguments jsonb;
COMMENT ON COLUMN perdure.tool_calls.approved_arguments IS 'What it is executed with, where a person approved it with other arguments than the model wrote.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (4, 'decisions');
