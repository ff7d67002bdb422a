"""Items appended to sessions: once each, in order, numbered without gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import Actor, kept_of
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import InvalidRequestError, NotFoundError
from perdure.sessions.rules import NewItem, role_of, text_of, title_of
from perdure.sessions.views import item_object

__all__ = ["append", "as_json"]

_APPEND = load_sql("perdure.sessions", "items.sql")["append"]


async def append(
    conn: Connection,
    *,
    tenant_id: UUID,
    session_id: UUID,
    items: Sequence[NewItem],
    by: Actor,
    user_id: str | None = None,
) -> list[dict[str, Any]]:
    """Append ``items`` in one statement and return them as the API shows them.

    Joins the caller's transaction if there is one; the session's row is locked until it ends.
    ``user_id``: only a session of this user. A session without a title gets one from the first
    message of a user.

    Raises:
        InvalidRequestError: an item is no JSON, or has a role that is none.
        NotFoundError: there is no such session.
    """
    if not items:
        return []
    cursor = await conn.execute(
        _APPEND,
        {
            "tenant_id": tenant_id,
            "session_id": session_id,
            "user_id": user_id,
            "items": as_json([_row(place, new) for place, new in enumerate(items, 1)]),
            "count": len(items),
            "title": _protected(title_of(new.item for new in items)),
            "by": jsonsafe.dumps(kept_of(by)),
        },
    )
    rows = await cursor.fetchall()
    if not rows:
        raise NotFoundError("session", session_id)
    return [item_object(jsonsafe.loads(row["added"])) for row in rows]


def as_json(value: Any) -> str:
    """Return ``value`` as text for a column of the type json, which keeps it as it is.

    Raises:
        InvalidRequestError: it is no JSON.
    """
    try:
        return jsonsafe.dumps_readable(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError.at(
            "/items", f"hold something that is no JSON: {error}."
        ) from None


def _row(place: int, new: NewItem) -> dict[str, Any]:
    return {
        "place": place,
        "id": str(new.id or uuid7()),
        "role": role_of(new.item, f"/items/{place - 1}"),
        "sender": new.sender,
        "text": text_of(new.item),
        "item": new.item,
        "agent": new.agent,
        "run_id": None if new.run_id is None else str(new.run_id),
        "user_id": new.user_id,
        "token_count": new.token_count,
        "metadata": new.metadata,
    }


def _protected(text: str | None) -> str | None:
    return None if text is None else jsonsafe.protect_text(text)
