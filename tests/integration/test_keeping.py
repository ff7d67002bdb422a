"""Runs deleted by age and archived before, people erased, events in months."""

from __future__ import annotations

import asyncio
import gzip
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from agents import Agent, function_tool

from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.access.user_sessions import NewUserSession, create_user_session
from perdure.audit.sealing import seal_due
from perdure.audit.verify import verify
from perdure.budgets.limits import parse_limits
from perdure.budgets.store import NewBudget, create_budget
from perdure.db import Connection, connect, uuid7
from perdure.engine import Engine, Run
from perdure.errors import ConfigurationError, ConflictError, InvalidRequestError, UnavailableError
from perdure.events.reading import read_events
from perdure.runs.keeping.archive import read_archive, verify_archive
from perdure.runs.keeping.archived import erase_archived
from perdure.runs.keeping.events import drop_empty_months, prune_events
from perdure.runs.keeping.kin import read_kin
from perdure.runs.keeping.people import cancel_runs_of, erase_user
from perdure.runs.keeping.policy import parse_retention
from perdure.runs.keeping.pruning import Archive, prune
from perdure.worker.retention import Retaining
from tests.cli_support import Process, perdure, perdure_json
from tests.engine_support import RuleModel, approve, call, eventually, query, rested, running

DAY = timedelta(days=1)
BY = program_principal("keeper")
WORDS = "xylophone"


@function_tool(needs_approval=True)
def note(text: str) -> str:
    """Write something down."""
    return f"noted {text}"


def _agent() -> Agent[Any]:
    from agents.testing import assistant_message

    def rule(items: list[Any]) -> Any:
        last = items[-1]
        said = next((i["content"] for i in reversed(items) if i.get("role") == "user"), "")
        if last.get("type") == "function_call_output":
            return [assistant_message(f"done: {said}")]
        if "fail" in str(said):
            raise ValueError(f"no {said}")
        if "quiet" in str(said):
            return [assistant_message(f"heard {said}")]
        return [call("note", f"c{len(items)}", text=str(said))]

    return Agent(name="clerk", model=RuleModel(rule), tools=[note])


async def _age(conn: Connection, run: Run, days: int) -> None:
    await conn.execute(
        "UPDATE perdure.runs SET finished_at = now() - make_interval(days => %s) WHERE id = %s",
        (days, run.id),
    )


async def _traces(conn: Connection, *words: str) -> dict[str, int]:
    """Rows of any table of ours or of DBOS's that hold one of the words, in bytes too."""
    cursor = await conn.execute(
        "SELECT n.nspname AS schema, c.relname AS name FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname IN ('perdure', 'dbos') AND c.relkind = 'r'"
    )
    found = {}
    for table in await cursor.fetchall():
        name = f"{table['schema']}.{table['name']}"
        hexed = [word.encode().hex() for word in words]
        row = await (
            await conn.execute(
                f"SELECT count(*) AS n FROM {name} t"
                " WHERE row_to_json(t)::text ILIKE ANY (%s)".encode(),
                ([f"%{one}%" for one in (*words, *hexed)],),
            )
        ).fetchone()
        assert row is not None
        if row["n"]:
            found[name] = row["n"]
    return found


async def _left(conn: Connection, run: Run) -> dict[str, int]:
    left = await (await read_kin(conn)).count(conn, [UUID(run.id)])
    return dict(left.rows)


async def _workflows(conn: Connection) -> set[str]:
    cursor = await conn.execute("SELECT workflow_uuid AS id FROM dbos.workflow_status")
    return {row["id"] for row in await cursor.fetchall()}


async def _ended_in_dbos(conn: Connection) -> None:
    async def look() -> bool:
        cursor = await conn.execute(
            "SELECT count(*) AS n FROM dbos.workflow_status WHERE status IN ('PENDING', 'ENQUEUED')"
        )
        [row] = await cursor.fetchall()
        return not row["n"]

    await eventually(look)


def _files(directory: Path) -> list[Path]:
    return list(directory.rglob("*.jsonl"))


async def _done(engine: Engine, said: str, **options: Any) -> Run:
    run = await rested(engine, "clerk", said, **options)
    return await approve(engine, run) if run.status == "interrupted" else run


