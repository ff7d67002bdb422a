"""A fork: a run that goes on from a checkpoint of another one, or begins as that began.

What the other run was, said and did up to the checkpoint is copied: its state, its items, the
calls the state waits with. What it did afterwards is left to it; the fork's calls may be answered
with what came of them there (inherited.py). Nothing of the other run is changed, and what people
let run in it lets nothing run here. A run of a session goes on in a branch of it.

All of a fork is one transaction: whoever dies meanwhile leaves it whole, queued for any worker, or
nothing. The other run may be under way: it is held only against being deleted, and all that is read
of it is as it was once the checkpoint was written, which nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID

from perdure import jsonsafe
from perdure.access.principals import Principal
from perdure.audit.log import Entry, record
from perdure.budgets.limits import Limits
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import InvalidRequestError, InvalidStateError, NotFoundError
from perdure.ledger.effects import idempotency_key
from perdure.runs.forked_state import ForkedState, forked_state
from perdure.runs.history import add_to_session
from perdure.runs.inputs import add_input, messages_of
from perdure.runs.state import WholeState
from perdure.runs.states import read_state, write_state
from perdure.runs.store import NewRun, start_run
from perdure.sessions.branching import branch_session

__all__ = ["MAX_INSTRUCTIONS", "TOOLS", "Fork", "Tools", "fork_run"]

_SQL = load_sql("perdure.runs", "forking.sql")
_HOLD_PARENT = _SQL["hold_parent"]
_FIND_CHECKPOINT = _SQL["find_checkpoint"]
_LAST_CHECKPOINT = _SQL["last_checkpoint"]
_MARK_FORK = _SQL["mark_fork"]
_ITEMS = _SQL["items"]
_INSERT_ITEMS = _SQL["insert_items"]
_OPEN_CALLS = _SQL["open_calls"]
_INSERT_CALLS = _SQL["insert_calls"]

Tools = Literal["ledger", "run"]
TOOLS: tuple[Tools, ...] = ("ledger", "run")
MAX_INSTRUCTIONS = 100_000
"""Characters of what an agent is told."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fork:
    """From where a run is forked, and what is other in the fork; None: as it was.

    ``checkpoint`` is the number of one of its states, 0 its beginning; by default its latest that
    is not final, and its beginning where there is none such. ``input`` is another message of the
    user there, or, at the beginning, what the run is given. ``instructions`` are told the agent
    that goes on, ``agent`` is who does. ``model`` is one for all agents.

    ``tools``: ``ledger`` answers calls with what came of the same ones in the other run, and asks a
    person before any other that is not of the effect ``read``; ``run`` makes them as usual.
    """

    checkpoint: int | None = None
    input: Any = None
    instructions: str | None = None
    agent: str | None = None
    model: str | None = None
    tools: Tools = "ledger"

    def __post_init__(self) -> None:
        """Check what a program may have got wrong.

        Raises:
            InvalidRequestError: naming the field.
        """
        if self.checkpoint is not None and not 0 <= self.checkpoint < 2**31:
            raise InvalidRequestError.at("/checkpoint", "has to be the number of a checkpoint.")
        if self.instructions is not None and not 0 < len(self.instructions) <= MAX_INSTRUCTIONS:
            raise InvalidRequestError.at(
                "/instructions", f"have to have 1 to {MAX_INSTRUCTIONS} characters."
            )
        if self.tools not in TOOLS:
            raise InvalidRequestError.at("/tools", f"has to be one of {', '.join(TOOLS)}.")


@dataclass(frozen=True, slots=True)
class _Base:
    """The checkpoint a fork goes on from."""

    row: Row
    whole: WholeState
    state: ForkedState


