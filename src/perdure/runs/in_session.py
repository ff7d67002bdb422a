"""Runs started in sessions: one after the other.

A session has at most one run under way, from its start to its end, the time it waits for people
included; those that come meanwhile wait in order (``sessions.active_run_id``). A trigger gives the
turn back with the run's end, whoever ends it, and the next one is enqueued by who enqueues what is
due (worker/due.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

import psycopg

from perdure.access.principals import Principal
from perdure.db import Connection, load_sql
from perdure.errors import InvalidRequestError, InvalidStateError, NotFoundError
from perdure.runs import resume
from perdure.runs.inputs import add_input
from perdure.runs.store import NewRun, start_run
from perdure.sessions.store import SessionFields, find_or_make

_SQL = load_sql("perdure.runs", "in_session.sql")

WhenBusy = Literal["queue", "reject", "cancel_previous", "steer"]
WHEN_BUSY: tuple[WhenBusy, ...] = ("queue", "reject", "cancel_previous", "steer")


@dataclass(frozen=True, slots=True)
class InSession:
    """Which session a run is started in, by id or by key, and what if another run has the turn.

    ``queue``: it waits. ``reject``: it is refused. ``cancel_previous``: what has not ended is
    cancelled. ``steer``: its input becomes a message to the run that has the turn.
    """

    id: UUID | None = None
    key: str | None = None
    when_busy: WhenBusy = "queue"

    def __post_init__(self) -> None:
        """Check what a program may have got wrong.

        Raises:
            InvalidRequestError: naming the field.
        """
        if (self.id is None) == (self.key is None):
            raise InvalidRequestError.at("/session_key", "goes without session_id: give one.")
        if self.when_busy not in WHEN_BUSY:
            raise InvalidRequestError.at("/when_busy", f"has to be one of {', '.join(WHEN_BUSY)}.")


async def start_in_session(
    conn: Connection, run: NewRun, session: InSession, by: Principal
) -> UUID:
    """Start a run in a session, or steer the one under way; returns the id of that run.

    Part of the transaction ``conn`` is in.

    Raises:
        NotFoundError: there is no such session, or it is another user's.
        InvalidStateError: another run has the turn (``reject``).
        InvalidRequestError: the run is to start later, or the input cannot be a message.
    """
    if run.delay_seconds:
        raise InvalidRequestError.at(
            "/delay_seconds", "cannot be in a session: its runs are in order."
        )
    session_id = await _resolve(conn, run, session, by)
    match session.when_busy:
        case "reject":
            cursor = await conn.execute(_SQL["lock"], {"session_id": session_id})
            [row] = await cursor.fetchall()
            if row["active_run_id"] is not None:
                raise InvalidStateError(
                    "Session",
                    session_id,
                    status="busy",
                    action="given another run",
                    hint=f"Run {row['active_run_id']} is under way.",
                )
        case "cancel_previous":
            for other in await (
                await conn.execute(_SQL["unfinished"], {"session_id": session_id})
            ).fetchall():
                try:
                    await resume.cancel(conn, tenant_id=run.tenant_id, run_id=other["id"], by=by)
                except InvalidStateError:
                    continue
        case "steer":
            steered = await _steer(conn, run, session_id, by)
            if steered is not None:
                return steered
    try:
        return await start_run(conn, replace(run, session_id=session_id))
    except psycopg.errors.ForeignKeyViolation:
        # Erased in this moment.
        raise NotFoundError("session", session_id) from None


async def _resolve(conn: Connection, run: NewRun, session: InSession, by: Principal) -> UUID:
    if session.key is not None:
        fields = SessionFields(key=session.key, user_id=run.user_id)
        found, _ = await find_or_make(conn, tenant_id=run.tenant_id, fields=fields, by=by)
        session_id = UUID(found["id"])
    else:
        assert session.id is not None  # noqa: S101 - one of the two is given
        session_id = session.id
    cursor = await conn.execute(
        _SQL["find"], {"session_id": session_id, "tenant_id": run.tenant_id}
    )
    row = await cursor.fetchone()
    if row is None or (run.user_id is not None and row["user_id"] not in (None, run.user_id)):
        raise NotFoundError("session", session_id)
    return session_id


async def _steer(conn: Connection, run: NewRun, session_id: UUID, by: Principal) -> UUID | None:
    cursor = await conn.execute(
        _SQL["find"], {"session_id": session_id, "tenant_id": run.tenant_id}
    )
    row = await cursor.fetchone()
    active = None if row is None else row["active_run_id"]
    if active is None:
        return None
    try:
        async with conn.transaction():
            await add_input(conn, tenant_id=run.tenant_id, run_id=active, input=run.input, by=by)
    except InvalidStateError:
        # It ends just now: this one is next.
        return None
    return UUID(str(active))
