"""Conversations read from lines of JSON, as ``exporting`` writes them. Pure.

A session's line is followed by its items' lines; a branch comes after its parent. What is left out
is filled in: numbers count up, a branch goes on from all its parent has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import uuid7
from perdure.errors import InvalidRequestError, within
from perdure.sessions.carried_fields import ITEM, SESSION, Fields
from perdure.sessions.rules import MAX_DEPTH, role_of, text_of, title_of

__all__ = ["MAX_LINE_BYTES", "MAX_SESSIONS", "Reader"]

MAX_LINE_BYTES = 64 << 20
MAX_SESSIONS = 100_000
"""Of one import: what is known of each is kept until the end, and answered."""
_MOST = 2**31 - 2

Write = Callable[[bytes], Any]


@dataclass(slots=True)
class _Known:
    """What later lines may need of a session."""

    id: UUID
    root: UUID
    depth: int
    last_seq: int
    version: int


@dataclass(slots=True)
class _Open:
    """The session whose items are being read."""

    name: str
    row: dict[str, Any]
    seq: int
    """The number of its last item so far."""
    user_id: str | None
    """As the line has it."""
    untitled: bool
    """Whether its title is to be made from what is said."""
    most_version: int
    least_version: int = 0
    """What its version has to be at least: something was removed then."""


class Reader:
    """Takes the bytes of a file in any pieces and gives rows, each a line of JSON for Postgres.

    ``user_id``: whose all of it shall be, in the place of what the lines say.
    """

    def __init__(self, sessions: Write, items: Write, user_id: str | None = None) -> None:
        self._write_session = sessions
        self._write_item = items
        self._user_id = user_id
        self._rest = bytearray()
        self._number = 0
        self._known: dict[str, _Known] = {}
        self._keys: dict[tuple[str | None, str], int] = {}
        self._open: _Open | None = None
        self._ended = False
        self.items = 0

    @property
    def sessions(self) -> int:
        """How many sessions were read."""
        return len(self._known) + (self._open is not None)

    def feed(self, chunk: bytes) -> None:
        """Read on.

        Raises:
            InvalidRequestError: names the line that is wrong, counted from 1, and the field.
        """
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._rest += end
            self._line()
        self._rest += rest
        if len(self._rest) > MAX_LINE_BYTES:
            self._number += 1
            raise self._wrong("", f"is longer than {MAX_LINE_BYTES >> 20} MiB.")

    def end(self) -> None:
        """Say that this was all.

        Raises:
            InvalidRequestError: the last line is wrong.
        """
        self._line()
        self._close()

    def _line(self) -> None:
        line = bytes(self._rest)
        self._rest.clear()
        self._number += 1
        if len(line) > MAX_LINE_BYTES:
            raise self._wrong("", f"is longer than {MAX_LINE_BYTES >> 20} MiB.")
        if not line.strip():
            return
        given = self._parsed(line)
        if self._ended:
            raise self._wrong("", "comes after the line that says it was the end.")
        try:
            match given.get("object") if isinstance(given, dict) else None:
                case "session":
                    self._session(given)
                case "item":
                    self._item(given)
                case "end":
                    self._end(given)
                case _:
                    raise InvalidRequestError.at("/object", "has to be session, item or end.")
        except InvalidRequestError as error:
            raise within(error, f"/lines/{self._number}") from None

    def _parsed(self, line: bytes) -> Any:
        try:
            return json.loads(line.decode(), parse_constant=_refuse)
        except UnicodeDecodeError as error:
            why = f"is not UTF-8: the byte at {error.start} is wrong."
        except json.JSONDecodeError as error:
            why = f"is not JSON: {error.msg} at column {error.colno}."
        except RecursionError:
            why = "is nested too deep."
        except ValueError as error:
            why = f"is not JSON: {error}."
        raise self._wrong("", why)

    def _wrong(self, pointer: str, why: str) -> InvalidRequestError:
        return InvalidRequestError.at(f"/lines/{self._number}{pointer}", why)

    def _session(self, given: Mapping[str, Any]) -> None:
        self._close()
        fields = Fields(given, SESSION)
        name = fields.required_name("id")
        if name in self._known:
            raise InvalidRequestError.at("/id", "is that of an earlier line.")
        if len(self._known) >= MAX_SESSIONS:
            raise InvalidRequestError.at("", f"is one more than {MAX_SESSIONS} sessions.")
        key, theirs = fields.name("key"), fields.name("user_id")
        user_id = theirs if self._user_id is None else self._user_id
        if key is not None and (before := self._keys.setdefault((user_id, key), self._number)) != (
            self._number
        ):
            raise InvalidRequestError.at("/key", f"is that of line {before}, of the same user.")
        fork = self._fork(fields)
        fork_seq = fork["fork_seq"] or 0
        row = {
            "line": self._number,
            "from": name,
            "id": str(uuid7()),
            "key": key,
            "user_id": user_id,
            "group_id": fields.name("group_id"),
            "title": fields.title(),
            "system_prompt": fields.text("system_prompt"),
            "tags": fields.tags(),
            "metadata": fields.object("metadata"),
            "status": fields.status(),
            "rating": fields.number("rating", 1, 5),
            "last_seq": fields.number("last_seq", fork_seq, _MOST),
            "version": fields.number("version", 0, _MOST),
            "created_at": fields.moment("created_at"),
            "updated_at": fields.moment("updated_at"),
            **fork,
        }
        most = _MOST if row["version"] is None else row["version"]
        self._open = _Open(name, row, fork_seq, theirs, "title" not in given, most)
        for hole in row["holes"]:
            self._at_version(hole["version"], "/holes")

    def _fork(self, fields: Fields) -> dict[str, Any]:
        parent = fields.name("parent_session_id")
        if parent is None:
            fields.without("fork_seq", "fork_version", "holes")
            return {"parent": None, "depth": 0, "fork_seq": None, "fork_version": None, "holes": []}
        there = self._known.get(parent)
        if there is None:
            raise InvalidRequestError.at("/parent_session_id", "is no session of an earlier line.")
        if there.depth >= MAX_DEPTH:
            raise InvalidRequestError.at(
                "/parent_session_id", f"is {MAX_DEPTH} branches deep, which is as deep as it goes."
            )
        fork_seq = fields.number("fork_seq", 0, there.last_seq)
        fork_seq = there.last_seq if fork_seq is None else fork_seq
        version = fields.number("fork_version", 0, there.version)
        return {
            "parent": str(there.id),
            "root": str(there.root),
            "depth": there.depth + 1,
            "fork_seq": fork_seq,
            "fork_version": there.version if version is None else version,
            "holes": fields.holes(fork_seq),
        }

    def _item(self, given: Mapping[str, Any]) -> None:
        session = self._open
        fields = Fields(given, ITEM)
        if session is None or fields.required_name("session_id") != session.name:
            raise InvalidRequestError.at(
                "/session_id", "is not the session of the last line that was one."
            )
        item: Any = given.get("item")
        role = role_of(item, "/item")
        most = session.row["last_seq"]
        seq = fields.number("seq", session.seq + 1, _MOST if most is None else most)
        session.seq = session.seq + 1 if seq is None else seq
        if session.seq > (_MOST if most is None else most):
            raise InvalidRequestError.at("/seq", "would be beyond the session's last_seq.")
        removed = fields.number("removed_version", 1, _MOST)
        if removed is not None:
            self._at_version(removed, "/removed_version")
        theirs = fields.name("user_id")
        if "user_id" not in given:
            theirs = session.user_id if role == "user" else None
        if self._user_id is not None and theirs == session.user_id and theirs is not None:
            theirs = self._user_id
        row = {
            "id": str(uuid7()),
            "session_id": session.row["id"],
            "seq": session.seq,
            "role": role,
            "sender": fields.name("sender"),
            "text": text_of(item),
            "item": item,
            "agent": fields.name("agent"),
            "run_id": fields.id("run_id"),
            "user_id": theirs,
            "token_count": fields.number("token_count", 0, _MOST + 1),
            "metadata": fields.object("metadata"),
            "created_at": fields.moment("created_at"),
            "removed_version": removed,
        }
        self._write_item(_written(row, "/item"))
        if session.untitled and removed is None:
            session.row["title"] = title_of([item])
            session.untitled = session.row["title"] is None
        self.items += 1

    def _at_version(self, version: int, pointer: str) -> None:
        session = self._open
        assert session is not None  # noqa: S101 - its lines are being read
        if version > session.most_version:
            raise InvalidRequestError.at(
                pointer, f"is of version {version}; the session's is {session.most_version}."
            )
        session.least_version = max(session.least_version, version)

    def _close(self) -> None:
        """Write the session whose items have all come."""
        session, self._open = self._open, None
        if session is None:
            return
        row = session.row
        row["last_seq"] = session.seq if row["last_seq"] is None else row["last_seq"]
        row["version"] = session.least_version if row["version"] is None else row["version"]
        row.setdefault("root", row["id"])
        self._known[session.name] = _Known(
            *(UUID(row["id"]), UUID(row["root"])), row["depth"], row["last_seq"], row["version"]
        )
        self._write_session(_written(row, ""))

    def _end(self, given: Mapping[str, Any]) -> None:
        self._close()
        fields = Fields(given, frozenset({"object", "sessions", "items"}))
        for name, there in (("sessions", self.sessions), ("items", self.items)):
            said = fields.number(name, 0, 2**63)
            if said is not None and said != there:
                raise InvalidRequestError.at(
                    f"/{name}", f"says {said}, but {there} came before: some were lost."
                )
        self._ended = True


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of it")


def _written(row: Mapping[str, Any], pointer: str) -> bytes:
    try:
        return jsonsafe.dumps_readable(row).encode() + b"\n"
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError.at(pointer, f"holds what is no JSON: {error}.") from None