async def fork_run(
    conn: Connection, *, tenant_id: UUID, run_id: UUID, fork: Fork, by: Principal
) -> UUID:
    """Start a run that goes on from a checkpoint of another one, and return its id.

    Joins the caller's transaction or makes one. The agent and the model have been checked.

    Raises:
        NotFoundError: the tenant has no such run.
        InvalidRequestError: it has no such checkpoint, or the input is none there.
        InvalidStateError: the checkpoint does not allow what was asked.
        ConflictError: its session is as deep in its tree as one can be.
    """
    async with conn.transaction():
        parent = await _hold(conn, tenant_id, run_id)
        base = await _base(conn, run_id, fork)
        session_id = await _branch(conn, tenant_id, parent, by)
        # What is given at the beginning takes the place of what was; later it is a message more.
        message = None if base is None or fork.input is None else messages_of(fork.input)
        new = _new_run(tenant_id, parent, fork, base, session_id, by)
        fork_id = await start_run(conn, new)
        seq = 0 if base is None else int(base.row["seq"])
        await conn.execute(
            _MARK_FORK,
            {**_marks(parent, fork, base), "run_id": fork_id, "parent": run_id, "seq": seq},
        )
        if base is not None:
            await _copy(conn, tenant_id, run_id, fork_id, base, session_id)
        if message is not None:
            await add_input(conn, tenant_id=tenant_id, run_id=fork_id, input=message, by=by)
        details = {
            "forked_from": str(run_id),
            "checkpoint": seq,
            "agent": new.agent,
            "model": new.model,
            "tools": new.tools,
            "instructions": fork.instructions is not None,
        }
        entry = Entry("run.forked", tenant_id, ("run", fork_id), by, fork_id, details=details)
        await record(conn, entry)
    return fork_id


async def _hold(conn: Connection, tenant_id: UUID, run_id: UUID) -> Row:
    cursor = await conn.execute(_HOLD_PARENT, {"parent": run_id, "tenant_id": tenant_id})
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError("run", run_id)
    return row


async def _base(conn: Connection, run_id: UUID, fork: Fork) -> _Base | None:
    """Return the checkpoint to go on from, None for the run's beginning."""
    if fork.checkpoint == 0:
        return None
    key = {"parent": run_id, "seq": fork.checkpoint}
    row = await (await conn.execute(_FIND_CHECKPOINT, key)).fetchone()
    if row is None and fork.checkpoint is None:
        return None
    if row is None:
        [last] = await (await conn.execute(_LAST_CHECKPOINT, key)).fetchall()
        raise InvalidRequestError.at(
            "/checkpoint",
            f"There is no checkpoint {fork.checkpoint} of run {run_id}: they go from 0, its "
            f"beginning, to {last['seq']}.",
        )
    other = None if fork.agent == row["current_agent"] else fork.agent
    whole = await read_state(conn, run_id=run_id, seq=row["seq"])
    state = forked_state(whole.data, agent=other)
    _check(run_id, fork, row, state)
    return _Base(row, whole, state)


def _check(run_id: UUID, fork: Fork, row: Row, state: ForkedState) -> None:
    which = f"{row['seq']} of run {run_id}"
    if state.waits and state.agent != row["current_agent"]:
        raise InvalidStateError(
            *("Checkpoint", which),
            status=f"in the middle of a turn of agent {row['current_agent']!r}",
            action="gone on with by another agent",
            hint="Fork it without agent, or from a checkpoint before or after.",
        )
    if row["kind"] == "final" and fork.input is None:
        raise InvalidStateError(
            *("Checkpoint", which),
            status="final",
            action="forked without input",
            hint="Give another message to go on with, or an earlier checkpoint: 0 is the "
            "run's beginning.",
        )
    if not state.waits and state.turns_left == 0:
        raise InvalidStateError(
            *("Checkpoint", which),
            status="at the run's last turn",
            action="gone on from",
            hint="Fork from an earlier checkpoint: 0 is the run's beginning.",
        )


