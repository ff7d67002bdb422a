"""What a run is given of its session, and what it adds to it.

A run reads its session as it was when it was first begun, however often it is begun: the moment is
kept with the run, and what is removed from the session meanwhile is hidden, not deleted. Its items
are appended in the transactions in which they are stored with the run: once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agents import RunConfig
from agents.items import TResponseInputItem

from perdure.db import Connection, load_sql
from perdure.errors import NotFoundError
from perdure.runs.sdk import behind_history
from perdure.sessions.items import append
from perdure.sessions.reading import Moment, newest
from perdure.sessions.rules import NewItem

_SQL = load_sql("perdure.runs", "history.sql")


@dataclass(frozen=True, slots=True)
class History:
    """What a run is given of its session: its system prompt, and items, the oldest first."""

    prompt: str | None = None
    items: Sequence[TResponseInputItem] = ()


async def history_of(
    conn: Connection, *, tenant_id: UUID, run_id: UUID, session_id: UUID, limit: int | None
) -> History:
    """Return what a run is given of its session, the newest ``limit`` items at the run's moment.

    In a transaction of its own; the first one says which moment that is.
    """
    async with conn.transaction():
        cursor = await conn.execute(_SQL["hold"], {"run_id": run_id})
        row = await cursor.fetchone()
        if row is not None and row["session_upto"] is None:
            key = {"run_id": run_id, "session_id": session_id}
            row = await (await conn.execute(_SQL["keep_moment"], key)).fetchone()
        if row is None:
            return History()
        moment = Moment(row["session_upto"], row["session_version"])
        try:
            stored = await newest(
                conn, tenant_id=tenant_id, session_id=session_id, at=moment, limit=limit
            )
        except NotFoundError:
            # Deleted meanwhile: the run goes on without.
            return History()
    return History(row["session_prompt"], [one.item for one in stored])


async def with_history(
    run_input: str | list[Any], history: History, config: RunConfig
) -> str | list[Any]:
    """Return a run's input behind its session's items, merged as the SDK does it."""
    merged = run_input
    if history.items:
        merged = await behind_history(run_input, history.items, config)
    if history.prompt is None:
        return merged
    given = [{"role": "user", "content": merged}] if isinstance(merged, str) else merged
    return [{"role": "system", "content": history.prompt}, *given]


async def add_to_session(
    conn: Connection,
    *,
    tenant_id: UUID,
    run_id: UUID,
    session_id: UUID,
    rows: Sequence[dict[str, Any]],
) -> None:
    """Append rows of ``run_items`` to the run's session, in the transaction that stores them."""
    items = [
        NewItem(
            row["item"],
            agent=row["agent"],
            run_id=run_id,
            token_count=row["token_count"],
            metadata=row.get("metadata", {}),
        )
        for row in rows
    ]
    # Deleted meanwhile: what the run said is with the run.
    with suppress(NotFoundError):
        await append(
            conn, tenant_id=tenant_id, session_id=session_id, items=items, by=_Run(str(run_id))
        )


@dataclass(frozen=True, slots=True)
class _Run:
    """A run, as who adds to a session."""

    id: str
    type: str = "run"
    subject: str | None = None
    source: str | None = None
