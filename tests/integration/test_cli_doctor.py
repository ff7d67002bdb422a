"""``perdure doctor`` looks at the real thing."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from perdure import embedded
from perdure.cli.app import app
from perdure.db import Connection, connect
from perdure.migrate import migrate
from perdure.runs.dbos_schema import migrate_dbos
from tests.cli_support import perdure, perdure_json
from tests.conftest import scratch_directory, wait_until_stopped
from tests.factories import insert_run, insert_stop

# Of this process nobody but itself takes anything over: it is alive for an hour.
LIVING = (
    "INSERT INTO perdure.executors (id, host, pid, version, lease_until)"
    " VALUES ('here-1', 'here', 1, '', now() + interval '1 hour')"
)
DEAD = (
    "INSERT INTO perdure.executors (id, host, pid, version, renewed_at, lease_until)"
    " VALUES ('dead-1', 'gone', 1, '', now() - interval '10 min 6 s', now() - interval '10 min')"
)


def levels(document: Any) -> dict[str, str]:
    return {one["name"]: one["level"] for one in document["findings"]}


def texts(document: Any) -> dict[str, str]:
    return {one["name"]: f"{one['found']} → {one['remedy'] or ''}" for one in document["findings"]}


def doctor(code: int, **env: str) -> Any:
    """The document of ``perdure doctor --json`` run in this process, which is a second faster."""
    unset = {"DATABASE_URL": env.get("DATABASE_URL"), "PERDURE_HOME": env.get("PERDURE_HOME")}
    done = CliRunner().invoke(app, ["doctor", "--json"], env=unset)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


@pytest.fixture
def home() -> Iterator[Path]:
    scratch = scratch_directory()
    yield scratch / "home"
    if (scratch / "home").exists():
        wait_until_stopped(scratch / "home")
    shutil.rmtree(scratch)


async def test_an_embedded_database_from_nothing_to_health(home: Path) -> None:
    def look(code: int) -> Any:
        return asyncio.to_thread(doctor, code, PERDURE_HOME=str(home))

    nothing = await look(1)
    assert texts(nothing)["database"].startswith(
        "DATABASE_URL is not set, and there is no embedded"
    )
    async with embedded.running(home) as server:
        empty = await look(1)
        assert levels(empty)["migrations"] == levels(empty)["dbos_migrations"] == "error"
        assert "perdure migrate" in texts(empty)["migrations"]
        assert "workers" not in levels(empty)

        await migrate(server.url, system=migrate_dbos)
        async with await connect(server.url) as conn:
            await conn.execute(LIVING)
        healthy = await look(0)
        assert set(levels(healthy).values()) == {"ok"}, healthy
        assert healthy["status"] == "ok"
        done = await asyncio.to_thread(perdure, "doctor", env={"PERDURE_HOME": str(home)})
        assert done.stdout.splitlines()[-1] == f"All is well: {len(healthy['findings'])} ok."
        assert server.url.split(":")[2].split("@")[0] not in done.stdout
    await asyncio.to_thread(wait_until_stopped, home)
    stopped = await look(1)
    assert f"the embedded Postgres in {home} does not run" in texts(stopped)["database"]
    assert "perdure dev" in texts(stopped)["database"]


async def _make_trouble(conn: Connection) -> dict[str, Any]:
    """Leave behind what doctor has to find; returns the runs by what is wrong with them."""
    await conn.execute(DEAD)
    made = {
        "held": await insert_run(conn, status="running"),
        "dying": await insert_run(conn, status="running"),
        "late": await insert_run(conn, status="queued"),
        "quarantined": await insert_run(conn, status="failed", error_type="quarantined"),
        "forgotten": await insert_run(conn, status="queued"),
        "lost": await insert_run(conn, status="queued"),
        "uncertain": await insert_run(conn, status="interrupted"),
    }
    await insert_stop(conn, made["uncertain"], type="uncertain_effect")
    held = "executor_id = 'dead-1'"
    for change, run in (
        (held, "held"),
        ("created_at = now() - interval '10 min'", "forgotten"),
        (f"{held}, executions = 3, stalled = 2", "dying"),
        ("status = 'scheduled', due_at = now() - interval '1 minute'", "late"),
    ):
        await conn.execute(
            f"UPDATE perdure.segments SET {change} WHERE run_id = %s".encode(), (made[run],)
        )
    await conn.execute("DELETE FROM perdure.segments WHERE run_id = %s", (made["lost"],))
    await conn.execute(
        "UPDATE perdure.runs SET updated_at = now() - interval '10 min' WHERE id = %s",
        (made["lost"],),
    )
    await conn.execute("UPDATE perdure.sweeps SET due_at = now() - interval '10 min'")
    await conn.execute(
        "INSERT INTO perdure.repairs (id, kind, run_id, segment, repaired_by, repaired_at)"
        " VALUES (gen_random_uuid(), 'taken_over', %(run)s, 1, 'here-1', now() - interval '1 h'),"
        " (gen_random_uuid(), 'taken_over', %(run)s, 1, 'here-1', now() - interval '25 h')",
        {"run": made["held"]},
    )
    await conn.execute(
        "INSERT INTO perdure.webhooks (id, tenant_id, url, events, secret, disabled_at,"
        " disabled_reason) SELECT perdure.uuid7(), id, 'https://example.com/', '{*}', secret, at,"
        " why FROM perdure.tenants, (VALUES ('plain.whsec_x', NULL::timestamptz, NULL),"
        " ('aes256gcm.k.x', now(), 'It answered 410 Gone.')) AS hooks (secret, at, why)"
    )
    await conn.execute(
        "INSERT INTO perdure.webhook_deliveries (id, tenant_id, webhook_id, event, status,"
        " due_at, finished_at) SELECT perdure.uuid7(), tenant_id, id, 'webhook.test', status,"
        " now() - interval '10 min', at FROM perdure.webhooks,"
        " (VALUES ('pending', NULL::timestamptz), ('failed', now())) AS d (status, at)"
        " WHERE disabled_at IS NULL"
    )
    return made


async def test_trouble_is_found_and_named(database_url: str) -> None:
    async with await connect(database_url) as conn:
        made = await _make_trouble(conn)

    found = await asyncio.to_thread(
        lambda: perdure_json("doctor", code=1, env={"DATABASE_URL": database_url})
    )

    assert found["object"] == "doctor"
    assert found["status"] == "error"
    said = texts(found)
    for name, level, words in (
        ("fsync", "error", "ALTER SYSTEM SET fsync = on"),
        ("migrations", "ok", "the last is"),
        ("dbos_migrations", "ok", "applied"),
        ("workers", "error", "no worker is alive, and 4 segments would have to run"),
        ("leases", "error", "1 worker whose lease is over, by up to 10 min"),
        ("leases", "error", "holding 2 segments, and nobody has taken over: dead-1"),
        ("scheduled", "warning", "1 segment late"),
        ("running", "ok", "2 segments: 2 under dead-1"),
        (
            "stuck_runs",
            "error",
            "1 segment nobody runs (missing_workflow 1)",
        ),
        ("stuck_runs", "error", "the longest for 10 min"),
        ("stuck_runs", "error", f"{made['forgotten']}:1 its workflow is gone"),
        ("contradictory_runs", "error", f"{made['lost']}:1 the run is queued"),
        ("sweeper", "ok", "no worker is alive"),
        ("repairs", "ok", "1 in the last 24 hours (taken_over 1), the last 1 h ago"),
        ("dying_segments", "warning", f"{made['dying']}:1 begun 3 times, died 2 in a row"),
        ("quarantined", "warning", str(made["quarantined"])),
        ("uncertain_effects", "warning", "1 effect waits"),
        ("webhook_secrets", "warning", "1 webhook keeps its secret in plain text"),
        ("deliveries", "warning", "1 failed in the last 24 hours; 1 webhook disabled by its"),
        ("deliveries", "warning", "the oldest that is due has waited for 10 min"),
        ("keys", "ok", "needs none"),
        ("clock", "ok", "give or take"),
    ):
        assert levels(found)[name] == level, (name, said[name])
        assert words in said[name]


async def test_tables_of_another_build(database_url: str) -> None:
    async with await connect(database_url) as conn:
        await conn.execute("UPDATE perdure.schema_migrations SET checksum = 'x' WHERE version = 1")
        await conn.execute("UPDATE dbos.dbos_migrations SET version = version + 1")

    found = await asyncio.to_thread(doctor, 1, DATABASE_URL=database_url)

    assert "was changed after it was applied" in texts(found)["migrations"]
    assert levels(found)["dbos_migrations"] == "warning"
    assert "dying_segments" not in levels(found)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:hunter2@127.0.0.1:1/x", "the database did not answer: "),
        ("postgresql://u:hun@ter2@127.0.0.1:1/x", "Write it as %40"),
        ("mysql://u:hunter2@db/x", "is not a Postgres URL"),
    ],
)
def test_a_database_that_cannot_be_asked_is_a_finding(url: str, said: str) -> None:
    found = doctor(1, DATABASE_URL=url)

    assert levels(found)["database"] == "error"
    assert said in texts(found)["database"]
    assert "hun" not in str(found)
    assert "ter2" not in str(found)
    assert set(levels(found)) == {
        "python",
        "perdure",
        "dbos",
        "openai-agents",
        "psycopg",
        "database",
    }


def test_a_database_out_of_reach_is_no_traceback() -> None:
    done = perdure("doctor", code=1, env={"DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/x"})

    assert "\nerror    database       the database did not answer: " in done.stdout
    assert done.stdout.endswith("\nNeeds mending: 1 error, 5 ok.\n")
    assert done.stderr == ""
    assert "hunter2" not in done.stdout
