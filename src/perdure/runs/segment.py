"""How an execution of a segment begins: by compare-and-set, from the latest state and the ledger.

A segment that has rested cannot begin again, and one that is begun again raises its epoch: what an
earlier execution still writes is refused (see segment_rows.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, Pool, load_sql
from perdure.ledger.journal import Journal
from perdure.runs.inherited import Inherited, inherited_by
from perdure.runs.inputs import give
from perdure.runs.parts import Parts

_SQL = load_sql("perdure.runs", "segment.sql")
NOTHING: Mapping[str, Any] = {
    "base_seq": 0,
    "state": None,
    "body": None,
    "parts": [],
    "quotes": "{}",
    "kind": None,
    "turn": 0,
    "items": 0,
    "replies": "[]",
    "calls": "[]",
    "context": None,
    "decisions": "[]",
    "first_inputs": "[]",
    "annotations": "[]",
}
"""What ``read_latest`` finds where nothing has been written."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What an execution of a segment starts from."""

    tenant_id: UUID
    agent: str
    input: str | list[Any]
    """The run's own, and the messages added before any model had been asked."""
    session_id: UUID | None
    context: Any
    max_turns: int
    model: str | None
    """The model all its agents are run with; None: each with its own."""
    asks_first: bool
    """Whether a person is asked before each call that is not of the effect ``read``."""
    forked: bool
    """Whether it went on from a checkpoint of another run."""
    instructions: tuple[str, str] | None
    """An agent, and what it is told instead of its own instructions."""
    inherited: Inherited | None
    """What its calls may be answered with; None: they are made."""
    turn: int
    epoch: int
    executions: int
    started_at: datetime
    """When the segment was first executed."""
    after: str | None
    """How the execution before this one ended: ``handover``, ``trouble`` or ``death``."""
    stalled: int
    """How many executions in a row died with a process they shared, and recorded nothing."""
    alone_deaths: int
    """How many processes in a row died that ran this segment alone, and recorded nothing."""
    cancel_requested: bool
    inputs_waiting: bool
    """Whether there are messages that are in no state yet."""
    annotations: Sequence[dict[str, Any]]
    """What tools said of what they gave, and no message has followed."""
    policies_revision: int
    """Which revision the tenant's policies had."""
    budgeted: bool
    """Whether there are budgets it may count to."""
    mcp_lists: dict[str, list[dict[str, Any]]]
    """What MCP servers offered an earlier execution of this segment."""
    state: str | None
    """Its latest state, whole."""
    parts: Parts
    """What its states have in common."""
    journal: Journal
    decisions: list[dict[str, Any]]
    items: int
    """How many items of the run are stored."""

    def moved_on(self, turn: int) -> Begun:
        """Return this at a later turn, after a checkpoint in mid-segment."""
        return replace(self, turn=turn)


async def begin(
    pool: Pool,
    run_id: UUID,
    seq: int,
    executor_id: str,
    *,
    alone: bool = False,
    after: int | None = None,
    versions: Mapping[str, str] | None = None,
) -> Begun | None:
    """Begin an execution of segment ``seq``, or return None when it is not to be run.

    Raises the segment's epoch, so that every earlier execution is fenced, and reads the latest
    state and the ledger after it. ``alone``: this process runs nothing else. ``versions``: those
    of this build's agents, by name; a run keeps that of its agent in the build that first began it.
    None: the run has gone on, rested or ended already, or the segment's epoch is no longer
    ``after``.
    """
    async with pool.connection() as conn:
        key = {"run_id": run_id, "seq": seq}
        cursor = await conn.execute(
            _SQL["begin"],
            {
                **key,
                "executor_id": executor_id,
                "alone": alone,
                "after": after,
                "versions": jsonsafe.dumps(dict(versions or {})),
            },
        )
        begun = await cursor.fetchone()
        if begun is None:
            return None
        # A statement of its own: its snapshot has to see what a fenced writer still committed.
        # Nobody has written anything before a run's first execution, but whoever forked it.
        loaded, inherited = NOTHING, None
        if seq > 1 or begun["epoch"] > 1 or begun["forked_seq"] is not None:
            loaded = await read_latest(conn, run_id)
        if begun["tools"] == "ledger":
            inherited = await inherited_by(conn, run_id)
        if loaded["kind"] == "interrupted":
            await conn.execute(_SQL["mark_resumed"], key)
        more = [item for items in jsonsafe.loads(loaded["first_inputs"]) for item in items]
        wait = begun["inputs_waiting"] and not begun["cancel_requested"]
        if wait and loaded["kind"] is None and loaded["replies"] == "[]":
            more += await give(conn, run_id, state_seq=0)
            wait = False
    return begun_from(begun, loaded, more, inputs_waiting=wait, inherited=inherited)


async def read_latest(conn: Connection, run_id: UUID) -> Mapping[str, Any]:
    """Return the row of a run's latest state and the ledger after it; it locks nothing."""
    cursor = await conn.execute(_SQL["load"], {"run_id": run_id})
    [loaded] = await cursor.fetchall()
    return loaded


def begun_from(
    begun: Mapping[str, Any],
    loaded: Mapping[str, Any],
    more: list[Any],
    *,
    inputs_waiting: bool,
    inherited: Inherited | None = None,
) -> Begun:
    """Return what an execution starts from; ``more`` are messages added to the run's input. Pure.

    ``begun`` is the row of ``begin``, ``loaded`` that of ``read_latest``, or ``NOTHING``;
    ``inherited`` answers calls of a fork.
    """
    journal = Journal.load(
        loaded["base_seq"], jsonsafe.loads(loaded["replies"]), jsonsafe.loads(loaded["calls"])
    )
    parts = Parts(len(loaded["parts"]))
    state = loaded["state"]
    if loaded["body"] is not None:
        state = parts.whole(loaded["body"], loaded["parts"], loaded["quotes"])
    context = loaded["context"] or begun["context"]
    return Begun(
        tenant_id=begun["tenant_id"],
        agent=begun["agent"],
        input=_with_more(jsonsafe.loads(begun["input"]), more),
        session_id=begun["session_id"],
        context=None if context is None else jsonsafe.loads(context),
        max_turns=begun["max_turns"],
        model=begun["model"],
        asks_first=begun["tools"] in ("ask", "ledger"),
        forked=begun["forked_seq"] is not None,
        instructions=_instructions(begun),
        inherited=inherited,
        turn=loaded["turn"],
        epoch=begun["epoch"],
        executions=begun["executions"],
        started_at=begun["started_at"],
        after=begun["after"],
        stalled=begun["stalled"],
        alone_deaths=begun["alone_deaths"],
        cancel_requested=begun["cancel_requested"],
        inputs_waiting=inputs_waiting,
        annotations=jsonsafe.loads(loaded["annotations"]),
        policies_revision=begun["policies_revision"],
        budgeted=begun["budgeted"],
        mcp_lists=jsonsafe.loads(begun["mcp_tools"]),
        state=state,
        parts=parts,
        journal=journal,
        decisions=jsonsafe.loads(loaded["decisions"]),
        items=loaded["items"],
    )


def _instructions(begun: Mapping[str, Any]) -> tuple[str, str] | None:
    if begun["instructions"] is None:
        return None
    return begun["instructions_agent"], jsonsafe.unprotect_text(begun["instructions"])


def _with_more(own: str | list[Any], more: list[Any]) -> str | list[Any]:
    if not more:
        return own
    first = [{"role": "user", "content": own}] if isinstance(own, str) else own
    return [*first, *more]
