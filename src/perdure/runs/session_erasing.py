"""Conversations erased for good, with the runs that belong to them.

What was said is with the runs as well: in their input, items, states and events. One that is under
way is not erased under its worker.
"""

from __future__ import annotations

from uuid import UUID

from perdure.audit.erasing import forget_runs
from perdure.audit.log import Actor, Entry, record
from perdure.db import Connection, load_sql
from perdure.errors import ConflictError
from perdure.sessions.erasing import erase_session

_SQL = load_sql("perdure.runs", "session_erasing.sql")
_HOLD_RUNS = f"{_SQL['tree']}\n{_SQL['hold_runs']}"
_HOLD_SESSIONS = f"{_SQL['tree']}\n{_SQL['hold_sessions']}"

_ENDED = frozenset({"completed", "failed", "cancelled"})


async def erase_conversation(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    by: Actor,
    user_id: str | None = None,
    cascade: bool = False,
) -> None:
    """Erase a session, deleted before or not, with its items and its runs and all these left.

    Branches of it that were deleted go too, and with ``cascade`` those that were not. In one
    transaction. Runs are held before their sessions, as everywhere.

    Raises:
        ConflictError: a run of them has not ended, it has branches that live, or a run or branch
            was made just now. Nothing has changed.
        NotFoundError: there is no such session.
    """
    params = {"session_id": session_id, "tenant_id": tenant_id, "user_id": user_id}
    async with conn.transaction():
        runs = await (await conn.execute(_HOLD_RUNS, params)).fetchall()
        for run in runs:
            if run["status"] not in _ENDED:
                raise ConflictError(
                    f"Run {run['id']} of session {run['session_id']} is {run['status']}: it still "
                    "reads and writes there. Cancel it or let it end, then erase the session."
                )
        ids = [run["id"] for run in runs]
        held = await (await conn.execute(_HOLD_SESSIONS, params)).fetchall()
        found = {"sessions": [one["id"] for one in held], "runs": ids}
        [others] = await (await conn.execute(_SQL["others"], found)).fetchall()
        if others["found"]:
            raise ConflictError(
                f"A run was started in session {session_id} while it was erased. Nothing was; try "
                "again when it has ended."
            )
        if ids:
            await forget_runs(conn, ids)
            entries = [Entry("run.deleted", tenant_id, ("run", one), by, one) for one in ids]
            await record(conn, *entries)
            await conn.execute(_SQL["delete_runs"], {"runs": ids})
        await erase_session(
            conn,
            tenant_id=tenant_id,
            session_id=session_id,
            by=by,
            user_id=user_id,
            cascade=cascade,
            runs=len(ids),
        )
