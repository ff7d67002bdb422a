"""Runs as rows: started, read, listed, deleted. Always within one tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from perdure import jsonsafe
from perdure.audit.erasing import forget_runs
from perdure.audit.log import Actor, Entry, record
from perdure.budgets.limits import Limits
from perdure.db import Connection, first_id, load_sql, uuid7
from perdure.errors import InvalidRequestError, InvalidStateError, NotFoundError
from perdure.notify import DUE
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.runs.enqueue import ENQUEUE_QUEUED
from perdure.runs.traces.run import accepted
from perdure.runs.views import run_object

_SQL = load_sql("perdure.runs", "store.sql")
_START = f"{_SQL['start_run']}\n{ENQUEUE_QUEUED}"
_GET = f"{_SQL['select_runs']}\n{_SQL['one_run']}"
_LIST = f"{_SQL['select_runs']}\n{_SQL['page_of_runs']}"
_DELETE = _SQL["delete_run"]

Tools = Literal["run", "ask"]
TOOLS: tuple[str, ...] = ("run", "ask", "ledger")
MAX_MODEL = 255
MAX_DELAY_SECONDS = 366 * 24 * 3600
_MAX_INT = 2**31 - 1
_CLOCKS = timedelta(days=1)
"""How far the clock of whoever starts a run may be from the database's for a list to hold it."""

UNDER_WAY = frozenset({"queued", "running"})
"""Statuses in which a run needs nobody: it moves on by itself."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to start. ``input`` is text or a list of Responses input items.

    ``context`` is JSON, as ``Registry.check_start`` gives it back. Of two waiting runs the one
    with the lower ``priority`` is taken first. ``delay_seconds`` counts on the database's clock.
    """

    tenant_id: UUID
    agent: str
    input: str | list[dict[str, Any]]
    max_turns: int
    context: Any = None
    user_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    task: str | None = None
    """What it is for, as ``Registry.check_task`` allows it."""
    priority: int = 0
    delay_seconds: float | None = None
    session_id: UUID | None = None
    """The session it belongs to, of this tenant; see in_session.py."""
    started_by: dict[str, str | None] | None = None
    """Who starts it: ``type``, ``id``, ``subject``. Policies may keep them from deciding on it."""
    model: str | None = None
    """The model all its agents are run with, by a name the engine's provider knows."""
    tools: Literal["run", "ask", "ledger"] = "run"
    """``ask``: a person is asked before each call that is not of the effect ``read``. ``ledger``,
    of a fork: but for those that are answered with what came of them in the other run."""
    replays_seq: int | None = None
    """The number of the first message it replays; see replay.py."""
    budget: Limits | None = None
    """The most it may spend before a person is asked."""

    def __post_init__(self) -> None:
        """Check what a program may have got wrong.

        Raises:
            InvalidRequestError: naming the field.
        """
        if not 0 < self.max_turns <= _MAX_INT:
            raise InvalidRequestError.at("/max_turns", "has to be at least 1.")
        if not 0 <= self.priority <= _MAX_INT:
            raise InvalidRequestError.at("/priority", "has to be 0 (first) or more.")
        if self.model is not None and not 1 <= len(self.model) <= MAX_MODEL:
            raise InvalidRequestError.at("/model", f"has to have 1 to {MAX_MODEL} characters.")
        if self.tools not in TOOLS:
            raise InvalidRequestError.at("/tools", f"has to be one of {', '.join(TOOLS)}.")
        if self.delay_seconds is not None and not 0 <= self.delay_seconds <= MAX_DELAY_SECONDS:
            raise InvalidRequestError.at(
                "/delay_seconds", f"has to be from 0 to {MAX_DELAY_SECONDS} (a year)."
            )
        for name in ("input", "metadata"):
            try:
                jsonsafe.dumps(getattr(self, name))
            except (TypeError, ValueError, RecursionError) as error:
                raise InvalidRequestError.at(f"/{name}", f"is no JSON: {error}") from error


@asynccontextmanager
async def joining(conn: AsyncConnection[Any]) -> AsyncIterator[None]:
    """Make the block one transaction, or part of the one ``conn`` is in.

    A connection that is not in autocommit begins one that is left to its owner to commit.
    """
    if not conn.autocommit and conn.info.transaction_status == TransactionStatus.IDLE:
        # transaction() would commit what it begins itself; the owner has not committed yet.
        await conn.execute("SELECT 1")
    async with conn.transaction():
        yield


