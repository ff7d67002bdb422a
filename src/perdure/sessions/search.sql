-- name: language
SELECT search_language AS language FROM perdure.tenants WHERE id = %(tenant_id)s

-- What is ranked: the newest so many that match, as a word that is everywhere matches everything.
-- name: everywhere
WITH matching AS (
    SELECT i.session_id, i.id, i.seq
    FROM perdure.session_items i
    JOIN perdure.sessions s ON s.id = i.session_id
    WHERE i.search @@ websearch_to_tsquery(%(language)s::regconfig, %(q)s)
      AND i.removed_version IS NULL
      AND i.tenant_id = %(tenant_id)s AND s.tenant_id = %(tenant_id)s AND s.deleted_at IS NULL
      AND (%(user_id)s::text IS NULL OR s.user_id = %(user_id)s)
      AND (%(tags)s::jsonb IS NULL OR s.tags @> %(tags)s::jsonb)
      AND (%(since)s::timestamptz IS NULL OR i.created_at >= %(since)s)
      AND (%(before)s::timestamptz IS NULL OR i.created_at < %(before)s)
    ORDER BY i.id DESC
    LIMIT %(most)s
)

-- Behind `chain`: what the session reads, also of its ancestors.
-- name: in_session
, matching AS (
    SELECT i.session_id, i.id, i.seq
    FROM chain c
    JOIN perdure.session_items i ON i.session_id = c.id AND i.seq <= c.upto
     AND (i.removed_version IS NULL OR i.removed_version > c.version) AND NOT i.seq <@ c.holes
    JOIN perdure.sessions s ON s.id = %(session_id)s
    WHERE i.search @@ websearch_to_tsquery(%(language)s::regconfig, %(q)s)
      AND (%(tags)s::jsonb IS NULL OR s.tags @> %(tags)s::jsonb)
      AND (%(since)s::timestamptz IS NULL OR i.created_at >= %(since)s)
      AND (%(before)s::timestamptz IS NULL OR i.created_at < %(before)s)
    ORDER BY i.id DESC
    LIMIT %(most)s
)

-- Behind one of them. The marks are characters the text has none of when it comes to them.
-- name: ranked
, ranked AS MATERIALIZED (
    SELECT m.session_id, m.id,
           ts_rank(i.search, websearch_to_tsquery(%(language)s::regconfig, %(q)s)) AS rank
    FROM matching m
    JOIN perdure.session_items i ON i.session_id = m.session_id AND i.seq = m.seq
), page AS (
    SELECT r.session_id, r.id, r.rank
    FROM ranked r
    LEFT JOIN ranked a ON a.id = %(after)s
    WHERE %(after)s::uuid IS NULL OR (r.rank, r.id) < (a.rank, a.id)
    ORDER BY r.rank DESC, r.id DESC
    LIMIT %(fetch)s
), shown AS (
    SELECT i.id, i.session_id, i.seq, i.role, i.sender, i.text, i.item, i.agent, i.run_id,
           i.user_id, i.token_count, i.metadata, i.created_at, p.rank,
           ts_headline(%(language)s::regconfig,
                       translate(left(i.text, 20000), U&'\E001\E002', ''),
                       websearch_to_tsquery(%(language)s::regconfig, %(q)s),
                       U&'StartSel="\E001", StopSel="\E002", MaxFragments=2, MinWords=5, '
                       'MaxWords=25, FragmentDelimiter=" … "') AS snippet
    FROM page p
    JOIN perdure.session_items i ON i.session_id = p.session_id AND i.id = p.id
)
SELECT row_to_json(s)::text AS shown FROM shown s ORDER BY s.rank DESC, s.id DESC
