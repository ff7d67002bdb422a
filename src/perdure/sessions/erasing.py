"""Sessions deleted, so that nobody sees them, or erased for good.

A deleted session stays for its branches, which go on reading it. What is erased is gone with all
its items, so that a session with living branches is not erased unless they are meant too.
"""

from __future__ import annotations

from uuid import UUID

import psycopg

from perdure import jsonsafe
from perdure.audit.log import Actor, Entry, kept_of, record
from perdure.db import Connection, load_sql
from perdure.errors import ConflictError, NotFoundError

__all__ = ["delete_session", "erase_session"]

_SQL = load_sql("perdure.sessions", "store.sql")
_DELETE = _SQL["delete"]
_LOCK = _SQL["lock_for_erasure"]
_DESCENDANTS = _SQL["descendants"]
_ERASE = _SQL["erase"]
_TIDY_PARENT = _SQL["tidy_parent"]


async def delete_session(
    conn: Connection, *, tenant_id: UUID, session_id: UUID, by: Actor, user_id: str | None = None
) -> None:
    """Let a session be seen no more. Its key is free again, its branches are as they were.

    Raises:
        NotFoundError: there is no such session.
    """
    async with conn.transaction():
        params = {"tenant_id": tenant_id, "id": session_id, "user_id": user_id}
        cursor = await conn.execute(_DELETE, {**params, "by": jsonsafe.dumps(kept_of(by))})
        row = await cursor.fetchone()
        if row is None:
            raise NotFoundError("session", session_id)
        entry = Entry(
            *("session.deleted", tenant_id, ("session", session_id)),
            by=by,
            concerns=row["user_id"],
        )
        await record(conn, entry)


async def erase_session(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    by: Actor,
    user_id: str | None = None,
    cascade: bool = False,
    runs: int = 0,
) -> int:
    """Erase a session, deleted before or not, with its items; returns how many sessions went.

    Branches of it that were deleted go too, and with ``cascade`` those that were not. ``runs`` of
    it the caller has erased in the same transaction: the audit says how many.

    Raises:
        ConflictError: it has branches that live, or one was made just now.
        NotFoundError: there is no such session.
    """
    params = {"tenant_id": tenant_id, "id": session_id, "user_id": user_id}
    try:
        async with conn.transaction():
            session = await (await conn.execute(_LOCK, params)).fetchone()
            if session is None:
                raise NotFoundError("session", session_id)
            [below] = await (await conn.execute(_DESCENDANTS, params)).fetchall()
            if below["living"] and not cascade:
                raise ConflictError(
                    f"Session {session_id} has {below['living']} branch(es) that read its items. "
                    "Erase them first, or all together with cascade=true; to have it seen no "
                    "more, delete it without hard."
                )
            ids = [session_id, *(below["ids"] or ())]
            [erased] = await (await conn.execute(_ERASE, {"ids": ids})).fetchall()
            if session["parent_session_id"] is not None:
                await conn.execute(_TIDY_PARENT, {"parent": session["parent_session_id"]})
            entry = Entry(
                *("session.erased", tenant_id, ("session", session_id)),
                by=by,
                concerns=session["user_id"],
                details={"sessions": len(ids), "items": erased["items"], "runs": runs},
            )
            await record(conn, entry)
    except psycopg.errors.ForeignKeyViolation:
        raise ConflictError(
            f"Session {session_id} was branched while it was erased. Nothing was; try again."
        ) from None
    return len(ids)
