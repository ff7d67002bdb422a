"""What the schema promises about its growth."""

from __future__ import annotations

import psycopg
import pytest

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


@pytest.mark.parametrize(("table", "column"), GROWING)
def test_a_table_that_grows_can_be_partitioned_with_its_constraints(
    database_url: str, table: str, column: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
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
    database_url: str, table: str, _column: str
) -> None:
    with psycopg.connect(database_url) as conn:
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
