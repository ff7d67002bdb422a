"""Words found again in what was said."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.paging import Page, PageRequest, page_of
from perdure.sessions.reading import CHAIN, chain_params
from perdure.sessions.store import get_session
from perdure.sessions.views import item_object

__all__ = ["MOST_RANKED", "SearchFilter", "search_items"]

_SQL = load_sql("perdure.sessions", "search.sql")
_LANGUAGE = _SQL["language"]
_EVERYWHERE = f"{_SQL['everywhere']}{_SQL['ranked']}"
_IN_SESSION = f"{CHAIN}{_SQL['in_session']}{_SQL['ranked']}"

MOST_RANKED = 400
"""Of more matches the newest so many are ranked."""
_MARKS = str.maketrans({"\ue001": "<mark>", "\ue002": "</mark>"})


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """Where to search; None is everywhere. ``tags``: in sessions that have all of them."""

    user_id: str | None = None
    session_id: UUID | None = None
    tags: Sequence[str] = ()
    since: datetime | None = None
    before: datetime | None = None


async def search_items(
    conn: Connection, *, tenant_id: UUID, q: str, only: SearchFilter, page: PageRequest
) -> Page:
    """Return a page of items as the API shows them, with ``rank`` and ``snippet``, the best first.

    ``q`` is in websearch syntax: words, "phrases", or, -not. ``snippet`` is HTML: all that was
    said is escaped in it, what matches stands in ``<mark>``. Deleted sessions are not searched;
    within one session what it reads of its ancestors is.

    Raises:
        NotFoundError: there is no such session.
    """
    cursor = await conn.execute(_LANGUAGE, {"tenant_id": tenant_id})
    [tenant] = await cursor.fetchall()
    params: dict[str, Any] = {
        "tenant_id": tenant_id,
        "user_id": only.user_id,
        "language": tenant["language"],
        "q": q,
        "tags": jsonsafe.dumps(list(only.tags)) if only.tags else None,
        "since": only.since,
        "before": only.before,
        "most": MOST_RANKED,
        **page.params(),
    }
    statement = _EVERYWHERE
    if only.session_id is not None:
        whose: dict[str, Any] = {
            "tenant_id": tenant_id,
            "session_id": only.session_id,
            "user_id": only.user_id,
        }
        await get_session(conn, **whose)
        params |= chain_params(**whose)
        statement = _IN_SESSION
    # Planned for these very words each time: rare ones by their index, frequent ones by age.
    cursor = await conn.execute(statement, params, prepare=False)
    rows = [jsonsafe.loads(row["shown"]) for row in await cursor.fetchall()]
    return page_of([_found(row) for row in rows], page)


def _found(row: Mapping[str, Any]) -> dict[str, Any]:
    snippet = html.escape(row["snippet"] or "").translate(_MARKS)
    return {**item_object(row), "rank": row["rank"], "snippet": snippet}
