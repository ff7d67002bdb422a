"""What has to hold of any run's log, whatever happened to the run."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from perdure.access.principals import DEFAULT_TENANT
from perdure.db import Pool
from perdure.events import TERMINAL, Event, read_events, status_after


async def log_of(pool: Pool, run_id: UUID | str, *, page: int = 100) -> list[Event]:
    """The whole log of a run, read in pages."""
    found: list[Event] = []
    while True:
        async with pool.connection() as conn:
            read = await read_events(
                conn,
                tenant_id=DEFAULT_TENANT,
                run_id=UUID(str(run_id)),
                after=found[-1].id if found else 0,
                limit=page,
            )
        found += read.events
        if not read.has_more:
            return found


def check_log(events: Sequence[Event], status: str, *, ends: int = 1) -> None:
    """No gap; folding it gives the run's ``status``; it ended ``ends`` times, the last one last.

    Each call that started has ended, or a rest or a recovery came after it.
    """
    assert [one.id for one in events] == list(range(1, len(events) + 1))
    assert [one.created_at for one in events] == sorted(one.created_at for one in events)
    folded = ""
    under_way: set[tuple[str, str]] = set()
    for one in events:
        folded = status_after(folded, one.event)
        kind, _, change = one.event.partition(".")
        if kind == "tool":
            key = (one.data["scope"], one.data["call_id"])
            if change == "started":
                under_way.add(key)
            else:
                under_way.discard(key)
        elif one.event in ("run.recovered", "run.interrupted", "run.cancelled", "run.failed"):
            under_way.clear()
    assert folded == status
    assert not under_way
    assert sum(one.ends for one in events) == ends
    assert not ends or events[-1].event in TERMINAL


def shape(events: Sequence[Event]) -> list[str]:
    """What happened, a word each; calls and questions by their tool."""
    return [" ".join(filter(None, (one.event, one.data.get("tool")))) for one in events]
