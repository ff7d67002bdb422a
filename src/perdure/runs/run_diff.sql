-- name: items
SELECT (to_jsonb(i) || jsonb_build_object(
           'item', perdure.whole_item(i), 'text', perdure.item_text(i),
           'user_id', r.user_id, 'session_id', r.session_id))::text AS item
  FROM perdure.run_items i
  JOIN perdure.runs r ON r.id = i.run_id
 WHERE i.run_id = %(run_id)s
 ORDER BY i.seq
 LIMIT %(fetch)s
