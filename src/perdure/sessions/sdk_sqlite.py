"""Conversations of the Agents SDK's ``SQLiteSession``, read from its file as lines to import.

Each ``session_id`` there becomes a session of that key. Of an ``AdvancedSQLiteSession`` each branch
becomes one, with all it has: ``main`` of that key, another of ``<session_id>/<branch>``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from perdure.errors import InvalidRequestError
from perdure.sessions.rules import role_of

__all__ = ["SdkFile"]

_MAIN = "main"

Line = dict[str, Any]


class SdkFile:
    """A file of sessions; nothing in it is changed.

    ``damaged`` counts the messages that were left out because they are none.

    Raises, when read:
        InvalidRequestError: it is no such file, or a message in it is damaged, which it names.
    """

    def __init__(
        self,
        path: Path,
        *,
        sessions: str = "agent_sessions",
        messages: str = "agent_messages",
        user_id: str | None = None,
        skip_damaged: bool = False,
    ) -> None:
        """``sessions`` and ``messages`` are its tables, ``user_id`` whose the sessions shall be."""
        self._path = path
        self._sessions = _quoted(sessions)
        self._messages = _quoted(messages)
        self._user_id = user_id
        self._skip_damaged = skip_damaged
        self.damaged = 0

    def lines(self) -> Iterator[Line]:
        """Give its sessions, each with its items, and the line that says how many there were."""
        self.damaged = 0
        try:
            # Opened as it is: another program may go on writing in it.
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as conn:
                # What is no text in UTF-8 is found damaged, and does not end the reading.
                conn.text_factory = bytes
                conn.execute("BEGIN")
                yield from self._lines(conn)
        except sqlite3.Error as error:
            raise InvalidRequestError(
                f"{self._path} cannot be read as a file of the SDK's SQLiteSession: {error}. "
                "Tables of other names are given by --table-sessions and --table-messages."
            ) from error

    def _lines(self, conn: sqlite3.Connection) -> Iterator[Line]:
        counts = {"session": 0, "item": 0}
        branching = conn.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'message_structure'"
        ).fetchone()
        sessions = conn.execute(
            f"SELECT session_id, created_at, updated_at FROM {self._sessions} ORDER BY rowid"  # noqa: S608 - quoted
        )
        for row in sessions:
            name, created_at, updated_at = map(_text, row)
            for branch in self._branches(conn, name) if branching else [None]:
                key = name if branch in (None, _MAIN) else f"{name}/{branch}"
                for line in self._session(conn, name, branch, key):
                    if line["object"] == "session":
                        line |= {"created_at": _moment(created_at)}
                        line |= {"updated_at": _moment(updated_at)}
                    counts[line["object"]] += 1
                    yield line
        yield {"object": "end", "sessions": counts["session"], "items": counts["item"]}

    def _branches(self, conn: sqlite3.Connection, name: str) -> list[str | None]:
        rows = conn.execute(
            "SELECT branch_id FROM message_structure WHERE session_id = ?"
            " GROUP BY branch_id ORDER BY branch_id <> ?, min(id)",
            (name, _MAIN),
        )
        return [_text(branch) for (branch,) in rows] or [_MAIN]

    def _session(
        self, conn: sqlite3.Connection, name: str, branch: str | None, key: str
    ) -> Iterator[Line]:
        yield {"object": "session", "id": key, "key": key, "user_id": self._user_id}
        joined, order, params = "", "m.id", [name]
        if branch is not None:
            joined = "JOIN message_structure s ON s.message_id = m.id AND s.branch_id = ?"
            order, params = "s.sequence_number", [branch, name]
        messages = conn.execute(
            f"SELECT m.id, m.message_data, m.created_at FROM {self._messages} m {joined}"  # noqa: S608 - quoted
            f" WHERE m.session_id = ? ORDER BY {order}",
            params,
        )
        for number, data, created_at in messages:
            item = self._item(data, number, name)
            if item is not None:
                at = _moment(_text(created_at))
                yield {"object": "item", "session_id": key, "item": item, "created_at": at}

    def _item(self, data: Any, number: int, name: str) -> Any:
        try:
            item = json.loads(data, parse_constant=_refuse)
            role_of(item)
        except (ValueError, TypeError, RecursionError, InvalidRequestError) as error:
            if self._skip_damaged:
                self.damaged += 1
                return None
            raise InvalidRequestError(
                f"Message {number} of session {name!r} in {self._path} is damaged: {error}. "
                "Nothing was imported. Leave such messages out with --skip-damaged."
            ) from error
        return item


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _moment(text: str) -> str | None:
    """SQLite's ``CURRENT_TIMESTAMP`` is in UTC and does not say so."""
    return None if text == "None" else f"{text.replace(' ', 'T')}+00:00"


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