async def test_what_ended_long_ago_goes_and_nothing_else(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, _agent()) as engine, await connect(database_url) as conn:
        old = await _done(engine, "old", budget={"total_tokens": 10**6})
        failed = await _done(engine, "fail")
        recent = await _done(engine, "recent")
        parked = await rested(engine, "clerk", "parked")
        needed = await _done(engine, "quiet needed")
        with_turn = await _done(engine, "quiet turn", session_key="s")
        for run in (old, failed, needed, with_turn):
            await _age(conn, run, 100)
        await _age(conn, recent, 80)
        # As a fork that has not ended, and a session that has not passed the turn on.
        await conn.execute(
            "UPDATE perdure.runs SET forked_from = %s, forked_seq = 0 WHERE id = %s",
            (needed.id, parked.id),
        )
        await conn.execute("UPDATE perdure.sessions SET active_run_id = %s", (with_turn.id,))
        await _ended_in_dbos(conn)
        before = {run.id: await _left(conn, run) for run in (old, failed, recent, parked)}
        # Each table a run has rows in by its foreign keys, and events by their head.
        assert {
            "runs",
            "segments",
            "run_states",
            "run_items",
            "model_responses",
            "tool_calls",
            "interruptions",
            "decisions",
            "run_events",
            "run_event_heads",
            "budgets",
            "budget_periods",
            "usage_metrics",
            "request_usage_entries",
        } <= set(before[old.id])

        ages = {"completed": 90 * DAY, "failed": 90 * DAY}
        looked = await prune(conn, database_url, ages, by=BY, dry_run=True)
        assert await _left(conn, old) == before[old.id]
        archive = Archive(tmp_path / "archive", compress=True)
        done = await prune(conn, database_url, ages, by=BY, archive=archive, batch=2)
        assert looked.as_dict() | {"archived": 2} == done.as_dict()
        assert done.runs == {"completed": 1, "failed": 1}
        assert done.kept == {"another_run_needs_it": 1, "has_the_turn_of_its_session": 1}
        assert done.left.rows["run_items"] == before[old.id]["run_items"] + before[failed.id].get(
            "run_items", 0
        )
        assert await _left(conn, old) == await _left(conn, failed) == {}
        assert await _left(conn, recent) == before[recent.id]
        assert await _left(conn, parked) == before[parked.id]
        workflows = await _workflows(conn)
        assert not {one for one in workflows if one.startswith((old.id, failed.id))}
        assert f"{recent.id}:1" in workflows
        assert await prune(conn, database_url, ages, by=BY) is not None
        # What is parked goes on, the audit is whole and says what was deleted.
        assert (await approve(engine, parked)).status == "completed"
        await seal_due(conn, [])
        verified = await verify(conn, tenant_id=DEFAULT_TENANT)
        assert verified.broken is None
        deleted = await query(
            engine, "SELECT run_id::text FROM perdure.audit_log WHERE kind = 'run.deleted'"
        )
        assert {row["run_id"] for row in deleted} == {old.id, failed.id}

        [file] = (tmp_path / "archive").rglob(f"{old.id}.jsonl.gz")
        assert verify_archive(file)["rows"].items() >= before[old.id].items()
        head, first, *_ = read_archive(file)
        assert head["run_id"] == old.id
        assert (first["table"], first["row"]["input"]) == ("runs", "old")
        states = [
            one["row"]["state"] for one in read_archive(file) if one.get("table") == "run_states"
        ]
        assert states
        assert all(state["$schemaVersion"] for state in states)
        said = perdure_json("archive", "verify", str(tmp_path))
        assert len(said["runs"]) == 2
        assert said["broken"] == []
        text = gzip.decompress(file.read_bytes()).replace(b'"old"', b'"new"')
        file.with_suffix("").write_bytes(text)
        with pytest.raises(InvalidRequestError, match="not what was written"):
            verify_archive(file.with_suffix(""))
        file.with_suffix("").write_bytes(text.rpartition(b'{"end"')[0])
        assert "cut off" in perdure("archive", "verify", str(tmp_path), code=1).stderr
        # Without an archive that can be written, nothing is deleted.
        (tmp_path / "file").touch()
        with pytest.raises(UnavailableError, match="not deleted"):
            await prune(
                conn, database_url, {"completed": DAY}, by=BY, archive=Archive(tmp_path / "file")
            )
        assert await _left(conn, recent) == before[recent.id]


