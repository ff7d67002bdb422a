"""What the API gives of operations; see ``answers``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from perdure.web.answers import Answer


class DiffStep(Answer):
    """A step from what was to what is since, as in JSON Patch, with what was there before."""

    op: Literal["add", "remove", "replace"]
    path: Annotated[str, Field(description="A JSON pointer, after the steps before this one.")]
    previous: Any = None
    new: Any = None


class Operation(Answer):
    """What a tool changed, as it recorded it; ``previous`` and ``new`` are null for nothing."""

    id: UUID
    object: Literal["operation"]
    run_id: UUID
    session_id: UUID | None
    user_id: str | None
    tool_call_id: UUID
    call_id: str
    tool: str
    agent: str
    kind: str
    target: str
    previous: Any
    new: Any
    diff: list[DiffStep]
    created_at: datetime