async def _branch(conn: Connection, tenant_id: UUID, parent: Row, by: Principal) -> UUID | None:
    """Return a branch of the session the run is in, as far as the run had read it."""
    if parent["session_id"] is None:
        return None
    try:
        branch = await branch_session(
            conn,
            tenant_id=tenant_id,
            session_id=parent["session_id"],
            by=by,
            from_seq=parent["session_upto"],
        )
    except NotFoundError:
        # Deleted since: what the run had read of it is in its states.
        return None
    return UUID(branch["id"])


def _new_run(
    tenant_id: UUID,
    parent: Row,
    fork: Fork,
    base: _Base | None,
    session_id: UUID | None,
    by: Principal,
) -> NewRun:
    context = parent["context"]
    return NewRun(
        tenant_id=tenant_id,
        agent=fork.agent or parent["agent"],
        input=fork.input if base is None and fork.input is not None else _input(parent),
        max_turns=parent["max_turns"],
        context=base.state.context if base is not None else context and jsonsafe.loads(context),
        user_id=parent["user_id"],
        metadata=jsonsafe.loads(parent["metadata"]),
        task=parent["task"],
        priority=parent["priority"],
        session_id=session_id,
        started_by=by.as_requester(),
        model=fork.model or parent["model"],
        tools=fork.tools,
        budget=Limits(parent["cost_usd"], parent["total_tokens"]) if parent["budgeted"] else None,
    )


def _input(parent: Row) -> str | list[Any]:
    """Return what the run was given before any model was asked."""
    own: str | list[Any] = jsonsafe.loads(parent["input"])
    more = [item for items in jsonsafe.loads(parent["first_inputs"]) for item in items]
    if not more:
        return own
    return [*([{"role": "user", "content": own}] if isinstance(own, str) else own), *more]


def _marks(parent: Row, fork: Fork, base: _Base | None) -> Row:
    agent = fork.agent or (parent["agent"] if base is None else base.row["current_agent"])
    told, told_to = parent["instructions"], parent["instructions_agent"]
    if fork.instructions is not None:
        told, told_to = jsonsafe.protect_text(fork.instructions), agent
    return {
        "current_agent": agent,
        "turn": 0 if base is None else base.row["turn"],
        "instructions": told,
        "instructions_agent": told_to,
        "session_prompt": parent["session_prompt"],
        "begun": parent["session_upto"] is not None,
    }


async def _copy(
    conn: Connection,
    tenant_id: UUID,
    parent_id: UUID,
    fork_id: UUID,
    base: _Base,
    session_id: UUID | None,
) -> None:
    """Write what the fork has of the other run: the state as its first, and what came with it."""
    row, key = base.row, {"parent": parent_id, "seq": base.row["seq"]}
    whole = replace(base.whole, data=base.state.data, current_agent=base.state.agent)
    await write_state(conn, run_id=fork_id, seq=1, kind=row["kind"], state=whole.of_a_new_run())
    cursor = await conn.execute(_ITEMS, key)
    items = [
        {**jsonsafe.loads(one["item"]), "id": str(uuid7()), "run_id": str(fork_id)}
        for one in await cursor.fetchall()
    ]
    await conn.execute(_INSERT_ITEMS, {"rows": jsonsafe.dumps(items)})
    if session_id is not None and items:
        await add_to_session(
            conn, tenant_id=tenant_id, run_id=fork_id, session_id=session_id, rows=items
        )
    cursor = await conn.execute(_OPEN_CALLS, key)
    calls = [jsonsafe.loads(one["call"]) for one in await cursor.fetchall()]
    rows = [
        {
            **call,
            "id": str(uuid7()),
            "status": "awaiting_approval" if call["waits"] else "proposed",
            "idempotency_key": idempotency_key(fork_id, call["scope"], call["call_id"]),
        }
        for call in calls
    ]
    given = {"run_id": fork_id, "tenant_id": tenant_id, "rows": jsonsafe.dumps(rows)}
    await conn.execute(_INSERT_CALLS, given)
