"""What the API gives of checkpoints and of runs beside each other; see ``answers``."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from perdure.web.answers import Answer, Checkpoint, Item, Run, RunStatus, TotalUsage


class StoredCheckpoint(Checkpoint):
    """A checkpoint whole: ``state`` is the SDK's."""

    state: Any


class Agents(Answer):
    """Whose turn it was at each of the two."""

    base: str
    checkpoint: str


class Step(Answer):
    """A step of JSON Patch, with what was there before."""

    op: Literal["add", "remove", "replace"]
    path: str
    previous: Any = None
    new: Any = None


class CheckpointDiff(Answer):
    """What came about between two checkpoints; ``base`` is null where that is the beginning.

    ``context`` has the steps from the run's context at the one to that at the other. Go on with
    ``after`` and the last item's ``seq`` while ``has_more``.
    """

    object: Literal["checkpoint_diff"]
    run_id: UUID
    base: Checkpoint | None
    checkpoint: Checkpoint | None
    agent: Agents
    turns: int
    usage: TotalUsage
    context: list[Step]
    items: list[Item]
    has_more: bool


class RunAsked(Answer):
    """What the user said in the turn."""

    base: str | None
    run: str | None
    same: bool


class RunSide(Answer):
    """A turn of one of the two; ``text`` is what was answered in words."""

    items: list[Item]
    text: str | None
    run_id: UUID
    run_status: RunStatus


class RunChange(Answer):
    """A stretch of words of both texts; all of them after each other are the texts."""

    op: Literal["equal", "insert", "delete", "replace"]
    base: str
    run: str


class ComparedRunTurn(Answer):
    """A turn of both after what they share; null where one of them has none of this number.

    ``same``: both said and called the same.
    """

    number: int
    input: RunAsked
    base: RunSide | None
    run: RunSide | None
    same: bool
    changes: list[RunChange]


class BothUsage(Answer):
    """What each used, from where the one was forked from the other."""

    base: TotalUsage
    run: TotalUsage


class RunDiff(Answer):
    """Two runs beside each other, after the first items, which they share.

    ``truncated``: one of them has more items than were compared.
    """

    object: Literal["run_diff"]
    base: Run
    run: Run
    shared_items: int
    turns: list[ComparedRunTurn]
    usage: BothUsage
    same_output: bool
    truncated: bool
