"""What the API gives of sessions; see ``answers``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from perdure.sessions.rules import Status
from perdure.web.answers import Answer, By, List


class Session(Answer):
    """A conversation. A branch reads its parent's items up to the number ``fork_seq``.

    ``last_seq`` is the number of the last item it was given; numbers are never used twice.
    """

    id: UUID
    object: Literal["session"]
    key: str | None
    title: str | None
    user_id: str | None
    group_id: str | None
    system_prompt: str | None
    tags: list[str]
    metadata: dict[str, Any]
    status: Status
    rating: int | None
    parent_session_id: UUID | None
    root_session_id: UUID
    depth: int
    fork_seq: int | None
    last_seq: int
    created_by: By
    updated_by: By
    created_at: datetime
    updated_at: datetime


class SessionItem(Answer):
    """An item of a conversation; ``item`` is it as it was given.

    ``session_id`` is the session that has it: of what a branch reads, maybe an ancestor.
    """

    id: UUID
    object: Literal["item"]
    session_id: UUID
    seq: int
    role: Literal["user", "assistant", "system", "developer", "tool"] | None
    sender: str | None
    text: str | None
    item: Any
    agent: str | None
    run_id: UUID | None
    user_id: str | None
    token_count: int | None
    metadata: dict[str, Any]
    created_at: datetime


class SessionList(List[Session]):
    """A page of sessions."""

    total_count: Annotated[
        int | None, Field(description="With include=total_count: of all pages.")
    ] = None


class ImportedSession(Answer):
    """Which session became which."""

    from_: Annotated[str, Field(alias="from", description="Its id in what was sent.")]
    id: UUID


class SkippedSession(Answer):
    """A session that was left out: its key is that of ``id``, or it is a branch of such a one."""

    from_: Annotated[str, Field(alias="from", description="Its id in what was sent.")]
    key: str | None
    id: UUID | None


class SessionImport(Answer):
    """What an import brought."""

    object: Literal["session_import"]
    session_count: int
    item_count: int
    skipped_count: int
    sessions: list[ImportedSession]
    skipped: list[SkippedSession]


class FoundItem(SessionItem):
    """An item that was searched for.

    ``snippet`` is HTML: what was said is escaped, what matches stands in ``<mark>``.
    """

    rank: float
    snippet: str
