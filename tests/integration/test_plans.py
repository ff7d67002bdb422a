"""What is asked often reads no table that grows from end to end, with 50,000 runs in it.

Every statement of the product is planned, the way that fits it: those that say all they look for
without their values, as a prepared statement that is used for long; those with filters that may be
left out with values, as often as psycopg's prepared statement lets Postgres change its mind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from benchmarks.filling import fill
from perdure.db import connect, first_id
from tests.conftest import Server
from tests.plans import plan, prepare, reads_whole, statements

RUNS = 50_000
TENANT = "00000000-0000-7000-8000-000000000000"
NOW = datetime.now(UTC)
RECENT = {"since": NOW - timedelta(hours=6), "until": NOW}
TYPES = {"since": "timestamptz", "lease": "float8", "silence": "float8"}

WHOLE = {
    "perdure.audit.verify._UNSEALED": "an audit is verified whole",
    "perdure.runs.keeping.people": "a person who is erased is looked for everywhere",
    "perdure.web.metrics.spent": "sums of all time; a scrape is kept 50 times as long as it took",
    "perdure.sessions.exporting._SESSIONS": "an export is of all there is",
    "perdure.sessions.importing._ADD_ITEMS": "a batch of an import looks for many sessions at once",
}
"""Statements, or modules of such, that read a table whole, and why they may."""

ALWAYS_ANEW = {"perdure.sessions.search._EVERYWHERE"}
"""Statements that are not kept prepared: they are planned for their values each time."""

Values = dict[str, Any]


@pytest.fixture(scope="module")
def conn(server: Server, template: str) -> Iterator[psycopg.Connection[Any]]:
    """A database of 50,000 runs nobody writes to."""
    url = server.create(template=template)

    async def filled() -> None:
        async with await connect(url, application_name="filling") as conn:
            await fill(conn, RUNS, whole=4)
            await conn.execute("ANALYZE")

    asyncio.run(filled())
    # What psycopg prepares by itself would be in the way.
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as conn:
        yield conn
    server.drop(url)


@pytest.fixture(scope="module")
def sizes(conn: psycopg.Connection[Any]) -> dict[str, float]:
    """The rows of each table that grows."""
    found = conn.execute(
        "SELECT relname, reltuples FROM pg_class WHERE relkind = 'r' AND reltuples > 1000"
        " AND relnamespace IN ('perdure'::regnamespace, 'dbos'::regnamespace)"
    )
    return dict(found.fetchall())


@pytest.fixture(scope="module")
def filters(conn: psycopg.Connection[Any]) -> dict[str, tuple[Values, list[Values]]]:
    """Statements with filters that may be left out: what is always given, and what else may be."""
    [found] = conn.execute(
        "SELECT jsonb_build_object('run_id', id, 'session_id', session_id, 'user_id', user_id,"
        " 'agent', agent) FROM perdure.runs WHERE session_id IS NOT NULL AND user_id IS NOT NULL"
        " AND tenant_id = %s ORDER BY id OFFSET 5000 LIMIT 1",
        (TENANT,),
    ).fetchall()
    some, old = found[0], NOW - timedelta(days=45)
    page: Values = {"tenant_id": TENANT, "fetch": 21}
    runs: list[Values] = [
        {},
        {"status": "interrupted"},
        {"status": "completed", "agent": some["agent"]},
        {"agent": some["agent"]},
        {"user_id": some["user_id"]},
        {"session_id": some["session_id"]},
        {"task": "task1"},
        {"forked_from": some["run_id"]},
        {"metadata": '{"ticket": "T-77"}'},
        {"created_after": old, "first_id": first_id(old)},
        {"created_before": old, "last_id": first_id(old)},
        {"after": some["run_id"]},
    ]
    sessions: list[Values] = [{}, {"user_id": some["user_id"]}, {"tags": '["a"]'}]
    return {
        "perdure.runs.store._LIST": ({**page, "but": []}, runs),
        "perdure.interruptions.queries._LIST": (
            {**page, "status": "pending"},
            [{}, {"status": "approved"}, {"run_id": some["run_id"]}, {"type": "uncertain_effect"}],
        ),
        "perdure.audit.queries._LIST": (
            page,
            [{}, {"run_id": some["run_id"]}, {"kind": "run.started"}, {"actor": "key"}],
        ),
        "perdure.feedback.store._SUMMARY": (
            {**page, **RECENT, "group_by": ["agent"], "most": 100},
            [{}],
        ),
        "perdure.sessions.store._PAGE": (page, sessions),
        "perdure.sessions.store._COUNT": (page, sessions[1:]),
        "perdure.sessions.search._EVERYWHERE": (
            {**page, "language": "english", "q": "word77", "most": 1000},
            [{}, {"user_id": some["user_id"]}, {"q": "everywhere"}],
        ),
        "perdure.events.windows._WINDOW": (
            {**page, "above": "100000000", "under_way": []},
            [{}, {"agent": some["agent"]}, {"kinds": ["run.failed"]}],
        ),
        "perdure.webhooks.deliveries.page": (
            {**page, "webhook_id": "01930000-0000-7000-8000-000000000000"},
            [{}, {"status": "failed"}],
        ),
    }


QUESTIONS = {
    "active runs of an agent": """
        SELECT r.*, a.name AS agent_name FROM runs r JOIN agents a ON r.agent_id = a.id
         WHERE r.agent_id = '{agent_id}' AND r.status IN ('running', 'interrupted')
         ORDER BY r.started_at DESC""",
    "the state a run goes on from": """
        SELECT state_data FROM run_states WHERE run_id = '{run_id}' AND is_active = true""",
    "active runs": "SELECT * FROM active_runs WHERE tenant_id = '{tenant_id}'",
    "waiting for people": "SELECT * FROM waiting_for_people WHERE tenant_id = '{tenant_id}'",
    "uncertain effects": "SELECT * FROM uncertain_effects WHERE tenant_id = '{tenant_id}'",
    "a run": "SELECT * FROM runs WHERE id = '{run_id}'",
    "its items": "SELECT * FROM run_items WHERE run_id = '{run_id}'",
    "its calls": "SELECT * FROM tool_calls WHERE run_id = '{run_id}'",
    "its cost": "SELECT * FROM usage_metrics WHERE run_id = '{run_id}'",
    "runs of a day": "SELECT * FROM agent_runs_between(now() - interval '1 day', now())",
    "waits of a day": "SELECT * FROM people_waits_between(now() - interval '1 day', now())",
    "tools of a day": "SELECT * FROM tool_times_between(now() - interval '1 day', now())",
}
"""What a person asks the views of perdure_read."""


def test_no_statement_reads_a_table_that_grows_from_end_to_end(
    conn: psycopg.Connection[Any],
    sizes: dict[str, float],
    filters: dict[str, tuple[Values, list[Values]]],
) -> None:
    slow, known = [], statements()
    conn.execute("SET plan_cache_mode = force_generic_plan")
    for where, text in known.items():
        if where not in filters:
            slow += [
                (where, found)
                for found in reads_whole(plan(conn, prepare(conn, text, TYPES), {}), sizes)
            ]
    conn.execute("SET plan_cache_mode = auto")
    for where, (always, others) in filters.items():
        for values in others:
            parameters = prepare(conn, known[where], TYPES)
            for _ in range(1 if where in ALWAYS_ANEW else 7):
                top = plan(conn, parameters, always | values)
            slow += [(f"{where} {values}", found) for found in reads_whole(top, sizes)]
    found = {where if where in WHOLE else where.rpartition(".")[0]: where for where, _ in slow}
    assert set(found) == set(WHOLE), "\n".join(f"{where}: {what}" for where, what in slow)


def test_no_question_about_little_reads_a_table_that_grows_from_end_to_end(
    conn: psycopg.Connection[Any], sizes: dict[str, float]
) -> None:
    [some] = conn.execute(
        "SELECT jsonb_build_object('run_id', id, 'tenant_id', tenant_id, 'agent_id', agent_id)"
        " FROM perdure.runs ORDER BY id OFFSET 40000 LIMIT 1"
    ).fetchone() or [{}]
    slow = []
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL search_path = perdure_read")
        for what, question in QUESTIONS.items():
            parameters = prepare(conn, question.format(**some), {})
            slow += [(what, found) for found in reads_whole(plan(conn, parameters, {}), sizes)]
    assert slow == []


def test_neither_does_what_a_deletion_takes_with_it(
    conn: psycopg.Connection[Any], sizes: dict[str, float]
) -> None:
    """Counted: triggers, functions and what foreign keys do are in no plan."""
    runs = (
        "SELECT id FROM perdure.runs WHERE status = 'completed' AND session_id IS NOT NULL"
        " ORDER BY id OFFSET {} LIMIT 20"
    )
    with conn.transaction(force_rollback=True):
        before = _whole_reads(conn)
        conn.execute(f"DELETE FROM perdure.runs WHERE id IN ({runs.format(20000)})")
        conn.execute(
            "UPDATE perdure.runs SET status = 'running', finished_at = NULL"
            " WHERE id = (SELECT id FROM perdure.runs WHERE status = 'queued' LIMIT 1)"
        )
        conn.execute(
            "SELECT perdure.add_event(id, 'run.started', '{}'), perdure.usage_of(id),"
            f" perdure.end_streams(id, 'x', true) FROM ({runs.format(30000)}) r"
        )
        conn.execute(
            "DELETE FROM perdure.sessions WHERE id = (SELECT id FROM perdure.sessions s"
            " WHERE parent_session_id IS NULL AND NOT EXISTS (SELECT FROM perdure.sessions b"
            " WHERE b.parent_session_id = s.id) ORDER BY id OFFSET 5000 LIMIT 1)"
        )
        after = _whole_reads(conn)
    read = {table for table in sizes if after[table] > before[table]}
    assert read == set()


def _whole_reads(conn: psycopg.Connection[Any]) -> dict[str, int]:
    found = conn.execute("SELECT relname, seq_scan FROM pg_stat_xact_user_tables")
    return dict(found.fetchall())
