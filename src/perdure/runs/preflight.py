"""Loads the runs that have not ended under this build, and says what stands in the way of each.

Nothing is run and nothing is written: the database is read in transactions that may not write, so
many runs at a time. Of each run exactly what a worker would load is loaded, by the same code:
agent, context, model, state, and what people let run or are being asked to. A run that waits for
people is looked at as if they approved of everything.

Code of the application that says which tools an agent has is asked, and so are MCP servers, as
loading a state takes that.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
from agents import RunContextWrapper

from perdure import jsonsafe
from perdure.db import Connection, Pool, load_sql, open_pool, unreachable
from perdure.errors import ConfigurationError, InvalidRequestError, MigrationError
from perdure.ledger.journal import RecordedCall
from perdure.ledger.writer import Entry, LedgerWriter
from perdure.runs.approvals import Tampered, approvals_of
from perdure.runs.execution import Execution, current_execution
from perdure.runs.failures import classify
from perdure.runs.preflight_findings import Finding, LookedAt
from perdure.runs.questions import Questions
from perdure.runs.registry import Registry
from perdure.runs.rest import Question
from perdure.runs.restoring import AgentsMissing, ToolsMissing, load_state
from perdure.runs.segment import NOTHING, Begun, begun_from, read_latest
from perdure.runs.state import apply_decisions

_SQL = load_sql("perdure.runs", "preflight.sql")
_FETCH = 50
"""Runs of one transaction; their states are in memory one after the other."""
_FIRST = UUID(int=0)
_NOT_MIGRATED = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InvalidSchemaName,
)

_KEEP_AGENT = (
    "Deploy a build in which the agent has this name and the run's agent reaches it; or let runs "
    "of it end under the build before, or cancel them (perdure runs cancel ID)."
)
_KEEP_TOOL = (
    "Deploy a build in which the agent has the tool; or decide what waits and let it be carried "
    "out under the build before."
)
_KEEP_CONTEXT = (
    "Give new fields of the context type a default, and keep what it took before; or let runs with "
    "such a context end under the build before."
)
_KEEP_MODEL = (
    "Let the engine's provider know the model {}, or cancel the run and start another one."
)
_KEEP_STATE = (
    "Deploy a build whose agents and tools, and whose version of the Agents SDK, read the state; "
    "or let the run end under the build before."
)
_RESTORE = "Restore the row from a backup, or cancel the run and start another one."
_REACH_SERVERS = (
    "Connect the server before (await server.connect()), as where runs are run; or use "
    "`await engine.preflight()` in the program that does."
)
_DECIDE_FIRST = (
    "Nothing has to be done. To spare people the second question, let it be decided and carried "
    "out under the build before."
)
_ASKED_ANEW = "the model of whatever is there now is asked anew, and paid again."
_LET_IT_END = "Deploy a build that has the tool, or let the call end under the build before."
_NOTHING_TO_DO = "Nothing has to be done; list the task again if new runs may be for it."
_ASKED_AGAIN = {
    "schema_changed": "{} takes other arguments than was shown. Approved, it is asked about again.",
    "tool_removed": "This build does not have the tool {}. Approved, it is asked about again.",
}

Row = Mapping[str, Any]


class _NothingToWrite(LedgerWriter):
    """Stands where an execution has its ledger."""

    def __init__(self) -> None:
        super().__init__("")

    def submit(self, entry: Entry, *, urgent: bool = True) -> asyncio.Future[bool]:
        """Refuse: whoever only looks has nothing to record."""
        raise AssertionError(f"A preflight wrote {entry.get('kind')} of run {entry.get('run_id')}.")


async def look_pool(url: str) -> Pool:
    """Open a pool for ``look``, to be closed by the caller.

    Raises:
        ConfigurationError, UnavailableError: as ``perdure.db.open_pool``.
    """
    return await open_pool(url, 1, 1, application_name="perdure preflight")


async def look(registry: Registry, pool: Pool) -> AsyncIterator[LookedAt]:
    """Give each run that has not ended, the oldest first, as it is when its turn comes.

    Raises:
        MigrationError: the database lacks tables or columns of this build.
        UnavailableError: it stopped answering.
    """
    looker = _Looker(registry, pool)
    after = _FIRST
    while True:
        try:
            rows, looked_at = await looker.some(after)
        except _NOT_MIGRATED as error:
            raise MigrationError(
                f"The database does not fit this build: {error.diag.message_primary}. "
                "Run `perdure migrate`."
            ) from error
        except psycopg.OperationalError as error:
            raise unreachable(error) from error
        for one in looked_at:
            yield one
        if len(rows) < _FETCH:
            return
        after = rows[-1]["id"]


class _Looker:
    """Looks at some runs at a time."""

    def __init__(self, registry: Registry, pool: Pool) -> None:
        self._registry = registry
        self._pool = pool
        self._writer = _NothingToWrite()
        self._unlisted: dict[str, str] = {}
        """Agents whose MCP servers did not say what they offer, and what came instead."""

    async def some(self, after: UUID) -> tuple[Sequence[Row], list[LookedAt]]:
        """Look at the next ``_FETCH`` runs behind ``after``; returns their rows too."""
        # A transaction for some of them, so that a look at many holds up no vacuum.
        async with self._reading() as conn:
            cursor = await conn.execute(_SQL["unfinished"], {"after": after, "fetch": _FETCH})
            rows = await cursor.fetchall()
            return rows, [await self._look_at(conn, row) for row in rows]

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Connection]:
        async with self._pool.connection() as conn, conn.transaction():
            await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield conn

    async def _look_at(self, conn: Connection, row: Row) -> LookedAt:
        looked_at = LookedAt(row["id"], row["tenant_id"], row["status"], row["agent"])
        if row["cancel_requested"]:
            # Whoever takes it up ends it, and loads nothing.
            return looked_at
        loaded: Row = NOTHING
        if row["segment"] > 1 or row["epoch"] > 0 or row["forked_seq"] is not None:
            loaded = await read_latest(conn, row["id"])
        begun = begun_from(row, loaded, [], inputs_waiting=row["inputs_waiting"])
        if begun.state is not None:
            key = {"run_id": row["id"], "base_seq": loaded["base_seq"]}
            cursor = await conn.execute(_SQL["asked"], key)
            [asked] = await cursor.fetchall()
            begun = replace(begun, decisions=begun.decisions + jsonsafe.loads(asked["asked"]))
        # As in the driver: code of the application finds no context of ours but its own run's.
        task = asyncio.create_task(self._judge(row, begun), context=contextvars.Context())
        found = await task
        if isinstance(found, Finding):
            return replace(looked_at, problem=found)
        return replace(looked_at, notices=tuple(found))

    async def _judge(self, row: Row, begun: Begun) -> Finding | list[Finding]:
        """Return why the run cannot be resumed, or what would be otherwise if it is."""
        registry, agent = self._registry, begun.agent
        try:
            starting = registry.agent(agent)
        except ConfigurationError as error:
            return Finding("agent_removed", str(error), _KEEP_AGENT, agent)
        try:
            context = registry.load_context(begun.context)
        except ConfigurationError as error:
            return Finding("context_rejected", str(error), _KEEP_CONTEXT, agent)
        try:
            registry.check_model(begun.model)
        except InvalidRequestError as error:
            return Finding("model_unknown", str(error), _KEEP_MODEL.format(begun.model), agent)
        execution = self._execution(row, begun)
        current_execution.set(execution)
        questions = Questions(registry, execution, context)
        notices = [*self._of_the_task(row), *self._of_the_journal(begun, questions)]
        if begun.state is None:
            return notices
        unlisted = await self._unlisted_by(row, context)
        if unlisted is not None:
            return unlisted
        try:
            root = registry.every_agent if begun.forked else starting
            state = await load_state(begun.state, root, context)
            again = await questions.no_longer_as_shown(state)
            apply_decisions(state, begun.decisions)
        except AgentsMissing as error:
            return Finding("agent_removed", str(error), _KEEP_AGENT, error.names[0])
        except ToolsMissing as error:
            lost = row["current_agent"], error.names[0]
            return Finding("tool_removed", str(error), _KEEP_TOOL, *lost)
        except Tampered as error:
            return Finding("tampered", str(error), _RESTORE, row["current_agent"])
        except Exception as error:  # noqa: BLE001 - what a state is restored by is anybody's code
            _, why = classify(error, ())
            return Finding("state_rejected", why, _KEEP_STATE, row["current_agent"])
        return notices + [_asked_again(one) for one in again]

    def _execution(self, row: Row, begun: Begun) -> Execution:
        execution = Execution(
            run_id=row["id"],
            tenant_id=begun.tenant_id,
            segment=row["segment"],
            epoch=begun.epoch,
            writer=self._writer,
            pool=self._pool,
            default_effect=self._registry.default_effect,
            asks_first=begun.asks_first,
            only_looks=True,
            journal=begun.journal,
            mcp_lists=begun.mcp_lists,
        )
        execution.approvals = approvals_of(begun.decisions)
        return execution

    async def _unlisted_by(self, row: Row, context: Any) -> Finding | None:
        """Return that the MCP servers of the agent whose turn it is do not say what they offer."""
        name = row["current_agent"]
        agent = self._registry.agents.get(name)
        if agent is None or not agent.mcp_servers:
            return None
        if name not in self._unlisted:
            try:
                await agent.get_mcp_tools(RunContextWrapper(context))
                return None
            except Exception as error:  # noqa: BLE001 - whatever a server, or a filter, does
                # Remembered: a server that is away would be waited for once for every run.
                _, self._unlisted[name] = classify(error, ())
        why = f"An MCP server of {name!r} does not say which tools it has: {self._unlisted[name]}"
        return Finding("mcp_unavailable", why, _REACH_SERVERS, name)

    def _of_the_task(self, row: Row) -> list[Finding]:
        tasks = self._registry.tasks
        if tasks is None or row["task"] is None or row["task"] in tasks:
            return []
        why = f"The engine has no task {row['task']!r} any more. The run goes on under that name."
        return [Finding("task_unknown", why, _NOTHING_TO_DO, row["agent"])]

    def _of_the_journal(self, begun: Begun, questions: Questions) -> list[Finding]:
        """Return what an execution that takes the run over now would do otherwise."""
        journal = begun.journal
        known = {call.id for call in journal.doubts()}
        notices = [
            Finding(
                "effect_doubtful",
                f"A call of {call.tool} was begun, and this build has no such tool. Taken over, "
                "the run stops and asks whether it happened.",
                _LET_IT_END,
                call.agent,
                call.tool,
            )
            for call in questions.in_doubt()
            if call.id not in known
        ]
        notices += [
            Finding(
                "tool_removed",
                f"It is asked what became of a call of {call.tool}, which this build does not "
                "have. Told that it was not done, the model is told that the tool is gone.",
                _DECIDE_FIRST,
                call.agent,
                call.tool,
            )
            for call in journal.calls.values()
            if call.status == "uncertain" and _has_tools(call) and questions.is_gone(call)
        ]
        lost = {reply.id for reply in questions.lost_with_agents()}
        return notices + [
            Finding(
                "replies_unmatched",
                f"A reply of {reply.agent!r} is recorded that no state has yet, and this build has "
                "no such agent. Taken over, "
                + ("the run stops and asks about its calls." if reply.id in lost else _ASKED_ANEW),
                _KEEP_AGENT,
                reply.agent,
            )
            for reply in journal.unmatchable(self._registry.agents)
        ]


def _asked_again(question: Question) -> Finding:
    tool = str((question.tool or {}).get("name"))
    return Finding(
        "tool_removed" if question.reason == "tool_removed" else "schema_changed",
        _ASKED_AGAIN[question.reason or ""].format(tool),
        _DECIDE_FIRST,
        question.agent,
        tool,
    )


def _has_tools(call: RecordedCall) -> bool:
    return call.kind in ("function", "agent")
