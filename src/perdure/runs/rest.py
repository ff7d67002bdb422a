"""How an execution of a segment ends: what is written in the one transaction of its rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from perdure.db import uuid7
from perdure.interruptions.policies.question_rules import NO_RULES, Rules
from perdure.runs.state import StoredState

__all__ = ["Checkpoint", "Question", "Rest"]


@dataclass(frozen=True, slots=True)
class Question:
    """An interruption to open, with the columns of its row."""

    type: str
    tool_call_id: UUID | None
    agent: str
    scope: str
    ordinal: int
    tool: dict[str, Any] | None
    digest: str
    base_seq: int
    question: str | None = None
    schema: dict[str, Any] | None = None
    """What an answer has to fit."""
    replaces: UUID | None = None
    """The decided interruption whose place it takes, as what that had shown no longer stands."""
    reason: str | None = None
    """Why that one is cancelled: ``schema_changed`` or ``tool_removed``."""
    budget: dict[str, Any] | None = None
    """The budget it is about, as it stands."""
    rules: Rules = NO_RULES
    id: UUID = field(default_factory=uuid7)

    def as_row(self) -> dict[str, Any]:
        """Return the columns of its row."""
        return {
            "id": str(self.id),
            "type": self.type,
            "tool_call_id": str(self.tool_call_id) if self.tool_call_id else None,
            "agent": self.agent,
            "scope": self.scope,
            "ordinal": self.ordinal,
            "tool": self.tool,
            "digest": self.digest,
            "base_seq": self.base_seq,
            "question": self.question,
            "rules": self.rules.as_json(),
            "required": self.rules.required,
            "expires_after": self.rules.expires_after,
            "remind_every": self.rules.remind_every,
            "schema": self.schema,
            "budget": self.budget,
            "replaces": str(self.replaces) if self.replaces else None,
        }


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run state to write, its number, and the items that came with it."""

    kind: str
    seq: int
    state: StoredState
    context: Any


@dataclass(frozen=True, slots=True)
class Rest:
    """How a segment ends: the run's next status and all that is written with it."""

    outcome: str
    checkpoint: Checkpoint | None = None
    items: Sequence[dict[str, Any]] = ()
    questions: Sequence[Question] = ()
    awaiting: Sequence[UUID] = ()
    """Tool calls that wait for approval now."""
    doubtful: Sequence[UUID] = ()
    """Tool calls whose effect is unknown."""
    not_begun: Sequence[UUID] = ()
    """Tool calls marked as begun that never were."""
    cut_short: Sequence[UUID] = ()
    """Tool calls that end with the run, if it does, and may be made again."""
    superseded: Sequence[UUID] = ()
    """Replies that will not be matched again."""
    output: Any = None
    takes_inputs: bool = False
    """Whether the run goes on instead where messages wait for it."""
    error_type: str | None = None
    error_message: str | None = None
    turn: int = 0
    """How many turns were taken, where no checkpoint says it."""
