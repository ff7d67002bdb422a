"""Feedback: given, read, listed, summed up, deleted. Always within one tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import InvalidRequestError, NotFoundError
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.times import rfc3339

__all__ = [
    "MAX_COMMENT",
    "FeedbackFilter",
    "FeedbackType",
    "GroupBy",
    "NewFeedback",
    "delete_feedback",
    "get_feedback",
    "give_feedback",
    "list_feedback",
    "summarize",
]

_SQL = load_sql("perdure.feedback", "store.sql")
_SELECT = _SQL["select"]
_ONE = f"{_SELECT}\n{_SQL['one']}"
_GIVE = _SQL["give"]
_DELETE = _SQL["delete"]
_SUMMARY = _SQL["summary"]
_NARROWING = {
    "run_id": _SQL["of_run"],
    "item_id": _SQL["of_item"],
    "session_id": _SQL["of_session"],
}

FeedbackType = Literal["accuracy", "relevance", "completeness", "agent_behavior", "other"]
GroupBy = Literal["agent", "version", "type"]
MAX_COMMENT = 10_000
MAX_GROUPS = 1000
"""Groups a summary has at most."""


@dataclass(frozen=True, slots=True)
class NewFeedback:
    """What somebody thinks of one thing: of a run, or of an item of a session or a run.

    A ``rating`` from 1 (worst) to 5, or whether it is ``liked``. ``user_id`` says who thinks so;
    what it is about is then theirs or nobody's.
    """

    run_id: UUID | None = None
    item_id: UUID | None = None
    rating: int | None = None
    liked: bool | None = None
    type: FeedbackType = "other"
    comment: str | None = None
    user_id: str | None = None

    def __post_init__(self) -> None:
        """Check that it is about one thing, and says one thing.

        Raises:
            InvalidRequestError: naming the field.
        """
        for one, other in (("run_id", "item_id"), ("rating", "liked")):
            given = [name for name in (one, other) if getattr(self, name) is not None]
            if not given:
                raise InvalidRequestError.at(f"/{one}", f"is missing; give it or {other}.")
            if len(given) == 2:
                raise InvalidRequestError.at(f"/{other}", f"goes without {one}; give one of them.")


@dataclass(frozen=True, slots=True)
class FeedbackFilter:
    """Which feedback a list shall hold; None filters nothing. Moments are aware and exclusive.

    ``run_id``: on the run and on what it said. ``session_id``: on its own items, its runs and
    their items.
    """

    run_id: UUID | None = None
    item_id: UUID | None = None
    session_id: UUID | None = None
    user_id: str | None = None
    type: FeedbackType | None = None
    agent: str | None = None
    agent_version: str | None = None
    min_rating: int | None = None
    max_rating: int | None = None
    liked: bool | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def params(self) -> dict[str, Any]:
        """Return the statement's parameters."""
        return {name: getattr(self, name) for name in self.__slots__}

    def statement(self) -> str:
        """Return the statement that lists what fits, newest first."""
        narrowing = [text for name, text in _NARROWING.items() if getattr(self, name) is not None]
        return "\n".join([_SELECT, _SQL["matching"], *narrowing, _SQL["page"]])


async def give_feedback(
    conn: Connection, *, tenant_id: UUID, new: NewFeedback
) -> tuple[dict[str, Any], bool]:
    """Return feedback as the API shows it, and whether it is new.

    What the same user said before of the same thing, with the same type, is replaced.

    Raises:
        NotFoundError: there is no such run or item, or it is another user's.
    """
    whose = {"tenant_id": tenant_id, "user_id": new.user_id}
    async with conn.transaction():
        about = await _find(conn, {**whose, "run_id": new.run_id, "item_id": new.item_id})
        feedback_id = uuid7()
        cursor = await conn.execute(
            _GIVE,
            {
                **about,
                **whose,
                "id": feedback_id,
                "type": new.type,
                "rating": new.rating,
                "liked": new.liked,
                "comment": jsonsafe.protect_text(new.comment) if new.comment else None,
            },
        )
        [given] = await cursor.fetchall()
        shown = await get_feedback(conn, tenant_id=tenant_id, feedback_id=given["id"])
    return shown, given["id"] == feedback_id


