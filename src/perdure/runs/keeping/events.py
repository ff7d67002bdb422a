"""Events of ended runs, deleted before their runs: months whole where that can be, else by run.

A run whose events are gone is read as one that ended, with nothing to follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from perdure.db import Connection, load_sql

__all__ = ["EventsPruned", "drop_empty_months", "prune_events"]

_SQL = load_sql("perdure.runs.keeping", "events.sql")
_DROP = _SQL["drop_months"]
_BATCH = 200


@dataclass(slots=True)
class EventsPruned:
    """The months that were dropped, with their bytes, and what was deleted of other months."""

    months: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    events: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"months": self.months, "runs": self.runs, "events": self.events}


async def prune_events(conn: Connection, age: timedelta, *, dry_run: bool = False) -> EventsPruned:
    """Delete the events of all runs that ended longer ago than ``age``; what was deleted.

    A month in use by somebody is left for the next time, and its rows are deleted one by one. With
    ``dry_run`` rows of months that would be dropped are counted too.
    """
    pruned = EventsPruned(await _drop(conn, age, dry_run))
    after = UUID(int=0)
    while True:
        params = {"age": age, "after": after, "most": _BATCH}
        found = await (await conn.execute(_SQL["runs_with_events"], params)).fetchall()
        old = [row["run_id"] for row in found if row["old"]]
        if old:
            if dry_run:
                [row] = await (await conn.execute(_SQL["count"], {"runs": old})).fetchall()
                pruned.events += row["rows"]
            else:
                pruned.events += (await conn.execute(_SQL["delete"], {"runs": old})).rowcount
            pruned.runs += len(old)
        if len(found) < _BATCH:
            return pruned
        after = found[-1]["run_id"]


async def drop_empty_months(conn: Connection, *, dry_run: bool = False) -> dict[str, int]:
    """Drop the months of events of which no run is left; their names and bytes."""
    return await _drop(conn, None, dry_run)


async def _drop(conn: Connection, age: timedelta | None, dry: bool) -> dict[str, int]:
    try:
        rows = await (await conn.execute(_DROP, {"age": age, "dry": dry})).fetchall()
    except psycopg.errors.LockNotAvailable:
        return {}
    return {row["partition"]: row["bytes"] for row in rows}
