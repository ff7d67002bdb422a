"""Conversations brought from elsewhere, all or none.

What comes is checked and put by line by line (``Spool``), so that no transaction waits for who
sends it, and then written in one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import IO, Any, Self
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import Actor, kept_of
from perdure.db import Connection, load_sql
from perdure.errors import ConflictError
from perdure.sessions.carried import Reader
from perdure.sessions.store import session_with_key

__all__ = ["Spool", "import_sessions"]

_SQL = load_sql("perdure.sessions", "importing.sql")
_MAKE = _SQL["make"]
_ADD_ITEMS = _SQL["add_items"]
_IN_MEMORY = 1 << 20
_ROWS_AT_ONCE = 1000
_BYTES_AT_ONCE = 1 << 20

Object = dict[str, Any]


class Spool:
    """What was sent so far, checked, in files that go with it.

    Raises, from ``feed`` and ``end``:
        InvalidRequestError: a line is wrong; nothing of it may be imported.
    """

    def __init__(self, user_id: str | None = None) -> None:
        """``user_id``: whose all of it shall be; by default whose the lines say it is."""
        self._sessions: IO[bytes] = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - see __exit__
        self._items: IO[bytes] = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        self._reader = Reader(self._sessions.write, self._items.write, user_id)
        self._hash = sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sessions.close()
        self._items.close()

    def feed(self, chunk: bytes) -> None:
        """Take more of what is sent."""
        self._hash.update(chunk)
        self._reader.feed(chunk)

    def end(self) -> bytes:
        """Say that this was all; returns what tells it from others, 32 bytes."""
        self._reader.end()
        return self._hash.digest()

    def sessions(self) -> Iterator[bytes]:
        """Give the sessions' rows, a parent before its branches."""
        self._sessions.seek(0)
        return iter(self._sessions)

    def items(self) -> Iterator[bytes]:
        """Give the items' rows."""
        self._items.seek(0)
        return iter(self._items)


async def import_sessions(
    conn: Connection, spool: Spool, *, tenant_id: UUID, by: Actor, skip: bool = False
) -> Object:
    """Write what was put by, in one transaction; returns which session became which.

    ``skip``: sessions whose key is taken, and their branches, are left out.

    Raises:
        ConflictError: a key is taken; it names the line. Nothing was written.
    """
    made: list[Object] = []
    skipped: dict[str, Object] = {}
    async with conn.transaction():
        for rows in _families(spool.sessions()):
            wanted = []
            for row in rows:
                if row["parent"] in skipped:
                    skipped[row["id"]] = _skipped(row, None)
                else:
                    wanted.append(row)
            ids = await _make(conn, wanted, tenant_id, by)
            for row in wanted:
                if row["id"] in ids:
                    made.append({"from": row["from"], "id": row["id"]})
                    continue
                there = await _taken(conn, row, tenant_id)
                if not skip:
                    raise _conflict(row, there)
                skipped[row["id"]] = _skipped(row, there)
        items = 0
        for batch in _batches(spool.items()):
            cursor = await conn.execute(_ADD_ITEMS, {"items": _list(batch)})
            items += cursor.rowcount
    return {
        "object": "session_import",
        "session_count": len(made),
        "item_count": items,
        "skipped_count": len(skipped),
        "sessions": made,
        "skipped": list(skipped.values()),
    }


async def _make(conn: Connection, rows: list[Object], tenant_id: UUID, by: Actor) -> set[str]:
    if not rows:
        return set()
    # As they were put by: jsonsafe would protect them a second time.
    given = json.dumps(rows, ensure_ascii=False)
    params = {"sessions": given, "tenant_id": tenant_id, "by": jsonsafe.dumps(kept_of(by))}
    cursor = await conn.execute(_MAKE, params)
    return {str(row["id"]) for row in await cursor.fetchall()}


async def _taken(conn: Connection, row: Object, tenant_id: UUID) -> str | None:
    there = await session_with_key(
        conn, tenant_id=tenant_id, key=row["key"], user_id=row["user_id"]
    )
    return None if there is None else str(there["id"])


def _skipped(row: Object, there: str | None) -> Object:
    return {"from": row["from"], "key": row["key"], "id": there}


def _conflict(row: Object, there: str | None) -> ConflictError:
    user = "nobody" if row["user_id"] is None else f"user {row['user_id']!r}"
    error = ConflictError(
        f"Line {row['line']}: the key {row['key']!r} of {user} is that of session {there} already. "
        "Nothing was imported. Delete that session, or leave out those whose key is taken: "
        "on_conflict=skip."
    )
    error.pointer = f"/lines/{row['line']}/key"
    return error


def _families(lines: Iterator[bytes]) -> Iterator[list[Object]]:
    """Give rows in parts, in which no branch is of a session whose key may turn out to be taken."""
    for batch in _batches(lines):
        rows: list[Object] = []
        keyed: set[str] = set()
        for line in batch:
            row = _read(line)
            if row["parent"] in keyed:
                yield rows
                rows, keyed = [], set()
            rows.append(row)
            if row["key"] is not None:
                keyed.add(row["id"])
        yield rows


def _read(line: bytes) -> Object:
    row: Object = json.loads(line)
    # Names are no JSON in their columns, and stand there as they are.
    names: Object = jsonsafe.loads(line.decode())
    return row | {name: names[name] for name in ("from", "key", "user_id", "group_id")}


def _batches(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if len(batch) >= _ROWS_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _list(lines: list[bytes]) -> str:
    return f"[{b','.join(lines).decode()}]"