async def test_a_death_between_archive_and_deletion_loses_nothing(
    database_url: str, tmp_path: Path
) -> None:
    async with running(database_url, _agent()) as engine, await connect(database_url) as conn:
        run = await _done(engine, "old")
        await _age(conn, run, 100)
        await _ended_in_dbos(conn)
    command = ("prune", "--archive", str(tmp_path), "--status", "completed")
    env = {"DATABASE_URL": database_url}
    async with await connect(database_url) as conn, await connect(database_url) as holder:
        left = await _left(conn, run)

        async def somebody_waits() -> bool:
            cursor = await conn.execute("SELECT count(*) AS n FROM pg_locks WHERE NOT granted")
            [row] = await cursor.fetchall()
            return bool(row["n"])

        async def killed_at(lock: str) -> None:
            async with holder.transaction():
                await holder.execute(lock.encode(), (f"{run.id}%",))
                process = await asyncio.to_thread(Process, *command, env=env)
                await eventually(somebody_waits)
                process.send(signal.SIGKILL)
                process.kill()

            # What the dead one had sent is given up with its connection.
            async def alone() -> bool:
                cursor = await conn.execute(
                    "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name IN ('perdure prune', 'dbos_transact_client')"
                )
                [row] = await cursor.fetchall()
                return not row["n"]

            await eventually(alone)

        await killed_at("SELECT FROM dbos.workflow_status WHERE workflow_uuid LIKE %s FOR UPDATE")
        [file] = _files(tmp_path)
        first = file.read_bytes()
        assert verify_archive(file)["rows"].items() >= left.items()
        assert await _left(conn, run) == left
        await killed_at("SELECT FROM perdure.segments WHERE run_id::text LIKE %s FOR UPDATE")
        assert await _left(conn, run) == left
        assert not await _workflows(conn)
        done = perdure_json(*command, env=env)
        assert (done["runs"], done["archived"]) == ({"completed": 1}, 1)
        assert file.read_bytes() == first
        assert await _left(conn, run) == {}


async def test_a_user_is_erased_without_a_trace(database_url: str, tmp_path: Path) -> None:
    who = "alice-4711/é"
    async with running(database_url, _agent()) as engine, await connect(database_url) as conn:
        words = f"{WORDS} words"
        old = await _done(engine, words, user_id=who, idempotency_key="k1", metadata={"who": who})
        await _ended_in_dbos(conn)
        await _age(conn, old, 100)
        await prune(conn, database_url, {"completed": 90 * DAY}, by=BY, archive=Archive(tmp_path))
        await _done(engine, words, user_id=who, idempotency_key=f"of {who}")
        talk = await rested(engine, "clerk", words, user_id=who, session_key="talk")
        [asked] = talk.interruptions
        await engine.decide(
            asked.id,
            "approve",
            digest=asked.digest,
            by=who,
            message=words,
            remember={"scope": "user", "until": 3600},
        )
        await talk.wait(15)
        bob = await rested(engine, "clerk", "bob's own", user_id="bob")
        [asked] = bob.interruptions
        await engine.decide(asked.id, "approve", digest=asked.digest, by=who, message=words)
        await bob.wait(15)
        await engine.start("clerk", "quiet bob", user_id="bob", by=who)
        await conn.execute(
            "INSERT INTO perdure.feedback (id, tenant_id, run_id, user_id, type, liked, comment)"
            " VALUES (gen_random_uuid(), %s, %s, %s, 'other', true, %s)",
            (DEFAULT_TENANT, bob.id, who, words),
        )
        await conn.execute(
            "INSERT INTO perdure.kept_states (id, tenant_id, user_id, key, agent, state_type,"
            " schema_version, sdk_version, current_agent, turn, state, size_bytes)"
            " VALUES (gen_random_uuid(), %s, %s, 'k', 'a', 'final', '1', '1', 'a', 1,"
            " to_jsonb(%s::text), 9)",
            (DEFAULT_TENANT, who, words),
        )
        await create_user_session(
            conn, NewUserSession(user_id=who, label=words), tenant_id=DEFAULT_TENANT, by=BY
        )
        await create_budget(
            conn,
            NewBudget("user", parse_limits({"total_tokens": 10**6}, "/"), subject=who, name=words),
            tenant_id=DEFAULT_TENANT,
            by=BY,
        )
        shared = await rested(
            engine, "clerk", f"quiet {words}", user_id=who, session_id=str(await _group(conn))
        )
        await rested(
            engine,
            "clerk",
            "quiet I heard them",
            user_id="bob",
            session_id=str(shared.data["session_id"]),
        )
        parked = await rested(engine, "clerk", f"other {words}", user_id=who)
        await _ended_in_dbos(conn)
        bobs = await _left(conn, bob)
        before = await _traces(conn, who, WORDS)
        assert len(before) > 15

        whose: dict[str, Any] = {"tenant_id": DEFAULT_TENANT, "user_id": who, "by": BY}
        with pytest.raises(ConflictError, match=rf"1 run\(s\) have not ended: {parked.id}"):
            await erase_user(conn, database_url, **whose)
        assert await cancel_runs_of(conn, **whose) == 1
        await _ended_in_dbos(conn)
        with pytest.raises(ConflictError, match="1 conversation"):
            await erase_user(conn, database_url, **whose)
        kept = await erase_user(conn, database_url, **whose, shared="keep", dry_run=True)
        looked = await erase_user(conn, database_url, **whose, shared="erase", dry_run=True)
        assert (await _traces(conn, who, WORDS)).items() >= {
            "perdure.runs": before["perdure.runs"]
        }.items()
        erased = await erase_user(conn, database_url, **whose, shared="erase")
        assert (kept.shared_sessions, kept.removed["sessions"]) == (1, 1)
        # Of the shared one: what was said in their run, not in bob's.
        assert erased.removed["runs"] - kept.removed["runs"] == 1
        assert erased.removed["session_items"] - kept.removed["session_items"] == 2
        assert looked.removed == erased.removed
        assert looked.changed == erased.changed
        assert erased.removed["sessions"] == 2
        assert erased.removed["feedback"] == erased.removed["budgets"] == 1
        assert erased.changed == {"decisions": 1, "run_events": 1, "runs": 1, "usage_daily": 1}
        assert erased.removed["kept_states"] == 1
        assert await _traces(conn, who, WORDS) == {}
        assert {**await _left(conn, bob), "feedback": 1} == bobs
        await seal_due(conn, [])
        assert (await verify(conn, tenant_id=DEFAULT_TENANT)).broken is None
        [file] = erase_archived(tmp_path, tenant_id=DEFAULT_TENANT, user_id=who)
        assert file.stem == old.id
        assert not _files(tmp_path)
        again = perdure_json("users", "erase", who, env={"DATABASE_URL": database_url})
        assert again["removed"] == again["changed"] == {}


