"""What a run asks of the database, counted by the server: statements, transactions, commits.

The server logs every statement it executes (``log_statement = all``), BEGIN and COMMIT among them.
A statement outside of those is a transaction by itself, unless it is empty, as the pings of pools
are. Each transaction that writes takes the next transaction id, so the ids taken say how many
commits had to reach the disk. Only the contestant is at work meanwhile; what its process does when
idle is counted first and taken off. Counts do not depend on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

from benchmarks.contestants import SHOWN
from benchmarks.plan import Plan
from benchmarks.process import Child, spawned
from benchmarks.report import Figure, at_most
from benchmarks.server import Server
from perdure.db import connect

NAME = "statements"
TITLE = "Statements and commits, counted"

_EXECUTED = re.compile(
    r"^\d{4}-[^\[\n]*\[(?P<pid>\d+)\] LOG:  (?:statement|execute [^:]*): *(?P<first>\w*)",
    re.MULTILINE,
)
_BEGIN = frozenset({"begin", "start"})
_END = frozenset({"commit", "rollback"})
_WITHIN = frozenset({"savepoint", "release"})
_IDLE_SECONDS = 10.0
_RUNS = 5


@dataclass(frozen=True)
class Count:
    """What the server did, a run or a second.

    ``brackets`` are those of the ``statements`` that only begin or end a transaction;
    ``transactions`` read or write; ``commits`` had something to write.
    """

    statements: float
    brackets: float
    transactions: float
    commits: float

    def __sub__(self, other: Count) -> Count:
        return Count(
            self.statements - other.statements,
            self.brackets - other.brackets,
            self.transactions - other.transactions,
            self.commits - other.commits,
        )

    def times(self, factor: float) -> Count:
        """Return the count multiplied."""
        return Count(
            self.statements * factor,
            self.brackets * factor,
            self.transactions * factor,
            self.commits * factor,
        )


def count_log(text: str) -> tuple[int, int, int]:
    """Return how many statements a server's log names, brackets among them, and transactions.

    Lines begin with the default prefix: the time and, in square brackets, the process.
    """
    statements = brackets = transactions = 0
    within: set[str] = set()
    for match in _EXECUTED.finditer(text):
        pid, first = match["pid"], match["first"].lower()
        statements += 1
        brackets += first in _BEGIN | _END | _WITHIN
        if first in _BEGIN:
            within.add(pid)
        elif first in _END:
            # ROLLBACK TO a savepoint does not end it; nobody here rolls back to one.
            within.discard(pid)
            transactions += 1
        elif first and pid not in within:
            transactions += 1
    return statements, brackets, transactions


async def measure(server: Server, plan: Plan) -> list[Figure]:
    """Return the counts of Perdure and of dbos-openai-agents."""
    figures = []
    for name in ("perdure", "dbos"):
        url = await server.database_of(name)
        async with await connect(url) as conn:
            await conn.execute(
                "DO $$ BEGIN EXECUTE format("
                "'ALTER DATABASE %I SET log_statement = ''all''', current_database()); END $$"
            )
        async with spawned(name, url) as child:
            await child.ask(op="runs", turns=20, bytes=plan.tool_bytes, at_once=2)
            idle = await _idle(server)
            counts = {
                turns: await _per_run(server, child, turns, plan.tool_bytes, idle)
                for turns in (20, 100)
            }
        figures += _figures(name, counts)
    return figures


# A look takes an id itself; its connection's statements are not logged.
_LOOKING = Count(0, 0, 0, 1)


async def _now(server: Server) -> Count:
    cursor = await server.conn.execute("SELECT pg_current_xact_id()::text::bigint AS id")
    row = await cursor.fetchone()
    log = (server.home / "postgres.log").read_text(errors="replace")
    return Count(*count_log(log), row["id"])


async def _idle(server: Server) -> Count:
    """Return what happens in a second in which nobody asks for anything."""
    await asyncio.sleep(1)
    before = await _now(server)
    await asyncio.sleep(_IDLE_SECONDS)
    spent = await _now(server) - before - _LOOKING
    return spent.times(1 / _IDLE_SECONDS)


async def _per_run(server: Server, child: Child, turns: int, tool_bytes: int, idle: Count) -> Count:
    began, before = time.monotonic(), await _now(server)
    for _ in range(_RUNS):
        await child.ask(op="runs", turns=turns, bytes=tool_bytes)
    # A run's end is told before the last of its bookkeeping is done.
    await asyncio.sleep(0.5)
    spent = await _now(server) - before - _LOOKING
    return (spent - idle.times(time.monotonic() - began)).times(1 / _RUNS)


def _figures(name: str, counts: dict[int, Count]) -> list[Figure]:
    label, ours = SHOWN[name], name == "perdure"
    figures = []
    for turns, count in counts.items():
        figures += [
            Figure(
                TITLE,
                f"{label}: statements a turn, run of {turns} turns",
                count.statements / turns,
                "",
                at_most(4) if ours else None,
                f"{count.statements:.0f} a run, {count.brackets:.0f} of them BEGIN, COMMIT …",
            ),
            Figure(
                TITLE,
                f"{label}: transactions a turn, run of {turns} turns",
                count.transactions / turns,
                "",
                at_most(2) if ours else None,
                f"{count.transactions:.0f} a run, {count.commits:.0f} of them had to write",
            ),
        ]
    more = (counts[100] - counts[20]).times(1 / 80)
    figures.append(
        Figure(
            TITLE,
            f"{label}: statements of one turn more",
            more.statements,
            "",
            at_most(4) if ours else None,
            f"transactions likewise {more.transactions:.2f}, {more.commits:.2f} of them writing",
        )
    )
    return figures