async def start_run(conn: AsyncConnection[Any], run: NewRun) -> UUID:
    """Insert a run with its first segment and enqueue it, all in one statement; return its id.

    It is part of the transaction ``conn`` is in, if any. A delayed run is not enqueued: a worker
    does when it is due.
    """
    run_id = uuid7()
    await conn.execute(
        _START,
        {
            "id": run_id,
            "tenant_id": run.tenant_id,
            "agent": run.agent,
            "input": jsonsafe.dumps(run.input),
            "context": None if run.context is None else jsonsafe.dumps(run.context),
            "user_id": run.user_id,
            "metadata": jsonsafe.dumps(run.metadata),
            "max_turns": run.max_turns,
            "priority": run.priority,
            "delay_seconds": run.delay_seconds or None,
            "started_by": None if run.started_by is None else jsonsafe.dumps(run.started_by),
            "session_id": run.session_id,
            "model": run.model,
            "tools": run.tools,
            "replays_seq": run.replays_seq,
            "task": run.task,
            "budget_id": None if run.budget is None else uuid7(),
            "budget_usd": None if run.budget is None else run.budget.cost_usd,
            "budget_tokens": None if run.budget is None else run.budget.total_tokens,
        },
    )
    if run.delay_seconds:
        # Who enqueues what is due sleeps until the next it knows of, a few seconds at most.
        await conn.execute("SELECT pg_notify(%s, '')", (DUE,))
    accepted(run_id, run.agent)
    return run_id


async def get_run(conn: Connection, *, tenant_id: UUID, run_id: UUID) -> dict[str, Any]:
    """Return a run as the API shows it, with usage and pending interruptions, in one query.

    Raises:
        NotFoundError: the tenant has no such run.
    """
    run = await _read(conn, tenant_id, run_id, but=())
    assert run is not None  # noqa: S101 - no status is left out
    return run


async def run_at_rest(conn: Connection, *, tenant_id: UUID, run_id: UUID) -> dict[str, Any] | None:
    """Return a run as ``get_run`` does once it rests, interrupted or finished; None before.

    Raises:
        NotFoundError: the tenant has no such run.
    """
    return await _read(conn, tenant_id, run_id, but=UNDER_WAY)


async def _read(
    conn: Connection, tenant_id: UUID, run_id: UUID, *, but: Iterable[str]
) -> dict[str, Any] | None:
    cursor = await conn.execute(_GET, {"tenant_id": tenant_id, "id": run_id, "but": list(but)})
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError("run", run_id)
    return None if row["run"] is None else run_object(jsonsafe.loads(row["run"]))


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs a list shall hold; None filters nothing. Moments are aware and exclusive."""

    status: str | None = None
    agent: str | None = None
    user_id: str | None = None
    session_id: UUID | None = None
    task: str | None = None
    forked_from: UUID | None = None
    metadata: dict[str, Any] | None = None
    """What its metadata has to hold, among other things: ``{"ticket": "T-1"}``; not empty."""
    created_after: datetime | None = None
    created_before: datetime | None = None


async def list_runs(
    conn: Connection, *, tenant_id: UUID, only: RunFilter, page: PageRequest
) -> Page:
    """Return a page of runs as the API shows them, by age, in one query."""
    cursor = await conn.execute(
        in_order(_LIST, page.order),
        {
            "tenant_id": tenant_id,
            "but": [],
            "status": only.status,
            "agent": only.agent,
            "user_id": only.user_id,
            "session_id": only.session_id,
            "task": only.task,
            "forked_from": only.forked_from,
            "metadata": None if only.metadata is None else jsonsafe.dumps(only.metadata),
            "created_after": only.created_after,
            "created_before": only.created_before,
            # Ids rise with time, but for the clocks of those who give them: so a period is a part
            # of the index, and what is older or newer than that is not looked at.
            "first_id": only.created_after and first_id(only.created_after, later=-_CLOCKS),
            "last_id": only.created_before and first_id(only.created_before, later=_CLOCKS),
            **page.params(),
        },
    )
    rows = await cursor.fetchall()
    return page_of([run_object(jsonsafe.loads(row["run"])) for row in rows], page)


async def delete_run(
    conn: Connection, *, tenant_id: UUID, run_id: UUID, by: Actor | None = None
) -> None:
    """Delete a finished run and every row that belongs to it.

    Its DBOS workflows are finished rows that retention removes in its time. The audit keeps who
    did what on it, and by whom (``by``) it was deleted, not what that was about.

    Raises:
        NotFoundError: the tenant has no such run.
        InvalidStateError: the run has not finished.
    """
    async with conn.transaction():
        await forget_runs(conn, [run_id])
        # Before it is gone: the audit takes from it whom it was for.
        await record(conn, Entry("run.deleted", tenant_id, ("run", run_id), by, run_id))
        cursor = await conn.execute(_DELETE, {"tenant_id": tenant_id, "id": run_id})
        row = await cursor.fetchone()
        if row is None:
            raise NotFoundError("run", run_id)
        if row["status"] in UNDER_WAY or row["status"] == "interrupted":
            raise InvalidStateError(
                "Run", run_id, status=row["status"], action="deleted", hint="Cancel it first."
            )
