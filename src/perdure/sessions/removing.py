"""Items removed from a session: popped, cleared, replaced, one by one.

Each under a lock on the session's row, which appends and forks take too: what is removed is what
was there. A branch never changes its ancestors, nor a session what its branches read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import Actor, Entry, kept_of, record
from perdure.db import Connection, load_sql
from perdure.errors import NotFoundError
from perdure.sessions.items import append
from perdure.sessions.reading import CHAIN, Stored, chain_params, newest
from perdure.sessions.rules import NewItem

__all__ = ["clear", "pop", "remove_item", "replace", "replace_newest"]

_SQL = load_sql("perdure.sessions", "removing.sql")
_LOCK = _SQL["lock"]
_SOME = f"{CHAIN}{_SQL['remove_some']}"
_ALL = _SQL["remove_all"]


async def pop(
    conn: Connection, *, tenant_id: UUID, session_id: UUID, by: Actor, user_id: str | None = None
) -> Stored | None:
    """Remove the newest item and return it; None where there is none.

    Raises:
        NotFoundError: there is no such session.
    """
    async with conn.transaction():
        await _lock(conn, tenant_id, session_id, user_id)
        gone = await _some(conn, tenant_id, session_id, by, limit=1)
    return gone[0] if gone else None


async def remove_item(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    item_id: UUID,
    by: Actor,
    user_id: str | None = None,
) -> None:
    """Remove one item, wherever it stands. The audit says so.

    Raises:
        NotFoundError: there is no such session, or it has no such item.
    """
    async with conn.transaction():
        whose = await _lock(conn, tenant_id, session_id, user_id)
        if not await _some(conn, tenant_id, session_id, by, limit=1, item_id=item_id):
            raise NotFoundError("item", item_id)
        entry = Entry(
            *("session.item_removed", tenant_id, ("session", session_id)),
            by=by,
            concerns=whose,
            details={"item_id": str(item_id)},
        )
        await record(conn, entry)


async def clear(
    conn: Connection, *, tenant_id: UUID, session_id: UUID, by: Actor, user_id: str | None = None
) -> None:
    """Remove all items; the session stays.

    Raises:
        NotFoundError: there is no such session.
    """
    async with conn.transaction():
        await _lock(conn, tenant_id, session_id, user_id)
        await conn.execute(_ALL, {"session_id": session_id, "by": jsonsafe.dumps(kept_of(by))})


async def replace(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    items: Sequence[NewItem],
    by: Actor,
    user_id: str | None = None,
) -> list[dict[str, Any]]:
    """Put ``items`` in the place of all there are; returns them as the API shows them.

    The audit says so.

    Raises:
        InvalidRequestError: an item is no JSON, or has a role that is none. Nothing has changed.
        NotFoundError: there is no such session.
    """
    async with conn.transaction():
        whose = await _lock(conn, tenant_id, session_id, user_id)
        await clear(conn, tenant_id=tenant_id, session_id=session_id, by=by)
        entry = Entry(
            *("session.items_replaced", tenant_id, ("session", session_id)),
            by=by,
            concerns=whose,
            details={"items": len(items)},
        )
        await record(conn, entry)
        return await append(conn, tenant_id=tenant_id, session_id=session_id, items=items, by=by)


async def replace_newest(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    expected: Sequence[UUID],
    items: Sequence[NewItem],
    by: Actor,
    user_id: str | None = None,
) -> bool:
    """Put ``items`` in the place of the newest, if these still are the ``expected`` ones.

    Returns False, and changes nothing, if not.

    Raises:
        NotFoundError: there is no such session.
    """
    async with conn.transaction():
        await _lock(conn, tenant_id, session_id, user_id)
        there = await newest(conn, tenant_id=tenant_id, session_id=session_id, limit=len(expected))
        if [one.id for one in there] != list(expected):
            return False
        await _some(conn, tenant_id, session_id, by, limit=len(expected))
        await append(conn, tenant_id=tenant_id, session_id=session_id, items=items, by=by)
    return True


async def _lock(
    conn: Connection, tenant_id: UUID, session_id: UUID, user_id: str | None
) -> str | None:
    """Hold the session's row; returns whose it is."""
    params = {"tenant_id": tenant_id, "session_id": session_id, "user_id": user_id}
    row = await (await conn.execute(_LOCK, params)).fetchone()
    if row is None:
        raise NotFoundError("session", session_id)
    whose: str | None = row["user_id"]
    return whose


async def _some(
    conn: Connection,
    tenant_id: UUID,
    session_id: UUID,
    by: Actor,
    *,
    limit: int,
    item_id: UUID | None = None,
) -> list[Stored]:
    cursor = await conn.execute(
        _SOME,
        {
            **chain_params(tenant_id, session_id, None),
            "limit": limit,
            "item_id": item_id,
            "by": jsonsafe.dumps(kept_of(by)),
        },
    )
    return [
        Stored(row["id"], row["seq"], jsonsafe.loads(row["item"]))
        for row in await cursor.fetchall()
    ]
