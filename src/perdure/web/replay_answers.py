"""What the API gives of replays and of sessions beside each other; see ``answers``."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from perdure.web.answers import Answer, Run, RunStatus
from perdure.web.session_answers import Session, SessionItem


class Replay(Answer):
    """A branch in which a conversation's messages are said again, and its runs in order."""

    object: Literal["replay"]
    session: Session
    runs: list[Run]


class Asked(Answer):
    """What the user said in the turn."""

    base: str | None
    session: str | None
    same: bool


class Side(Answer):
    """A turn of one of the two: the user's message and all until the next.

    ``text`` is what was answered in words.
    """

    items: list[SessionItem]
    text: str | None
    run_id: UUID | None
    run_status: RunStatus | None


class Change(Answer):
    """A stretch of words of both texts; all of them after each other are the texts."""

    op: Literal["equal", "insert", "delete", "replace"]
    base: str
    session: str


class ComparedTurn(Answer):
    """A turn of both; null where one of them has none of this number.

    ``same``: both said and called the same. ``changes`` leads from the text of the base to the
    session's.
    """

    number: int
    input: Asked
    base: Side | None
    session: Side | None
    same: bool
    changes: list[Change]


class SessionDiff(Answer):
    """Two conversations beside each other, after the number ``fork_seq`` up to which both read.

    Go on with ``after`` and the last turn's ``number`` while ``has_more``.
    """

    object: Literal["session_diff"]
    base: Session
    session: Session
    fork_seq: int
    turns: list[ComparedTurn]
    has_more: bool
