-- One state of a run, and the parts of all up to it.
-- name: read
SELECT s.state::text AS state, s.body, s.schema_version, s.sdk_version, s.current_agent, s.turn,
       ARRAY(SELECT perdure.state_parts(s.run_id, s.seq)) AS parts,
       perdure.state_quotes(s.run_id, s.seq)::text AS quotes
  FROM perdure.run_states s
 WHERE s.run_id = %(run_id)s AND s.seq = %(seq)s

-- name: retire
UPDATE perdure.run_states SET is_active = false WHERE run_id = %(run_id)s AND is_active

-- The run still names the agent it was with before. Parts go as they are (`%b`): quoted as the text of
-- an array they would take longer than all the rest. A state whose parts do not follow those that
-- are there is refused by the table.
-- name: insert
WITH saved AS (
    INSERT INTO perdure.run_states (
           id, run_id, seq, tenant_id, kind, schema_version, sdk_version, current_agent, turn, body,
           parts, next_part, size_bytes)
    SELECT %(id)s, %(run_id)s, %(state_seq)s, r.tenant_id, %(kind)s, %(schema_version)s,
           %(sdk_version)s, %(current_agent)s, %(turn)s, %(body)s, %(parts)b::text[],
           CASE WHEN %(first_part)s = (SELECT coalesce(max(s.next_part), 0)
                                         FROM perdure.run_states s WHERE s.run_id = %(run_id)s)
                THEN %(first_part)s + cardinality(%(parts)b::text[]) END,
           %(size_bytes)s
      FROM perdure.runs r WHERE r.id = %(run_id)s
    RETURNING run_id, id, seq, kind, turn, current_agent, size_bytes
), about AS (
    SELECT s.run_id,
           s.current_agent <> r.current_agent
           -- The first state of a fork is one its parent came to.
           OR (s.kind = 'handoff' AND (s.seq > 1 OR r.forked_seq IS NULL)) AS handed_off,
           jsonb_build_object('from', r.current_agent, 'to', s.current_agent) AS handoff,
           jsonb_build_object('agent', s.current_agent) AS agent,
           jsonb_build_object(
               'checkpoint_id', s.id, 'checkpoint', s.seq, 'kind', s.kind, 'turn', s.turn,
               'agent', s.current_agent, 'size_bytes', s.size_bytes) AS saved
      FROM saved s JOIN perdure.runs r ON r.id = s.run_id
)
SELECT CASE WHEN handed_off THEN perdure.add_events(
           run_id, ARRAY['handoff', 'agent.started', 'checkpoint.saved'],
           ARRAY[handoff, agent, saved])
       ELSE perdure.add_event(run_id, 'checkpoint.saved', saved) END AS events
  FROM about