async def _find(conn: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run or the item, and which agent made it."""
    if params["run_id"] is not None:
        statements = ["find_run"]
    else:
        statements = ["find_item_of_session", "find_item_of_run"]
    for name in statements:
        row = await (await conn.execute(_SQL[name], params)).fetchone()
        if row is not None:
            return dict(row)
    if params["run_id"] is not None:
        raise NotFoundError("run", params["run_id"])
    raise NotFoundError("item", params["item_id"])


async def get_feedback(
    conn: Connection, *, tenant_id: UUID, feedback_id: UUID, user_id: str | None = None
) -> dict[str, Any]:
    """Return one feedback as the API shows it. ``user_id``: only of this user.

    Raises:
        NotFoundError: there is none.
    """
    params = {"tenant_id": tenant_id, "id": feedback_id, "user_id": user_id}
    row = await (await conn.execute(_ONE, params)).fetchone()
    if row is None:
        raise NotFoundError("feedback", feedback_id)
    return _object(row)


async def list_feedback(
    conn: Connection, *, tenant_id: UUID, only: FeedbackFilter, page: PageRequest
) -> Page:
    """Return a page of feedback as the API shows it, by when it was first given."""
    cursor = await conn.execute(
        in_order(only.statement(), page.order),
        {"tenant_id": tenant_id, **only.params(), **page.params()},
    )
    return page_of([_object(row) for row in await cursor.fetchall()], page)


async def delete_feedback(
    conn: Connection, *, tenant_id: UUID, feedback_id: UUID, user_id: str | None = None
) -> None:
    """Delete one feedback. ``user_id``: only of this user.

    Raises:
        NotFoundError: there is none.
    """
    params = {"tenant_id": tenant_id, "id": feedback_id, "user_id": user_id}
    if (await conn.execute(_DELETE, params)).rowcount != 1:
        raise NotFoundError("feedback", feedback_id)


async def summarize(
    conn: Connection,
    *,
    tenant_id: UUID,
    group_by: Sequence[GroupBy],
    agent: str | None = None,
    user_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Page:
    """Return the sums of feedback in groups; the moments are aware, ``until`` is exclusive.

    Of each agent the versions with the latest feedback come first.
    """
    cursor = await conn.execute(
        _SUMMARY,
        {
            "tenant_id": tenant_id,
            "group_by": list(group_by),
            "agent": agent,
            "user_id": user_id,
            "since": since,
            "until": until,
            "most": MAX_GROUPS + 1,
        },
    )
    rows = []
    for row in await cursor.fetchall():
        groups = {name: row[name] for name in ("agent", "version", "type") if name in group_by}
        sums = {
            name: row[name] for name in ("count", "average_rating", "likes", "dislikes", "ratings")
        }
        rows.append({"object": "feedback_summary", **groups, **sums})
    return Page(rows[:MAX_GROUPS], has_more=len(rows) > MAX_GROUPS)


def _object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Feedback as the API shows it; ``run_id`` is also that of the run which made the item."""
    shown = jsonsafe.loads(row["shown"])
    return {
        "id": shown["id"],
        "object": "feedback",
        "run_id": None if row["run_id"] is None else str(row["run_id"]),
        "item_id": shown["item_id"],
        "session_id": None if row["session_id"] is None else str(row["session_id"]),
        "user_id": shown["user_id"],
        "rating": shown["rating"],
        "liked": shown["liked"],
        "type": shown["type"],
        "comment": shown["comment"],
        "agent": shown["agent"],
        "agent_version": shown["agent_version"],
        "created_at": rfc3339(shown["created_at"]),
        "updated_at": rfc3339(shown["updated_at"]),
    }
