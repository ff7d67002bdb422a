"""What the schema promises: of its relations, of its states and of its growth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.conftest import Server

GROWING = [
    ("runs", "id"),
    ("segments", "run_id"),
    ("run_states", "run_id"),
    ("run_items", "run_id"),
    ("model_responses", "run_id"),
    ("tool_calls", "run_id"),
    ("interruptions", "run_id"),
    ("decisions", "run_id"),
    ("grant_uses", "run_id"),
    ("run_events", "run_id"),
    ("run_inputs", "run_id"),
    ("operations", "run_id"),
    ("session_items", "session_id"),
    ("session_holes", "session_id"),
]

WITHOUT_KEY = {
    "audit_log.run_id": "the log outlives what it tells of",
    "audit_log.subject_id": "the id of anything there is or was",
    "audit_payloads.run_id": "that of audit_log",
    "audit_payloads.tenant_id": "that of audit_log, to which it has a key",
    "audit_seals.key_id": "the name of a key that is not in the database",
    "budget_reservations.reply_id": "the reply it is reserved for is not there yet",
    "decision_links.key_id": "the name of a key that is not in the database",
    "decisions.by_id": "the id of whoever decided, as the host application knows them",
    "feedback.user_id": "the host application's",
    "grants.run_id": "it outlives the run it was given in, as evidence",
    "grants.interruption_id": "as its run_id",
    "grants.decision_id": "as its run_id",
    "grants.scope_id": "a run, a session, a user or an agent's name",
    "kept_states.user_id": "the host application's",
    "model_responses.request_id": "the provider's",
    "model_responses.response_id": "the provider's",
    "repairs.run_id": "what was repaired is told when the run is deleted, too",
    "repairs.executor_id": "as its run_id; and of processes that never entered",
    "run_events.run_id": "hot: its check would lock the run once an event; it goes with its head",
    "run_events.tenant_id": "as its run_id",
    "run_inputs.added_by_id": "the id of whoever added it, as the host application knows them",
    "run_items.output_of": "hot: written with its item where a run rests; both go with the run",
    "runs.user_id": "the host application's",
    "segments.executor_id": "hot: an execution is begun by whoever says who it is",
    "session_items.user_id": "the host application's",
    "sessions.group_id": "the host application's",
    "sessions.user_id": "the host application's",
    "sweeps.reached": "how far a sweep has come, whatever became of that row",
    "tool_calls.call_id": "the model's",
    "tool_guardrail_results.call_id": "the model's",
    "usage_daily.user_id": "the host application's; it outlives their runs",
    "user_sessions.user_id": "the host application's",
}
"""Columns that name another row, or look as if they did, without a foreign key."""

NO_ACTION = {
    "sessions_root_session_id_fkey": "a tree goes in one statement, which RESTRICT would refuse",
    "sessions_parent_session_id_parent_depth_fkey": "as its root",
}

WITHOUT_CHECK = {
    "agent_versions.output_type": "the name of a Python type",
    "guardrail_results.scope": "a path of call ids",
    "interruptions.scope": "a path of call ids",
    "model_responses.scope": "a path of call ids",
    "repairs_purged.kind": "taken from repairs, which has one",
    "run_events.kind": "an enum",
    "run_items.role": "the SDK's and the provider's, which add to them",
    "tool_calls.scope": "a path of call ids",
    "tool_guardrail_results.scope": "a path of call ids",
}
"""Columns of a status, a kind and the like that anything may stand in."""

PARTIAL = {
    "runs_active": ["queued", "running", "interrupted"],
    "interruptions_pending": ["pending"],
    "interruptions_expiring": ["pending"],
    "interruptions_one_pending_per_call": ["pending"],
    "segments_due": ["scheduled"],
    "segments_one_open": ["rested"],
    "run_states_one_active": ["is_active"],
    "webhook_deliveries_due": ["pending"],
    "runs_metadata": ["'{}'"],
}


@pytest.fixture(scope="module")
def conn(server: Server, template: str) -> Iterator[psycopg.Connection]:
    """A migrated database nobody writes to."""
    url = server.create(template=template)
    with psycopg.connect(url, autocommit=True) as conn:
        yield conn
    server.drop(url)


def rows(conn: psycopg.Connection, statement: str) -> list[tuple[Any, ...]]:
    """What a look into the catalogue gives; partitions are as their table is."""
    return conn.execute(
        "WITH tables AS (SELECT oid, relname FROM pg_class"
        " WHERE relnamespace = 'perdure'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition), columns AS (SELECT t.oid AS table_id, t.relname, a.*"
        " FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid"
        " WHERE a.attnum > 0 AND NOT a.attisdropped) " + statement
    ).fetchall()


def test_what_names_another_row_has_a_foreign_key(conn: psycopg.Connection) -> None:
    without = rows(
        conn,
        """
        SELECT relname || '.' || attname FROM columns c
         WHERE (attname ~ '_id$' OR atttypid = 'uuid'::regtype) AND attname <> 'id'
           AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.table_id
                              AND contype = 'f' AND attnum = ANY (conkey))
        """,
    )
    assert {name for (name,) in without} == set(WITHOUT_KEY)


def test_every_foreign_key_says_what_a_deletion_does(conn: psycopg.Connection) -> None:
    keys = rows(
        conn,
        "SELECT conname FROM pg_constraint JOIN tables t ON t.oid = conrelid"
        " WHERE contype = 'f' AND confdeltype = 'a'",
    )
    assert {name for (name,) in keys} == set(NO_ACTION)


def test_no_deletion_reads_a_whole_table(conn: psycopg.Connection) -> None:
    """The columns of each foreign key, or the first of them, begin an index of all its rows.

    Of a key of several columns its first is enough where it names a run or a session, whose rows
    are few. Tenants are not deleted by the service: an index on each tenant_id would be written
    with every row, for nobody.
    """
    without = rows(
        conn,
        """
        SELECT conname FROM pg_constraint k JOIN tables t ON t.oid = conrelid
         WHERE contype = 'f'
           AND confrelid <> 'perdure.tenants'::regclass
           AND NOT EXISTS (
               SELECT FROM pg_index i
                WHERE i.indrelid = k.conrelid AND i.indisvalid
                  AND pg_get_indexdef(i.indexrelid) ~ 'USING btree'
                  AND (i.indkey::int2[])[0] = k.conkey[1]
                  AND (cardinality(k.conkey) = 1
                       OR (i.indkey::int2[])[1] = ANY (k.conkey)
                       OR k.conname IN ('feedback_run_id_item_id_fkey',
                                        'sessions_parent_session_id_parent_depth_fkey'))
                  -- What the key itself makes true of its rows, or nothing.
                  AND (i.indpred IS NULL
                       OR pg_get_expr(i.indpred, i.indrelid) = ANY (
                          SELECT format('(%s IS NOT NULL)', a.attname) FROM pg_attribute a
                           WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey))
                       OR pg_get_expr(i.indpred, i.indrelid) = '(scope = ''run''::text)'
                       OR pg_get_expr(i.indpred, i.indrelid) = '(scope = ''session''::text)'))
        """,
    )
    assert without == []


def test_every_status_is_one_of_those_there_are(conn: psycopg.Connection) -> None:
    without = rows(
        conn,
        """
        SELECT relname || '.' || attname FROM columns c
         WHERE attname ~ ('(status|kind|type|scope|outcome|effect|role|source|behavior|period'
                          '|decision)$')
           AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.table_id
                              AND contype = 'c' AND attnum = ANY (conkey))
        """,
    )
    assert {name for (name,) in without} == set(WITHOUT_CHECK)
    open_statuses = rows(
        conn,
        """
        SELECT relname || '.' || attname FROM columns c
         WHERE attname = 'status' AND NOT EXISTS (
               SELECT FROM pg_constraint k
                WHERE k.conrelid = c.table_id AND contype = 'c' AND conkey = ARRAY[attnum]
                  AND pg_get_constraintdef(k.oid) ~ 'status = ANY')
        """,
    )
    assert open_statuses == []


def test_what_is_open_has_an_index_of_its_own(conn: psycopg.Connection) -> None:
    found: dict[str, str] = dict(
        rows(
            conn,
            "SELECT x.relname, pg_get_expr(i.indpred, i.indrelid)"
            " FROM pg_index i JOIN tables t ON t.oid = i.indrelid"
            " JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indpred IS NOT NULL",
        )
    )
    for name, words in PARTIAL.items():
        for word in words:
            assert word in found[name]


def test_json_that_is_searched_has_a_gin_index(conn: psycopg.Connection) -> None:
    found = rows(
        conn,
        "SELECT c.relname FROM pg_index i JOIN tables t ON t.oid = i.indrelid"
        " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam"
        " WHERE m.amname = 'gin' ORDER BY 1",
    )
    assert [name for (name,) in found] == [
        "runs_metadata",
        "session_items_search",
        "sessions_tags",
    ]


def test_a_run_has_one_active_state(conn: psycopg.Connection) -> None:
    [(columns, predicate)] = rows(
        conn,
        "SELECT pg_get_indexdef(indexrelid, 1, true), pg_get_expr(indpred, indrelid) FROM pg_index"
        " WHERE indexrelid = 'perdure.run_states_one_active'::regclass AND indisunique",
    )
    assert (columns, predicate) == ("run_id", "is_active")


@pytest.mark.parametrize(("table", "column"), GROWING)
def test_a_table_that_grows_can_be_partitioned_with_its_constraints(
    conn: psycopg.Connection, table: str, column: str
) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute(
            f"CREATE TABLE perdure.parted (LIKE perdure.{table} INCLUDING ALL)"
            f" PARTITION BY RANGE ({column})"
        )
        conn.execute(
            "CREATE TABLE perdure.part PARTITION OF perdure.parted"
            " FOR VALUES FROM ('00000000-0000-7000-8000-000000000000')"
            " TO ('ffffffff-ffff-7fff-bfff-ffffffffffff')"
        )
        had, has = (
            conn.execute(
                "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass", (f"perdure.{name}",)
            ).fetchone()
            for name in (table, "part")
        )
        assert had == has


@pytest.mark.parametrize(("table", "_column"), GROWING)
def test_everything_of_a_tenant_says_so_and_when(
    conn: psycopg.Connection, table: str, _column: str
) -> None:
    columns = {
        name
        for (name,) in conn.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = 'perdure' AND table_name = %s",
            (table,),
        )
    }
    assert "tenant_id" in columns
    assert columns & {"created_at", "requested_at", "decided_at"}