async def _group(conn: Connection) -> UUID:
    id_ = uuid7()
    await conn.execute(
        "INSERT INTO perdure.sessions"
        " (id, tenant_id, group_id, root_session_id, created_by, updated_by)"
        " VALUES (%(id)s, %(tenant)s, 'team', %(id)s, '{}', '{}')",
        {"id": id_, "tenant": DEFAULT_TENANT},
    )
    return id_


async def test_events_are_in_months_and_go_with_them(database_url: str) -> None:
    async with running(database_url, _agent()) as engine, await connect(database_url) as conn:
        run = await _done(engine, "quiet one")
        other = await _done(engine, "quiet two")
        open_one = await rested(engine, "clerk", "open")

        async def where() -> dict[str, int]:
            cursor = await conn.execute(
                "SELECT tableoid::regclass::text AS part, count(*) AS n FROM perdure.run_events"
                " GROUP BY 1 ORDER BY 1"
            )
            return {row["part"]: row["n"] for row in await cursor.fetchall()}

        [(month, events)] = (await where()).items()
        cursor = await conn.execute("SELECT to_char(now(), '\"run_events_\"YYYY_MM') AS part")
        assert await cursor.fetchall() == [{"part": month}]
        # Its partition is missing: the rows go to the default one, and are moved when it is made.
        name = month
        await conn.execute(
            f"ALTER TABLE perdure.run_events DETACH PARTITION perdure.{month};"
            f"INSERT INTO perdure.run_events SELECT * FROM perdure.{month};"
            f"DROP TABLE perdure.{month}".encode()
        )
        assert await where() == {"run_events_default": events}
        made = await (await conn.execute("SELECT perdure.make_partitions() AS name")).fetchall()
        assert made == [{"name": name}]
        assert await where() == {month: events}
        assert not await (await conn.execute("SELECT perdure.make_partitions()")).fetchall()
        plan = await (
            await conn.execute(
                "EXPLAIN (COSTS OFF) SELECT FROM perdure.run_events WHERE run_id = %s",
                (run.id,),
            )
        ).fetchall()
        assert [
            one for row in plan for one in row.values() if "run_events" in one and name not in one
        ] == []

        # One by one while somebody is under way in the month, whole when all have ended.
        await _age(conn, run, 40)
        assert (await prune_events(conn, 30 * DAY, dry_run=True)).runs == 0
        assert await (await conn.execute("SELECT perdure.drop_events('0 days')")).fetchall() == []
        # A run of long ago: its month is gone with it.
        await conn.execute(
            "CREATE TABLE perdure.run_events_2020_01 PARTITION OF perdure.run_events FOR VALUES"
            " FROM ('016f5e66-e800-7000-8000-000000000000')"
            " TO ('016ffe0c-0c00-7000-8000-000000000000')"
        )
        assert list(await drop_empty_months(conn, dry_run=True)) == ["run_events_2020_01"]
        await _age(conn, other, 20)
        moved = [await _move_back(conn, run), await _move_back(conn, other)]
        assert await drop_empty_months(conn) == {}
        looked = await prune_events(conn, 30 * DAY, dry_run=True)
        done = await prune_events(conn, 30 * DAY)
        assert looked.as_dict() == done.as_dict()
        assert (done.months, done.runs) == ({}, 1)
        await conn.execute(
            "UPDATE perdure.runs SET finished_at = now() - interval '40 days' WHERE id = %s",
            (moved[1],),
        )
        assert list((await prune_events(conn, 30 * DAY)).months) == ["run_events_2020_01"]
        for one in moved:
            page = await read_events(conn, tenant_id=DEFAULT_TENANT, run_id=one)
            assert (page.events, page.over) == ([], True)
            assert page.last > 0
        page = await read_events(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(open_one.id))
        assert page.events
        assert not page.over

        # The same by the standing policy, one worker at a time.
        settings = _settings("completed=30d,events=1d")
        async with await connect(database_url) as holder:
            taken = "SELECT pg_advisory_lock(hashtextextended('perdure:retention', 0))"
            await holder.execute(taken)
            assert not await Retaining(database_url, settings).apply()
        await conn.execute(
            "UPDATE dbos.workflow_status SET completed_at = completed_at - 8 * 86400000::bigint"
            " WHERE status = 'SUCCESS'"
        )
        await _ended_in_dbos(conn)
        assert await Retaining(database_url, settings).apply()
        assert await query(engine, "SELECT id::text FROM perdure.runs") == [{"id": open_one.id}]
        assert await _workflows(conn) == set()


