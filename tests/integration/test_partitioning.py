"""Large tables put into partitions under an engine that goes on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from agents import Agent, function_tool

from perdure.access.principals import program_principal
from perdure.db import Connection, connect
from perdure.errors import ConflictError, InvalidRequestError, UnavailableError
from perdure.runs.keeping.kin import read_kin
from perdure.runs.keeping.partitioning import LARGE, parted, partition
from perdure.runs.keeping.pruning import prune
from tests.cli_support import perdure, perdure_json
from tests.engine_support import approve, call, eventually, items_of, query, rested, running, turns


@function_tool(needs_approval=True)
def pay(cents: int) -> str:
    """Pay."""
    return f"paid {cents}"


async def _shape(conn: Connection, table: str) -> list[dict[str, Any]]:
    """Names and definitions of all that a table has, and of the keys that lead to it."""
    cursor = await conn.execute(
        "SELECT 'key' AS what, conrelid::regclass::text || ' ' || conname AS name,"
        " pg_get_constraintdef(oid) AS def FROM pg_constraint"
        " WHERE conparentid = 0 AND contype <> 'n' AND"
        " to_regclass('perdure.' || %(table)s) IN (conrelid, confrelid)"
        " UNION ALL SELECT 'index', indexname, replace(indexdef, ' ONLY ', ' ') FROM pg_indexes"
        " WHERE schemaname = 'perdure' AND tablename = %(table)s"
        " UNION ALL SELECT 'column', attname, concat_ws(' ', atttypid::regtype, attnotnull,"
        " attstorage, col_description(attrelid, attnum)) FROM pg_attribute"
        " WHERE attrelid = to_regclass('perdure.' || %(table)s) AND attnum > 0 AND NOT attisdropped"
        " UNION ALL SELECT 'table', %(table)s,"
        " obj_description(to_regclass('perdure.' || %(table)s), 'pg_class')"
        " UNION ALL SELECT 'grant', a.grantee::regrole::text, a.privilege_type FROM pg_class c,"
        " aclexplode(c.relacl) a WHERE c.oid = to_regclass('perdure.' || %(table)s)"
        " AND a.grantee <> c.relowner"
        " ORDER BY 1, 2, 3",
        {"table": table},
    )
    return await cursor.fetchall()


async def test_what_ran_before_goes_on_and_looks_at_one_partition(database_url: str) -> None:
    agent = Agent(name="till", model=turns([call("pay", "c1", cents=5)], "paid"), tools=[pay])
    async with running(database_url, agent) as engine, await connect(database_url) as conn:
        before = await rested(engine, "till", "before")
        # A function over its rows, a view that uses it and one of columns, as perdure_read has.
        await conn.execute(
            "CREATE FUNCTION perdure.said(i perdure.run_items) RETURNS text LANGUAGE sql STABLE"
            " AS $$ SELECT i.item ->> 'type' $$;"
            "COMMENT ON FUNCTION perdure.said IS 'What it is.';"
            "CREATE SCHEMA look;"
            "CREATE VIEW look.items WITH (security_barrier=true) AS"
            " SELECT i.id, i.run_id, perdure.said(i) AS said FROM perdure.run_items i;"
            "CREATE VIEW look.calls AS SELECT t.tool, m.agent FROM perdure.tool_calls t"
            " JOIN perdure.model_responses m USING (run_id);"
            "GRANT SELECT ON perdure.run_items TO pg_read_all_settings"
        )
        shapes = {table: await _shape(conn, table) for table in LARGE}
        printed = perdure(
            "partition", "tool_calls", "--dry-run", env={"DATABASE_URL": database_url}
        ).stdout
        assert "ATTACH PARTITION perdure.tool_calls_before" in printed
        assert await parted(conn) == {"run_events": 3}
        async with await connect(database_url) as other, other.transaction():
            await other.execute("LOCK TABLE perdure.run_items IN ROW EXCLUSIVE MODE")
            with pytest.raises(UnavailableError, match="run_items was in use"):
                await partition(conn, "run_items", lock_seconds=0.1)
        assert await _workless(conn)
        for table in LARGE[1:]:
            await partition(conn, table)
        said = perdure_json("partition", "run_items", env={"DATABASE_URL": database_url})
        # This month's are where they were; the next two have partitions.
        assert said["tables"] == {**dict.fromkeys(LARGE, 3), "run_events": 3}
        for table in LARGE:
            assert await _shape(conn, table) == shapes[table]
        after = await rested(engine, "till", "after")
        for run in (before, after):
            done = await approve(engine, run)
            assert (done.status, done.output) == ("completed", "paid")
            assert len(await items_of(engine, run)) == 3 + (run is not None)
        seen = await query(engine, "SELECT said FROM look.items WHERE run_id = %s", after.id)
        assert len(seen) == len(await items_of(engine, after))
        assert len(await query(engine, "SELECT * FROM look.calls")) == 4
        assert await query(engine, "SELECT * FROM pg_proc WHERE proname = 'said'")
        for table in LARGE:
            plan = await query(
                engine, f"EXPLAIN SELECT 1 FROM perdure.{table} WHERE run_id = '{after.id}'"
            )
            text = " ".join(str(row) for row in plan)
            assert f"{table}_before" in text
            assert f"{table}_2" not in text
            assert f"{table}_default" not in text

        # They go with their runs, and by the keys between them.
        await conn.execute("UPDATE perdure.runs SET finished_at = now() - interval '9 days'")

        async def ended() -> bool:
            rows = await query(
                engine, "SELECT 1 FROM dbos.workflow_status WHERE status = 'PENDING'"
            )
            return not rows

        await eventually(ended)
        by = program_principal("keeper")
        pruned = await prune(conn, database_url, {"completed": timedelta(days=8)}, by=by)
        assert pruned.runs == {"completed": 2}
        assert pruned.left.rows["tool_calls"] == 2
        left = await (await read_kin(conn)).count(conn, [UUID(before.id), UUID(after.id)])
        assert not left.rows
        for table in LARGE:
            assert not await query(engine, f"SELECT 1 FROM perdure.{table}")

        with pytest.raises(ConflictError, match="already"):
            await partition(conn, "run_events")
        for table, why in (
            ("runs", "no run_id"),
            ("feedback", "no run_id"),
            ("interruptions", "triggers"),
            ("webhook_deliveries", "no run_id"),
            ("decision_links", "key without"),
            ("x; --", "no table"),
        ):
            with pytest.raises(InvalidRequestError, match=why):
                await partition(conn, table)


async def _workless(conn: Connection) -> bool:
    """Whether nothing is left of a try but what the next one takes away."""
    cursor = await conn.execute("SELECT to_regclass('perdure.run_items_before') IS NULL AS free")
    [row] = await cursor.fetchall()
    return bool(row["free"])


def test_what_an_older_build_left_in_the_default_partition_becomes_one(
    empty_database_url: str, tmp_path: Any
) -> None:
    import asyncio
    import shutil

    from perdure.migrate import default_directory, migrate
    from perdure.runs.dbos_schema import migrate_dbos

    growth = next(default_directory().glob("*_growth.sql"))
    for file in default_directory().glob("*.sql"):
        if file.name < growth.name:
            shutil.copy(file, tmp_path / file.name)
    asyncio.run(migrate(empty_database_url, directory=tmp_path, system=migrate_dbos))
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        insert = (
            "INSERT INTO perdure.run_events (run_id, seq, kind, tenant_id, data)"
            " SELECT %s, n, 'run.queued', gen_random_uuid(), '{}' FROM generate_series(1, 3) n"
        )
        old, stray = "01900000-0000-7000-8000-000000000001", "ffffffff-0000-7000-8000-000000000001"
        conn.execute(insert, (old,))
        conn.execute(insert, (stray,))
        shutil.copy(growth, tmp_path / growth.name)
        asyncio.run(migrate(empty_database_url, directory=tmp_path, system=migrate_dbos))
        found = conn.execute(
            "SELECT c.relname, count(*) FROM perdure.run_events e"
            " JOIN pg_class c ON c.oid = e.tableoid GROUP BY 1 ORDER BY 1"
        ).fetchall()
        assert found == [("run_events_before", 3), ("run_events_default", 3)]
        months = conn.execute("SELECT name FROM perdure.partitions_of('run_events')").fetchall()
        assert len(months) == 3
