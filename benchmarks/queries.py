"""What people ask, with 50,000 runs in the database and with a million: how long, by which plan.

The rows are made by SQL (filling.py): runs of 90 days with all that belongs to them. Each question
is asked again and again with other values, as the API, a person in SQL or a worker asks it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from benchmarks.filling import fill, settle
from benchmarks.plan import Plan
from benchmarks.report import Figure, percentile, shown
from benchmarks.server import Server
from perdure.access.principals import DEFAULT_TENANT
from perdure.db import connection_options, load_sql
from perdure.interruptions.queries import InterruptionFilter, list_interruptions
from perdure.ledger.usage import Wanted, usage_of_period
from perdure.paging import PageRequest
from perdure.runs.records import list_records
from perdure.runs.store import RunFilter, delete_run, get_run, list_runs
from perdure.sessions.search import SearchFilter, search_items

NAME = "queries"

_ROUNDS = 40
_ROUNDS_OF_VIEWS = 7
_SMALL = 50_000
_WHOLE = 4
_OF: dict[str, Any] = {"tenant_id": DEFAULT_TENANT}
_SCRAPE = load_sql("perdure.web", "metrics.sql")["scrape"]
_SOME_SQL = """
SELECT id, tenant_id, user_id, agent, agent_id, session_id, created_at
FROM perdure.runs
WHERE id >= perdure_read.id_at(%(at)s) AND tenant_id = %(tenant_id)s
  AND status = 'completed' AND session_id IS NOT NULL AND user_id IS NOT NULL
ORDER BY id LIMIT 1"""
_QUESTIONS_OF_SQL = {
    "SQL: active runs of an agent": """
        SELECT r.*, a.name AS agent_name
        FROM perdure_read.runs r JOIN perdure_read.agents a ON r.agent_id = a.id
        WHERE r.agent_id = %(agent_id)s AND r.status IN ('running', 'interrupted')
        ORDER BY r.started_at DESC""",
    "SQL: the state of a run": """
        SELECT state_data FROM perdure_read.run_states
        WHERE run_id = %(id)s AND is_active = true""",
    "SQL: usage of 7 days by agent": """
        SELECT a.name, sum(um.input_tokens), sum(um.output_tokens), sum(um.estimated_cost)
        FROM perdure_read.usage_metrics um
        JOIN perdure_read.runs r ON um.run_id = r.id
        JOIN perdure_read.agents a ON r.agent_id = a.id
        WHERE r.started_at >= now() - interval '7 days'
        GROUP BY a.id, a.name""",
    "SQL: waiting_for_people": """
        SELECT * FROM perdure_read.waiting_for_people
        WHERE tenant_id = %(tenant_id)s ORDER BY requested_at LIMIT 100""",
    "SQL: uncertain_effects": """
        SELECT * FROM perdure_read.uncertain_effects WHERE tenant_id = %(tenant_id)s""",
    "SQL: agent_runs of a day": """
        SELECT * FROM perdure_read.agent_runs_between(now() - interval '1 day', now())""",
    "SQL: agent_runs (30 days)": "SELECT * FROM perdure_read.agent_runs",
    "SQL: tool_times (30 days)": "SELECT * FROM perdure_read.tool_times",
    "SQL: people_waits (30 days)": "SELECT * FROM perdure_read.people_waits",
}


class _Watched(AsyncConnection[dict[str, Any]]):
    """A connection that remembers what it was asked last, to explain it."""

    asked: tuple[Any, Any] | None = None

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        self.asked = (query, params)
        return await super().execute(query, params, **options)


Question = Callable[[_Watched, dict[str, Any]], Awaitable[Any]]


def _runs(**only: str) -> Question:
    """Return the question for the newest runs; ``only``: the filter, and whose value it takes."""

    async def ask(conn: _Watched, some: dict[str, Any]) -> None:
        values = {name: some.get(value, value) for name, value in only.items()}
        await list_runs(conn, **_OF, only=RunFilter(**values), page=PageRequest())

    return ask


async def _one(conn: _Watched, some: dict[str, Any]) -> None:
    await get_run(conn, **_OF, run_id=some["id"])


async def _items(conn: _Watched, some: dict[str, Any]) -> None:
    await list_records(conn, "items", **_OF, run_id=some["id"], page=PageRequest())


async def _calls(conn: _Watched, some: dict[str, Any]) -> None:
    await list_records(conn, "tool_calls", **_OF, run_id=some["id"], page=PageRequest())


async def _inbox(conn: _Watched, some: dict[str, Any]) -> None:
    await list_interruptions(conn, **_OF, only=InterruptionFilter(), page=PageRequest())


async def _search(conn: _Watched, some: dict[str, Any]) -> None:
    word = f"word{some['id'].int % 5000}"
    await search_items(conn, **_OF, q=word, only=SearchFilter(), page=PageRequest())


async def _usage(conn: _Watched, some: dict[str, Any]) -> None:
    await usage_of_period(conn, **_OF, wanted=Wanted(group_by=("agent",)))


async def _scrape(conn: _Watched, some: dict[str, Any]) -> None:
    await (await conn.execute(_SCRAPE)).fetchall()


async def _deletion(conn: _Watched, some: dict[str, Any]) -> None:
    async with conn.transaction(force_rollback=True):
        await delete_run(conn, **_OF, run_id=some["id"])


QUESTIONS: dict[str, Question] = {
    "API: the newest runs": _runs(),
    "API: the newest that wait": _runs(status="interrupted"),
    "API: of a status and an agent": _runs(status="failed", agent="agent"),
    "API: of a user": _runs(user_id="user_id"),
    "API: of a session": _runs(session_id="session_id"),
    "API: by metadata": _runs(metadata="metadata"),
    "API: of before a moment": _runs(created_before="created_at"),
    "API: a run": _one,
    "API: its items": _items,
    "API: its tool calls": _calls,
    "API: the inbox": _inbox,
    "API: a search": _search,
    "API: usage of 30 days by agent": _usage,
    "API: /metrics": _scrape,
    "API: delete a run (and roll back)": _deletion,
}


class _Answers:
    """Times in milliseconds and the plan, by question; ``seconds`` to make the rows."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.took: dict[str, list[float]] = {}
        self.plans: dict[str, str] = {}


