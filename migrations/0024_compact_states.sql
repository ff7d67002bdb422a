-- A run state is stored as what is new in it: its text is cut into parts, and what it has in common
-- with itself, with the run's earlier states and with the ledger is stored once (runs/parts.py).

ALTER TABLE perdure.run_states
    ALTER COLUMN state DROP NOT NULL,
    ADD COLUMN body text,
    ADD COLUMN parts text[],
    ADD COLUMN next_part int CHECK (next_part >= cardinality(parts)),
    ADD CONSTRAINT a_state_is_whole_or_cut
        CHECK (num_nonnulls(body, parts, next_part) = CASE WHEN state IS NULL THEN 3 ELSE 0 END);
COMMENT ON COLUMN perdure.run_states.state IS 'The whole state of one that was written before states were cut into parts; perdure.whole_state() reads both kinds.';
COMMENT ON COLUMN perdure.run_states.body IS 'The state''s JSON text, with references to parts: U+E000, a colon and a number, or two with a dash for all between, as a JSON string.';
COMMENT ON COLUMN perdure.run_states.parts IS 'The parts that first came in this state; parts are numbered through the states of a run, from 0. One of U+E000, # and an id is the text that tool call returned.';
COMMENT ON COLUMN perdure.run_states.next_part IS 'The number the next state''s first part gets.';
COMMENT ON COLUMN perdure.run_states.size_bytes IS 'The size of the whole state.';

CREATE FUNCTION perdure.state_parts(run uuid, upto int) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
    SELECT p.text
      FROM perdure.run_states s
     CROSS JOIN LATERAL unnest(s.parts) WITH ORDINALITY AS p(text, i)
     WHERE s.run_id = run AND s.seq <= upto
     ORDER BY s.seq, p.i
$$;
COMMENT ON FUNCTION perdure.state_parts IS 'The parts of a run''s states up to one, in the order of their numbers.';

-- All at once: looked up one by one, each look could read all of the run's calls.
CREATE FUNCTION perdure.state_quotes(run uuid, upto int) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_object_agg(t.id, t.output -> 'text'), '{}')
      FROM perdure.tool_calls t
     WHERE t.run_id = run AND t.base_seq < upto AND t.status = 'succeeded' AND t.output ? 'text'
$$;
COMMENT ON FUNCTION perdure.state_quotes IS 'The texts that tool calls returned before a state of their run, by the calls'' ids: what its parts may name.';

CREATE FUNCTION perdure.whole_state(run uuid, state_seq int) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    whole   jsonb;
    body    text;
    quotes  jsonb := perdure.state_quotes(run, state_seq);
    part    text;
    texts   text[] := '{}';
    pieces  text[];
    upto    int;
    numbers text[];
    said    text;
BEGIN
    SELECT s.state, s.body INTO whole, body
      FROM perdure.run_states s WHERE s.run_id = run AND s.seq = state_seq;
    IF body IS NULL THEN
        RETURN whole;
    END IF;
    -- A part refers to earlier ones only, so those are whole already; the last is the state itself.
    FOR part IN SELECT * FROM perdure.state_parts(run, state_seq) UNION ALL SELECT body LOOP
        IF starts_with(part, U&'\E000#') THEN
            part := (quotes -> substr(part, 3))::text;
        END IF;
        IF part IS NULL THEN
            RAISE EXCEPTION 'State % of run % names a tool call whose output is gone.', state_seq, run
                USING HINT = 'Outputs of tool calls are kept as long as their run is.';
        END IF;
        pieces := string_to_array(part, U&'"\E000:');
        FOR i IN 2 .. cardinality(pieces) LOOP
            upto := strpos(pieces[i], '"');
            numbers := string_to_array(left(pieces[i], upto - 1), '-');
            said := texts[numbers[1]::int + 1];
            FOR n IN numbers[1]::int + 2 .. numbers[cardinality(numbers)]::int + 1 LOOP
                said := said || ',' || texts[n];
            END LOOP;
            pieces[i] := said || substr(pieces[i], upto + 1);
        END LOOP;
        texts[cardinality(texts) + 1] := array_to_string(pieces, '');
    END LOOP;
    RETURN texts[cardinality(texts)]::jsonb;
END
$$;
COMMENT ON FUNCTION perdure.whole_state IS 'A run''s state as the SDK serialized it, whichever way it is stored; null where there is none of that number.';

-- What a tool returned stands in its call's row: neither in the item's text nor, where it is all that
-- row has, in the item.
ALTER TABLE perdure.run_items ADD COLUMN output_of uuid
    CONSTRAINT only_outputs_are_of_calls CHECK (output_of IS NULL OR type = 'tool_call_output');
COMMENT ON COLUMN perdure.run_items.item IS 'The item as the SDK gave it, but for the output where output_of names the call that has it; perdure.whole_item() reads it whole.';
COMMENT ON COLUMN perdure.run_items.text IS 'What it says; of a tool''s output perdure.item_text() reads it.';
COMMENT ON COLUMN perdure.run_items.output_of IS 'The run''s tool call whose row has the output, as text; null where the item has it.';

CREATE FUNCTION perdure.whole_item(i perdure.run_items) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN i.output_of IS NULL THEN i.item ELSE i.item || jsonb_build_object('output', (
               SELECT t.output -> 'text' FROM perdure.tool_calls t
                WHERE t.run_id = i.run_id AND t.id = i.output_of)) END
$$;
COMMENT ON FUNCTION perdure.whole_item IS 'An item as the SDK gave it.';

CREATE FUNCTION perdure.item_text(i perdure.run_items) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN i.text IS NOT NULL OR i.type <> 'tool_call_output' THEN i.text
                WHEN i.output_of IS NOT NULL THEN (
                    SELECT t.output ->> 'text' FROM perdure.tool_calls t
                     WHERE t.run_id = i.run_id AND t.id = i.output_of)
                WHEN jsonb_typeof(i.item -> 'output') = 'string' THEN i.item ->> 'output' END
$$;
COMMENT ON FUNCTION perdure.item_text IS 'What an item says, or what the tool said whose output it is; null where that is no text.';

INSERT INTO perdure.schema_migrations (version, name) VALUES (24, 'compact_states');
