"""Items of a session read, with those of its ancestors up to the fork, in one query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import InvalidRequestError, NotFoundError
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.sessions.views import item_object

__all__ = [
    "LAST",
    "Moment",
    "Said",
    "Stored",
    "get_item",
    "list_items",
    "messages",
    "moment",
    "newest",
]

_SQL = load_sql("perdure.sessions", "reading.sql")
CHAIN = _SQL["chain"]
_NEWEST = f"{CHAIN}\n{_SQL['newest']}"
_PAGE = f"{CHAIN}\n{_SQL['page']}"
_ONE = f"{CHAIN}\n{_SQL['one']}"
_MESSAGES = f"{CHAIN}\n{_SQL['messages']}"
_NUMBER = f"{CHAIN}\n{_SQL['number']}"
_MOMENT = _SQL["moment"]


@dataclass(frozen=True, slots=True)
class Moment:
    """How a session was: its last number and its version then."""

    seq: int
    version: int


LAST = Moment(2**31 - 2, 2**31 - 1)
"""How it is now."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An item as it was given, and where it stands."""

    id: UUID
    seq: int
    item: Any


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a user; ``goes_on``: it is part of what was said just before it."""

    seq: int
    item: Any
    goes_on: bool


async def moment(
    conn: Connection, *, tenant_id: UUID, session_id: UUID, user_id: str | None = None
) -> Moment:
    """Return how a session is now, to be read so later.

    Raises:
        NotFoundError: there is no such session.
    """
    params = {"tenant_id": tenant_id, "session_id": session_id, "user_id": user_id}
    row = await (await conn.execute(_MOMENT, params)).fetchone()
    if row is None:
        raise NotFoundError("session", session_id)
    return Moment(row["last_seq"], row["version"])


async def newest(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    limit: int | None = None,
    at: Moment = LAST,
    user_id: str | None = None,
) -> list[Stored]:
    """Return the newest ``limit`` items (None: all), the oldest of them first.

    ``at``: as the session was then, as long as nothing that was removed since is deleted.

    Raises:
        NotFoundError: there is no such session.
    """
    params = {**chain_params(tenant_id, session_id, user_id, at), "limit": limit}
    rows = await (await conn.execute(_NEWEST, params)).fetchall()
    if not rows:
        raise NotFoundError("session", session_id)
    return [
        Stored(row["id"], row["seq"], jsonsafe.loads(row["item"]))
        for row in rows
        if row["id"] is not None
    ]


async def messages(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    from_seq: int,
    to_seq: int,
    limit: int,
    user_id: str | None = None,
) -> list[Said]:
    """Return the first ``limit`` messages of users with numbers in a range, ends included."""
    params = chain_params(tenant_id, session_id, user_id)
    cursor = await conn.execute(
        _MESSAGES, {**params, "from_seq": from_seq, "to_seq": to_seq, "limit": limit}
    )
    return [
        Said(row["seq"], jsonsafe.loads(row["item"]), row["goes_on"])
        for row in await cursor.fetchall()
    ]


async def list_items(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    page: PageRequest,
    user_id: str | None = None,
) -> Page:
    """Return a page of items as the API shows them, by number. The session has to be there.

    Raises:
        InvalidRequestError: the page goes on after what is no item of it.
    """
    params = chain_params(tenant_id, session_id, user_id)
    beyond = None
    if page.after is not None:
        cursor = await conn.execute(_NUMBER, {**params, "item_id": page.after})
        row = await cursor.fetchone()
        if row is None:
            raise InvalidRequestError.at("/query/after", "is no item of this session.")
        beyond = row["seq"]
    cursor = await conn.execute(
        in_order(_PAGE, page.order), {**params, **page.params(), "beyond": beyond}
    )
    rows = await cursor.fetchall()
    return page_of([item_object(jsonsafe.loads(row["shown"])) for row in rows], page)


async def get_item(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    item_id: UUID,
    user_id: str | None = None,
) -> dict[str, Any]:
    """Return one item as the API shows it.

    Raises:
        NotFoundError: there is no such session, or it has no such item.
    """
    params = {**chain_params(tenant_id, session_id, user_id), "item_id": item_id}
    row = await (await conn.execute(_ONE, params)).fetchone()
    if row is None:
        raise NotFoundError("item", item_id)
    return item_object(jsonsafe.loads(row["shown"]))


def chain_params(
    tenant_id: UUID, session_id: UUID, user_id: str | None, at: Moment = LAST
) -> dict[str, Any]:
    """Return the parameters of ``CHAIN``."""
    return {
        "tenant_id": tenant_id,
        "session_id": session_id,
        "user_id": user_id,
        "upto": at.seq,
        "version": at.version,
    }
