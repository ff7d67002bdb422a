"""The catalogue: what engines come with, which version a run has, and what nobody uses any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from agents import Agent, function_tool

from perdure import jsonsafe
from perdure.catalogue.definitions import Catalogue, digest
from perdure.catalogue.pruning import prune
from perdure.catalogue.reading import get_agent, get_version
from perdure.catalogue.registering import register
from perdure.db import Connection, connect, open_pool
from perdure.engine import Engine
from perdure.migrate import load_migrations, migrate
from perdure.runs.dbos_schema import migrate_dbos
from perdure.runs.registry import Registry
from tests.catalogue_support import SECRET, everything, polite
from tests.engine_support import call, rested, running, turns
from tests.factories import insert_run

TABLES = (
    *("agents", "agent_versions", "agent_version_parts", "model_settings", "tools", "agent_tools"),
    *("handoff_configs", "agent_handoffs", "guardrails", "agent_guardrails", "tool_guardrails"),
    *("tool_guardrail_tools", "mcp_servers", "agent_mcp_servers"),
)


def contents(url: str) -> dict[str, list[Any]]:
    """All rows of the catalogue, and where each lies: written again it lies elsewhere."""
    with psycopg.connect(url) as conn:
        return {
            table: conn.execute(
                f"SELECT ctid::text, xmin::text, to_jsonb(t)::text FROM perdure.{table} t"
                " ORDER BY 1"
            ).fetchall()
            for table in TABLES
        }


async def test_engines_that_start_at_once_write_their_agents_once(database_url: str) -> None:
    pools = [await open_pool(database_url, 1, 1) for _ in range(8)]
    catalogue = everything().catalogue
    wrote = await asyncio.gather(*(register(pool, catalogue) for pool in pools))
    assert any(wrote)
    before = contents(database_url)
    counts = {table: len(rows) for table, rows in before.items()}
    assert counts == {
        "agents": 3,
        "agent_versions": 3,
        "agent_version_parts": 4,
        "model_settings": 2,
        "tools": 9,
        "agent_tools": 9,
        "handoff_configs": 2,
        "agent_handoffs": 2,
        "guardrails": 2,
        "agent_guardrails": 2,
        "tool_guardrails": 2,
        "tool_guardrail_tools": 2,
        "mcp_servers": 3,
        "agent_mcp_servers": 3,
    }
    assert SECRET not in repr(before)
    wrote = await asyncio.gather(*(register(pool, everything().catalogue) for pool in pools))
    assert not any(wrote)
    assert contents(database_url) == before
    async with pools[0].connection() as conn:
        for name, given in catalogue.agents.items():
            found = await get_version(conn, name, given.version)
            # As it was given, to the last character, and so of the same hash.
            assert found["definition"] == given.definition
            assert digest(found["definition"]) == found["definition_hash"]
            assert found["run_config"] == catalogue.run_config
            assert [one["name"] for one in found["agents"]] == list(given.parts)
    for pool in pools:
        await pool.close()


@function_tool
def look() -> str:
    return "saw"


async def test_real_engines_of_one_build_and_the_version_of_a_run(database_url: str) -> None:
    def build(words: str, *more: Agent[Any]) -> list[Agent[Any]]:
        model = turns([call("look", "c1")], "done")
        return [Agent("desk", instructions=words, tools=[look], model=model, handoffs=[*more])]

    engines = [Engine(build("Be kind.")) for _ in range(3)]
    async with await connect(database_url) as conn:
        # A run that a program without this agent's engine has started, before all others.
        async with running(database_url, *build("Be brief.", Agent("helper"))) as first:
            assert (await rested(first, "desk")).status == "completed"
            brief = first.registry.versions["desk"]
        versions = await rows(conn, "SELECT version, replaced_at FROM perdure.agent_versions")
        assert {one["replaced_at"] for one in versions} == {None}
        starting = [engine.running(url=database_url, worker=False) for engine in engines]
        await asyncio.gather(*(one.__aenter__() for one in starting))
        kind = engines[0].registry.versions["desk"]
        waiting = await engines[0].start("desk", "hi")
        [unbegun] = await runs_of(conn, waiting.id)
        assert (unbegun["name"], unbegun["version"]) == ("desk", None)
        # What the build that took the place of its own does not have is in none.
        desk, helper = [await get_agent(conn, name) for name in ("desk", "helper")]
        assert (desk["version"], desk["deleted_at"]) == (kind, None)
        assert [(one["version"], one["current"]) for one in desk["versions"]] == [
            (kind, True),
            (brief, False),
        ]
        assert helper["deleted_at"] is not None
        # One that was given others stands beside it.
        other = Engine([Agent("other", model=turns("hi"))])
        async with other.running(url=database_url, worker=False):
            assert (await get_agent(conn, "desk"))["deleted_at"] is None
        for one in starting:
            await one.__aexit__(None, None, None)
        # The old build again: what it had is current again, and begins what waits.
        async with running(database_url, *build("Be brief.", Agent("helper"))) as old:
            await (await old.get(waiting.id)).wait(15)
            [begun] = await runs_of(conn, waiting.id)
            assert (begun["name"], begun["version"], begun["agent_version"]) == (
                *("desk", brief),
                brief,
            )
            assert (await get_agent(conn, "desk"))["version"] == brief
            assert (await get_agent(conn, "helper"))["deleted_at"] is None
        versions = await rows(conn, "SELECT version FROM perdure.agent_versions")
        assert len(versions) == 4


async def test_a_run_whose_agent_nobody_had_registered_gets_it_when_it_is_begun(
    database_url: str,
) -> None:
    engine = Engine([Agent("late", model=turns("done"))])
    async with engine.running(url=database_url, worker=False), await connect(database_url) as conn:
        await conn.execute("UPDATE perdure.agents SET current_version_id = NULL")
        await conn.execute("DELETE FROM perdure.agents")
        run = await engine.start("late", "hi")
        assert [one["name"] for one in await runs_of(conn, run.id)] == [None]
    async with running(database_url, Agent("late", model=turns("done"))) as other:
        run = await (await other.get(run.id)).wait(15)
        async with other.pool.connection() as conn:
            [begun] = await runs_of(conn, run.id)
            assert begun["version"] == run.data["agent_version"] == other.registry.versions["late"]


async def test_runs_of_before_know_their_agent(empty_database_url: str, tmp_path: Path) -> None:
    for one in load_migrations():
        if one.name == "catalogue":
            break
        (tmp_path / f"{one}.sql").write_text(one.sql)
    await migrate(empty_database_url, directory=tmp_path, system=migrate_dbos)
    async with await connect(empty_database_url) as conn:
        ids = {
            name: [await insert_run(conn, agent=name) for _ in range(2)] for name in ("a", "b/c")
        }
        await migrate(empty_database_url)
        for name, runs in ids.items():
            for run_id in runs:
                [found] = await runs_of(conn, str(run_id))
                assert (found["name"], found["version"]) == (name, None)
        assert (await get_agent(conn, "b/c"))["definition"] is None


async def test_what_no_run_uses_is_pruned_and_the_rest_is_not(database_url: str) -> None:
    async with await open_pool(database_url, 1, 4) as pool:
        used = everything("Used by a run.").catalogue
        unused = everything("Used by nobody.", output_type=int, input_guardrails=[]).catalogue
        only = Registry(roots=[Agent("front", input_guardrails=[polite])]).catalogue
        for catalogue in (used, unused, only):
            assert await register(pool, catalogue)
        async with pool.connection() as conn:
            point = used.agents["front"].version
            await point_a_run_at(conn, "front", point)
            nothing = contents(database_url)
            dry = await prune(conn, dry_run=True)
            assert contents(database_url) == nothing
            # A worker that began before it was replaced may have it still.
            await live(conn, "interval '1 hour'")
            assert (await prune(conn))["versions"] == []
            await conn.execute("UPDATE perdure.executors SET stopped_at = now()")
            await live(conn, "interval '-1 hour'")
            done = await prune(conn)
            assert done == {**dry, "dry_run": False}
            # Of the build a run points into all stays that its agent can reach.
            gone = {one.name: one.version for one in unused.agents.values()}
            gone.pop("scribe")
            assert {one["agent"]: one["version"] for one in done["versions"]} == gone
            assert done["agents"] == []
            assert done["definitions"] == dict.fromkeys(done["definitions"], 0)
            for name, given in used.agents.items():
                assert (await get_version(conn, name, given.version))["definition"] == (
                    given.definition
                )
            assert await versions_in(conn) == {
                *(one.version for one in used.agents.values()),
                only.agents["front"].version,
            }
            for statement in (
                "DELETE FROM perdure.agents WHERE name = 'front'",
                f"DELETE FROM perdure.agent_versions WHERE version = '{point}'",
            ):
                with pytest.raises(psycopg.errors.RestrictViolation):
                    await conn.execute(statement.encode())
            await conn.execute("DELETE FROM perdure.runs")
            done = await prune(conn)
            assert done["agents"] == ["desk/refunds", "scribe"]
            assert {one["version"] for one in done["versions"]} == {
                one.version for one in used.agents.values()
            }
            assert done["definitions"] == {
                "model_settings": 1,
                "tools": 9,
                "tool_guardrails": 2,
                "handoff_configs": 2,
                "guardrails": 1,
                "mcp_servers": 3,
            }
            found = await get_agent(conn, "front")
            assert [one["name"] for one in found["definition"]["guardrails"]] == ["polite"]
            again = await prune(conn)
            assert (again["versions"], again["agents"]) == ([], [])
        assert not await register(pool, only)
        assert await register(pool, used)


async def test_two_engines_of_other_builds_that_start_at_once(database_url: str) -> None:
    """Whoever wrote last is current, whole: never a part of each."""
    builds = [everything(f"Build {n}.").catalogue for n in range(4)]
    async with await open_pool(database_url, 4, 4) as pool:
        await asyncio.gather(*(register(pool, one) for one in builds))
        async with pool.connection() as conn:
            current = {name: (await get_agent(conn, name))["version"] for name in builds[0].agents}
            assert current in [as_versions(one) for one in builds]
            served = await rows(
                conn, "SELECT version FROM perdure.agent_versions WHERE replaced_at IS NULL"
            )
            assert {one["version"] for one in served} == set(current.values())


def as_versions(catalogue: Catalogue) -> dict[str, str]:
    return {name: one.version for name, one in catalogue.agents.items()}


async def rows(conn: Connection, statement: str, *params: Any) -> Sequence[dict[str, Any]]:
    return await (await conn.execute(statement.encode(), params)).fetchall()


async def runs_of(conn: Connection, run_id: str) -> Sequence[dict[str, Any]]:
    return await rows(
        conn,
        "SELECT a.name, v.version, r.agent_version FROM perdure.runs r"
        " LEFT JOIN perdure.agents a ON a.id = r.agent_id"
        " LEFT JOIN perdure.agent_versions v ON v.id = r.agent_version_id WHERE r.id = %s",
        run_id,
    )


async def versions_in(conn: Connection) -> set[str]:
    return {
        one["version"] for one in await rows(conn, "SELECT version FROM perdure.agent_versions")
    }


async def point_a_run_at(conn: Connection, agent: str, version: str) -> None:
    await conn.execute(
        "INSERT INTO perdure.runs (id, tenant_id, agent, current_agent, input, max_turns, agent_id,"
        " agent_version, agent_version_id)"
        " SELECT perdure.uuid7(), t.id, a.name, a.name, %s::jsonb, 3, a.id, v.version, v.id"
        " FROM perdure.tenants t, perdure.agents a"
        " JOIN perdure.agent_versions v ON v.agent_id = a.id"
        " WHERE a.name = %s AND v.version = %s",
        (jsonsafe.dumps("hi"), agent, version),
    )


async def live(conn: Connection, ago: str) -> None:
    """Let a worker live that began so long ago."""
    await conn.execute(
        "INSERT INTO perdure.executors (id, host, pid, version, started_at)"
        f" VALUES (perdure.uuid7()::text, 'h', 1, '1', now() - {ago})".encode()
    )
