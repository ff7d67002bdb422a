"""What the API gives of feedback; see ``answers``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from perdure.feedback.store import FeedbackType
from perdure.web.answers import Answer


class Feedback(Answer):
    """What somebody thinks of a run or an item: a rating from 1 to 5, or whether they like it.

    ``run_id`` is the run, or the one that made the item; ``item_id`` is null where it is on a run.
    """

    id: UUID
    object: Literal["feedback"]
    run_id: UUID | None
    item_id: UUID | None
    session_id: UUID | None
    user_id: str | None
    rating: int | None
    liked: bool | None
    type: FeedbackType
    comment: str | None
    agent: Annotated[str | None, Field(description="Who made what it is on.")]
    agent_version: Annotated[str | None, Field(description="The `agent_version` of the run.")]
    created_at: datetime
    updated_at: datetime


class Ratings(Answer):
    """How many gave each rating."""

    one: Annotated[int, Field(alias="1")]
    two: Annotated[int, Field(alias="2")]
    three: Annotated[int, Field(alias="3")]
    four: Annotated[int, Field(alias="4")]
    five: Annotated[int, Field(alias="5")]


class FeedbackSummary(Answer):
    """Feedback of one group, summed up; what is not grouped by is left out."""

    object: Literal["feedback_summary"]
    agent: str | None = None
    version: str | None = None
    type: FeedbackType | None = None
    count: int
    average_rating: float | None
    likes: int
    dislikes: int
    ratings: Ratings


class FeedbackSummaries(Answer):
    """All groups, those of the latest feedback of each agent first. At most 1000."""

    object: Literal["list"]
    data: list[FeedbackSummary]
    has_more: bool
