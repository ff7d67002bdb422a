"""Branches: sessions that go on from an item of another, and the trees they make.

A branch is a row that names its parent, the last number it reads there, and the parent's version
then. Its own items go on from that number, so that numbers only rise from the root to the branch.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import Actor, kept_of
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import ConflictError, InvalidRequestError, NotFoundError
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.sessions.rules import MAX_DEPTH, check_title
from perdure.sessions.store import get_session
from perdure.sessions.views import session_object

__all__ = ["branch_session", "hold", "list_tree"]

_SQL = load_sql("perdure.sessions", "branching.sql")
_LOCK_PARENT = _SQL["lock_parent"]
_FORK = _SQL["fork"]
_TREE = _SQL["tree"]


async def hold(
    conn: Connection, *, tenant_id: UUID, session_id: UUID, user_id: str | None = None
) -> dict[str, Any]:
    """Hold a session to the end of the transaction; returns last_seq, depth and user_id of it.

    Nothing is added to it or removed from it meanwhile.

    Raises:
        NotFoundError: there is no such session.
    """
    cursor = await conn.execute(
        _LOCK_PARENT, {"tenant_id": tenant_id, "parent": session_id, "user_id": user_id}
    )
    held = await cursor.fetchone()
    if held is None:
        raise NotFoundError("session", session_id)
    return held


async def branch_session(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    by: Actor,
    from_seq: int | None = None,
    title: str | None = None,
    system_prompt: str | None = None,
    user_id: str | None = None,
) -> dict[str, Any]:
    """Make a branch that reads the session up to the number ``from_seq`` and return it.

    None: up to its last. 0: nothing of it. Title and system prompt are the session's where none
    is given; user, group, tags and metadata are.

    Raises:
        InvalidRequestError: there is no such number yet, or it is negative.
        ConflictError: the session is as deep in its tree as one can be.
        NotFoundError: there is no such session.
    """
    check_title(title)
    async with conn.transaction():
        parent = await hold(conn, tenant_id=tenant_id, session_id=session_id, user_id=user_id)
        if from_seq is not None and not 0 <= from_seq <= parent["last_seq"]:
            raise InvalidRequestError.at(
                "/from_seq", f"has to be between 0 and {parent['last_seq']}, the last number."
            )
        if parent["depth"] >= MAX_DEPTH:
            raise ConflictError(
                f"Session {session_id} is {MAX_DEPTH} branches deep, which is as deep as it goes. "
                "Branch one of its ancestors."
            )
        cursor = await conn.execute(
            _FORK,
            {
                "id": uuid7(),
                "parent": session_id,
                "from_seq": parent["last_seq"] if from_seq is None else from_seq,
                "title": None if title is None else jsonsafe.protect_text(title),
                "system_prompt": (
                    None if system_prompt is None else jsonsafe.protect_text(system_prompt)
                ),
                "by": jsonsafe.dumps(kept_of(by)),
            },
        )
        [row] = await cursor.fetchall()
    return session_object(jsonsafe.loads(row["shown"]))


async def list_tree(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    page: PageRequest,
    user_id: str | None = None,
) -> Page:
    """Return a page of the whole tree a session stands in, by age: a root before its branches.

    Deleted ones are left out; what branches off them is not.

    Raises:
        NotFoundError: there is no such session.
    """
    session = await get_session(conn, tenant_id=tenant_id, session_id=session_id, user_id=user_id)
    cursor = await conn.execute(
        in_order(_TREE, page.order),
        {
            "tenant_id": tenant_id,
            "root": session["root_session_id"],
            "user_id": user_id,
            **page.params(),
        },
    )
    rows = await cursor.fetchall()
    return page_of([session_object(jsonsafe.loads(row["shown"])) for row in rows], page)
