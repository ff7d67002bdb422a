"""Conversations as lines of JSON, to be taken elsewhere: sessions, each followed by its own items.

A branch whose parent goes along stays a branch, and its ancestors' items are not repeated. One
whose parent does not (another filter, deleted) becomes a root that has all it read. What a session
has removed goes along where an exported branch of it reads it: ``importing`` gives every session
what it read here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncClientCursor

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import NotFoundError
from perdure.sessions.carried_fields import ITEM, SESSION
from perdure.sessions.reading import CHAIN, LAST, Moment, chain_params
from perdure.sessions.store import MATCHING, SessionFilter
from perdure.sessions.views import item_object, session_object

__all__ = ["Exported", "export_sessions"]

_SQL = load_sql("perdure.sessions", "exporting.sql")
_THESE = f"{MATCHING}\n{_SQL['these']}"
_SESSIONS = "\n".join(
    (_SQL["sessions"], _THESE, _SQL["chosen"], _THESE, _SQL["in_trees"]),
)
_MISSING = f"{_SQL['missing']}\n{_THESE}\n{_SQL['with_the_id']}"
_READ = f"{_SQL['read_below']}\n{_THESE}\n{_SQL['in_order']}"
_OWN = f"{_SQL['own']}\n{_READ}"
_ALL_IT_READ = f"{CHAIN}\n{_SQL['all_it_read']}\n{_READ}"
_ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_BEGINNING = Moment(LAST.seq, 0)

Line = dict[str, Any]


class _Cursor(NamedTuple):
    declare: str
    fetch: str
    close: str


_SESSION_CURSOR = _Cursor(_SQL["declare_sessions"], _SQL["fetch_sessions"], _SQL["close_sessions"])
_ITEM_CURSOR = _Cursor(_SQL["declare_items"], _SQL["fetch_items"], _SQL["close_items"])


@dataclass(frozen=True, slots=True)
class Exported:
    """Which sessions: those that fit, of ``ids`` alone where they are given."""

    only: SessionFilter
    ids: Sequence[UUID] | None = None

    def params(self, tenant_id: UUID) -> dict[str, Any]:
        """Return the statements' parameters."""
        ids = None if self.ids is None else list(self.ids)
        return {"tenant_id": tenant_id, "ids": ids, **self.only.params()}


async def export_sessions(
    conn: Connection, *, tenant_id: UUID, wanted: Exported
) -> AsyncGenerator[Line, None]:
    """Give sessions and items as of one moment, a parent before its branches; ``end`` is last.

    Holds one transaction, which writes nothing, and a few hundred lines at a time. Close it before
    its connection is somebody else's.

    Raises:
        NotFoundError: before the first line, one of the ids is none of these sessions.
    """
    params = wanted.params(tenant_id)
    sessions = items = 0
    async with conn.transaction():
        await conn.execute(_ONE_MOMENT)
        if wanted.ids is not None:
            row = await (await conn.execute(_MISSING, params)).fetchone()
            if row is not None:
                raise NotFoundError("session", row["id"])
        async with aclosing(_rows(conn, _SESSION_CURSOR, _SESSIONS, params)) as pages:
            async for rows in pages:
                for apart, some in groupby(rows, key=lambda row: bool(row["apart"])):
                    read = _apart if apart else _together
                    async with aclosing(read(conn, list(some), params)) as lines:
                        async for line in lines:
                            sessions += line["object"] == "session"
                            items += line["object"] == "item"
                            yield line
    yield {"object": "end", "sessions": sessions, "items": items}


async def _together(
    conn: Connection, rows: list[dict[str, Any]], params: dict[str, Any]
) -> AsyncGenerator[Line, None]:
    own = {**params, "sessions": [row["id"] for row in rows]}
    async with aclosing(_items(conn, _OWN, own)) as items:
        item = await anext(items, None)
        for row in rows:
            yield _session(row)
            while item is not None and item["session_id"] == str(row["id"]):
                yield item
                item = await anext(items, None)


async def _apart(
    conn: Connection, rows: list[dict[str, Any]], params: dict[str, Any]
) -> AsyncGenerator[Line, None]:
    for row in rows:
        yield _session(row)
        chain = chain_params(params["tenant_id"], row["id"], params["user_id"], _BEGINNING)
        async with aclosing(_items(conn, _ALL_IT_READ, {**params, **chain})) as items:
            async for item in items:
                yield item


async def _items(
    conn: Connection, statement: str, params: dict[str, Any]
) -> AsyncGenerator[Line, None]:
    async with aclosing(_rows(conn, _ITEM_CURSOR, statement, params)) as pages:
        async for rows in pages:
            for row in rows:
                yield _item(jsonsafe.loads(row["shown"]))


async def _rows(
    conn: Connection, cursor: _Cursor, statement: str, params: dict[str, Any]
) -> AsyncGenerator[list[dict[str, Any]], None]:
    """Give what a statement finds in parts, by a cursor of the database's.

    Not psycopg's own, which has to be closed: who breaks off ends the transaction, and it with it.
    """
    # DECLARE takes no parameters from outside.
    await AsyncClientCursor(conn).execute(f"{cursor.declare}\n{statement}", params)
    while rows := await (await conn.execute(cursor.fetch)).fetchall():
        yield rows
    await conn.execute(cursor.close)


def _session(row: Mapping[str, Any]) -> Line:
    there = jsonsafe.loads(row["shown"])
    shown = session_object(there)
    line = {name: value for name, value in shown.items() if name in SESSION}
    line["version"] = there["version"]
    if row["apart"]:
        return {**line, "parent_session_id": None, "fork_seq": None}
    if line["parent_session_id"] is not None:
        line |= {"fork_version": there["fork_version"], "holes": there["holes"]}
    return line


def _item(row: Mapping[str, Any]) -> Line:
    line = {name: value for name, value in item_object(row).items() if name in ITEM}
    if row["removed_version"] is not None:
        line["removed_version"] = row["removed_version"]
    return line