async def measure(server: Server, plan: Plan) -> list[Figure]:
    """Return how long each question takes, of few runs and of many."""
    few = await _asked(server, _SMALL)
    many = await _asked(server, plan.filled_runs)
    title = f"questions of {plan.filled_runs:,} runs"
    filling = Figure(
        title, "to fill it", many.seconds, "s", None, f"{_SMALL:,}: {few.seconds:.0f} s"
    )
    return [filling, *(_figure(title, name, few, many) for name in many.took)]


def _figure(title: str, name: str, few: _Answers, many: _Answers) -> Figure:
    took, less = many.took[name], few.took[name]
    note = (
        f"p95 {shown(percentile(took, 0.95))}; of {_SMALL:,}: {shown(median(less))}"
        f" (x {shown(median(took) / median(less))}); {many.plans[name]}"
    )
    return Figure(title, name, median(took), "ms", None, note)


async def _asked(server: Server, runs: int) -> _Answers:
    url = await server.database(migrated=True)
    options = connection_options(url, "benchmark")
    answers = _Answers()
    async with await _Watched.connect(
        url, autocommit=True, row_factory=dict_row, prepare_threshold=0, **options
    ) as conn:
        began = time.perf_counter()
        await fill(conn, runs, whole=_WHOLE)
        await settle(conn)
        answers.seconds = time.perf_counter() - began
        some = await _some(conn, runs)
        for name, ask in QUESTIONS.items():
            await _ask(conn, answers, name, ask, some, _ROUNDS)
        for name, question in _QUESTIONS_OF_SQL.items():
            await _ask(conn, answers, name, _sql(question), some, _ROUNDS_OF_VIEWS)
    return answers


def _sql(question: str) -> Question:
    async def ask(conn: _Watched, some: dict[str, Any]) -> None:
        await (await conn.execute(question, some, prepare=False)).fetchall()

    return ask


async def _ask(
    conn: _Watched,
    answers: _Answers,
    name: str,
    ask: Question,
    some: list[dict[str, Any]],
    rounds: int,
) -> None:
    took = []
    for values in some[: rounds + 1]:
        began = time.perf_counter()
        await ask(conn, values)
        took.append((time.perf_counter() - began) * 1000)
    # The first time fills caches and makes plans.
    answers.took[name] = took[1:]
    answers.plans[name] = await _plan(conn)


async def _plan(conn: _Watched) -> str:
    """Return how the last statement goes about it: its root, and what it reads first."""
    assert conn.asked is not None
    query, params = conn.asked
    cursor = await conn.execute(f"EXPLAIN (FORMAT JSON) {query}", params, prepare=False)
    [row] = await cursor.fetchall()
    top = row["QUERY PLAN"][0]["Plan"]
    reads = next((node for node in _nodes(top) if "Relation Name" in node), {})
    index = next((node["Index Name"] for node in _nodes(reads) if "Index Name" in node), None)
    what = f"{reads.get('Node Type', '')} {index or reads.get('Relation Name', '')}".strip()
    return f"{top['Node Type']} < {what}"


def _nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    below = [one for child in node.get("Plans", ()) for one in _nodes(child)]
    return [node, *below] if node else []


async def _some(conn: _Watched, runs: int) -> list[dict[str, Any]]:
    """Return runs to ask about, from all of the 90 days, finished and with all their rows."""
    chance = random.Random(1)
    found: list[dict[str, Any]] = []
    while len(found) <= _ROUNDS:
        at = datetime.now(UTC) - timedelta(days=chance.uniform(2, 88))
        cursor = await conn.execute(_SOME_SQL, {"at": at, **_OF})
        found += await cursor.fetchall()
    return [{**row, "metadata": {"ticket": f"T-{chance.randrange(runs // 50)}"}} for row in found]