async def _move_back(conn: Connection, run: Run) -> UUID:
    """Let a run have begun in January 2020, as far as its events and itself go; its new id."""
    moved = f"016f5e66-e801{run.id[13:]}"
    async with conn.transaction():
        await conn.execute("SET LOCAL session_replication_role = replica")
        for table, column in (
            ("runs", "id"),
            ("segments", "run_id"),
            ("run_event_heads", "run_id"),
            ("run_events", "run_id"),
        ):
            await conn.execute(
                f"UPDATE perdure.{table} SET {column} = %s WHERE {column} = %s".encode(),
                (moved, run.id),
            )
    return UUID(moved)


def _settings(retention: str) -> Any:
    from perdure.config import Settings

    return Settings.from_env({"PERDURE_RETENTION": retention})


def test_a_policy_that_cannot_be_meant_is_refused() -> None:
    kept = parse_retention(" completed=90d, failed = 2w,events=36h")
    assert kept.runs == {"completed": 90 * DAY, "failed": 14 * DAY}
    assert kept.events == timedelta(hours=36)
    assert not parse_retention("")
    for wrong in ("running=1d", "completed", "completed=1y", "failed=1d,failed=2d", "events=-1d"):
        with pytest.raises(ConfigurationError, match="completed=90d"):
            parse_retention(wrong)
    assert "36h, 90d" in perdure("prune", "--older-than", "soon", code=2).stderr
    assert "running" in perdure("prune", "--status", "running", code=2).stderr


def test_ended_runs_are_found_by_an_index(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO perdure.runs"
            " (id, tenant_id, agent, current_agent, status, input, max_turns, finished_at)"
            " SELECT gen_random_uuid(), %s, 'a', 'a', 'completed', '\"x\"', 1,"
            " now() - make_interval(mins => n) FROM generate_series(1, 20000) n",
            (DEFAULT_TENANT,),
        )
        conn.execute("ANALYZE perdure.runs")
        from perdure.db import load_sql

        statement = load_sql("perdure.runs.keeping", "pruning.sql")["candidates"]
        params = {
            "status": "completed",
            "before": "2020-01-01",
            "after": "0001-01-01Z",
            "after_id": UUID(int=0),
            "tenant_id": None,
            "most": 100,
        }
        plan = "\n".join(row[0] for row in conn.execute(f"EXPLAIN {statement}".encode(), params))
    assert "runs_finished" in plan
    assert "Seq Scan" not in plan
