"""Sessions: found or made, read, listed, changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import Actor, kept_of
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import InvalidRequestError, NotFoundError
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.sessions.rules import Status, check_name, check_tags, check_title
from perdure.sessions.views import session_object

__all__ = [
    "MATCHING",
    "SessionFields",
    "SessionFilter",
    "change_session",
    "count_sessions",
    "find_or_make",
    "get_session",
    "list_sessions",
    "session_with_key",
]

_SQL = load_sql("perdure.sessions", "store.sql")
_SELECT = _SQL["select_sessions"]
_ONE = f"{_SELECT}\n{_SQL['one']}"
_WITH_KEY = f"{_SELECT}\n{_SQL['with_key']}"
MATCHING = _SQL["matching"]
_PAGE = f"{_SELECT}\n{MATCHING}\n{_SQL['page']}"
_COUNT = f"{_SQL['count']}\n{MATCHING}"
_MAKE = _SQL["make"]
_CHANGE = _SQL["change"]

_CHANGEABLE = frozenset(
    {"title", "system_prompt", "group_id", "rating", "status", "tags", "metadata"}
)


@dataclass(frozen=True, slots=True)
class SessionFields:
    """What is said of a session that is made.

    ``key``: the caller's own name for it, one living session per user and key. ``user_id``: whose
    it is; None is nobody's.
    """

    key: str | None = None
    user_id: str | None = None
    group_id: str | None = None
    title: str | None = None
    system_prompt: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    status: Status = "active"
    rating: int | None = None


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions a list shall hold; None filters nothing. ``tags``: all of them."""

    user_id: str | None = None
    group_id: str | None = None
    status: Status | None = None
    parent: UUID | None = None
    tags: Sequence[str] = ()

    def params(self) -> dict[str, Any]:
        """Return the statement's parameters."""
        return {
            "user_id": self.user_id,
            "group_id": self.group_id,
            "status": self.status,
            "parent": self.parent,
            "tags": jsonsafe.dumps(list(self.tags)) if self.tags else None,
        }


async def find_or_make(
    conn: Connection, *, tenant_id: UUID, fields: SessionFields, by: Actor
) -> tuple[dict[str, Any], bool]:
    """Return a session as the API shows it, and whether it was made now.

    With a key the living one of this user and key is found, as it is, whatever else ``fields``
    say; of two who come at once one makes it and both get it.

    Raises:
        InvalidRequestError: a field cannot be so.
    """
    params = _checked(fields, tenant_id, by)
    while True:
        if fields.key is not None:
            found = await session_with_key(
                conn, tenant_id=tenant_id, key=fields.key, user_id=fields.user_id
            )
            if found is not None:
                return found, False
        made = await (await conn.execute(_MAKE, {**params, "id": uuid7()})).fetchone()
        if made is not None:
            return session_object(jsonsafe.loads(made["shown"])), True
        # Somebody made it meanwhile: it is found, unless they have deleted it again.


def _checked(fields: SessionFields, tenant_id: UUID, by: Actor) -> dict[str, Any]:
    for name in ("key", "user_id", "group_id"):
        if (value := getattr(fields, name)) is not None:
            check_name(value, f"/{name}")
    return {
        "tenant_id": tenant_id,
        "key": fields.key,
        "user_id": fields.user_id,
        "group_id": fields.group_id,
        "title": _checked_title(fields.title),
        "system_prompt": _text(fields.system_prompt),
        "tags": jsonsafe.dumps(check_tags(fields.tags)),
        "metadata": jsonsafe.dumps(dict(fields.metadata)),
        "status": fields.status,
        "rating": fields.rating,
        "by": jsonsafe.dumps(kept_of(by)),
    }


async def session_with_key(
    conn: Connection, *, tenant_id: UUID, key: str, user_id: str | None
) -> dict[str, Any] | None:
    """Return the living session of this key and user (None: of nobody), or None."""
    params = {"tenant_id": tenant_id, "key": key, "user_id": user_id}
    row = await (await conn.execute(_WITH_KEY, params)).fetchone()
    return None if row is None else session_object(jsonsafe.loads(row["shown"]))


async def get_session(
    conn: Connection, *, tenant_id: UUID, session_id: UUID, user_id: str | None = None
) -> dict[str, Any]:
    """Return one session as the API shows it. ``user_id``: only one of this user.

    Raises:
        NotFoundError: there is no such session.
    """
    params = {"tenant_id": tenant_id, "id": session_id, "user_id": user_id}
    row = await (await conn.execute(_ONE, params)).fetchone()
    if row is None:
        raise NotFoundError("session", session_id)
    return session_object(jsonsafe.loads(row["shown"]))


async def list_sessions(
    conn: Connection, *, tenant_id: UUID, only: SessionFilter, page: PageRequest
) -> Page:
    """Return a page of sessions as the API shows them, by age."""
    params = {"tenant_id": tenant_id, **only.params(), **page.params()}
    cursor = await conn.execute(in_order(_PAGE, page.order), params)
    rows = await cursor.fetchall()
    return page_of([session_object(jsonsafe.loads(row["shown"])) for row in rows], page)


async def count_sessions(conn: Connection, *, tenant_id: UUID, only: SessionFilter) -> int:
    """Return how many sessions there are of those a list would hold."""
    cursor = await conn.execute(_COUNT, {"tenant_id": tenant_id, **only.params()})
    [row] = await cursor.fetchall()
    return int(row["count"])


async def change_session(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    changes: Mapping[str, Any],
    by: Actor,
    user_id: str | None = None,
) -> dict[str, Any]:
    """Change some of title, system_prompt, group_id, rating, status, tags, metadata.

    Returns it as the API shows it. What is null is taken away; status, tags and metadata are not.

    Raises:
        InvalidRequestError: a field cannot be so, or cannot be changed.
        NotFoundError: there is no such session.
    """
    changes = dict(changes)
    for name, value in changes.items():
        if name not in _CHANGEABLE:
            raise InvalidRequestError.at(f"/{name}", "cannot be changed.")
        if value is None and name in ("status", "tags", "metadata"):
            raise InvalidRequestError.at(f"/{name}", "cannot be null.")
    if changes.get("tags"):
        changes["tags"] = check_tags(changes["tags"])
    if changes.get("group_id") is not None:
        check_name(changes["group_id"], "/group_id")
    _checked_title(changes.get("title"))
    cursor = await conn.execute(
        _CHANGE,
        {
            "tenant_id": tenant_id,
            "id": session_id,
            "user_id": user_id,
            "changes": jsonsafe.dumps(changes),
            "by": jsonsafe.dumps(kept_of(by)),
        },
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError("session", session_id)
    return session_object(jsonsafe.loads(row["shown"]))


def _checked_title(title: str | None) -> str | None:
    return _text(check_title(title))


def _text(text: str | None) -> str | None:
    return None if text is None else jsonsafe.protect_text(text)
