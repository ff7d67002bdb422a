"""What an event is, and what it means for the run it happened to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

KINDS: Final = (
    *("run.queued", "run.started", "run.recovered", "run.interrupted", "run.resumed"),
    *("run.completed", "run.failed", "run.cancelled", "agent.started", "handoff"),
    *("model.started", "model.delta", "model.completed", "model.superseded"),
    *("tool.started", "tool.completed", "tool.failed", "tool.uncertain"),
    *("interruption.created", "interruption.decided", "input.added", "input.given"),
    "checkpoint.saved",
)
"""All there are, as the database has them (``perdure.event_kind``)."""
TERMINAL: Final = frozenset({"run.completed", "run.failed", "run.cancelled"})
"""What a log ends with. A failed run that is resumed goes on with ``run.queued``."""

_STATUS_AFTER: Final = {
    "run.queued": "queued",
    "run.started": "running",
    "run.recovered": "running",
    "run.resumed": "running",
    "run.interrupted": "interrupted",
    "run.completed": "completed",
    "run.failed": "failed",
    "run.cancelled": "cancelled",
}
_FRAME: Final = frozenset({"id", "object", "event", "run_id", "created_at"})


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a run.

    ``id`` rises by one within the run; ``event`` says what happened (``tool.started``, …) and
    ``data`` about what: ids, names and short texts. ``created_at`` is RFC 3339 in UTC.
    """

    id: int
    event: str
    run_id: str
    created_at: str
    data: dict[str, Any]

    @property
    def ends(self) -> bool:
        """Whether the run has ended with it."""
        return self.event in TERMINAL

    def as_object(self) -> dict[str, Any]:
        """Return it as the API shows it: one object, ``data`` beside the rest."""
        return {
            "id": self.id,
            "object": "event",
            "event": self.event,
            "run_id": self.run_id,
            "created_at": self.created_at,
            **self.data,
        }

    @classmethod
    def of(cls, shown: dict[str, Any]) -> Event:
        """Return the event that ``as_object`` made ``shown`` of."""
        data = {k: v for k, v in shown.items() if k not in _FRAME}
        return cls(shown["id"], shown["event"], shown["run_id"], shown["created_at"], data)


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in order. ``has_more``: others are there already; ``over``: none will come.

    ``last`` is the number of the log's last event at that moment.
    """

    events: list[Event]
    has_more: bool
    over: bool
    last: int


def status_after(status: str, event: str) -> str:
    """Return the status of a run that had ``status`` and to which ``event`` happened."""
    return _STATUS_AFTER.get(event, status)
