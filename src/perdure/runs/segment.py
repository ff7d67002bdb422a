"""A segment's rows: begun by compare-and-set, checkpointed, rested; each one transaction.

Crash points: before a transaction commits nothing of it is there; after it all is. A segment that
has rested cannot begin again, so a worker killed between the rest and DBOS's own record of
success changes nothing when the workflow is recovered.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import record
from perdure.db import Connection, Pool, load_sql
from perdure.errors import Fenced
from perdure.interruptions.audited import withdrawn
from perdure.ledger.journal import Journal
from perdure.runs.guardrails import Said, insert_guardrail_results
from perdure.runs.history import History, add_to_session, history_of
from perdure.runs.inherited import Inherited, inherited_by
from perdure.runs.inputs import Waiting, give, waiting
from perdure.runs.parts import Parts, Quote
from perdure.runs.quoting import as_stored, digests, quotes_of
from perdure.runs.rest import Checkpoint, Rest
from perdure.runs.resume import go_on_if_decided
from perdure.runs.settling import settle
from perdure.runs.states import write_state

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


@dataclass(eq=False)
class SegmentRows:
    """Writes the rows of one execution of a segment, each time behind its fence."""

    pool: Pool
    run_id: UUID
    seq: int
    epoch: int
    items: int
    """How many items of the run are stored."""
    tenant_id: UUID
    session_id: UUID | None = None
    parts: Parts = field(default_factory=Parts)
    """What the run's states have in common."""
    guardrails: list[Said] = field(default_factory=list)
    """What guardrails said that is not stored yet: it goes with the next state or the rest."""

    async def history(self, limit: int | None) -> History:
        """Return what the run is given of its session, if it has one: ``limit`` items at most."""
        if self.session_id is None:
            return History()
        async with self.pool.connection() as conn:
            return await history_of(
                conn,
                tenant_id=self.tenant_id,
                run_id=self.run_id,
                session_id=self.session_id,
                limit=limit,
            )

    async def checkpoint(
        self,
        checkpoint: Checkpoint,
        items: Sequence[dict[str, Any]],
        inputs: Sequence[UUID] = (),
    ) -> None:
        """Write a state in mid-run; it becomes the only active one. ``inputs`` are part of it.

        Raises:
            Fenced: when another execution owns the segment.
        """
        async with self._transaction() as conn:
            of_state, of_items = quotes_of(checkpoint.state.cut, items, self.parts)
            asked = await self._fence(conn, [*of_state, *of_items])
            await self._write_state(conn, checkpoint, quoted=asked["quoted"])
            await self._write_items(conn, items, of_items if asked["quoted"] else ())
            said = await self._write_guardrails(conn)
            if inputs:
                await give(conn, self.run_id, state_seq=checkpoint.seq, ids=inputs)
        self.items += len(items)
        del self.guardrails[:said]

    async def rest(self, rest: Rest) -> str | None:
        """End the segment; returns how, ``cancelled`` if that was asked meanwhile.

        A run that waits for nobody, as its questions are answered already, goes on at once. None,
        and nothing is written, where it would complete and messages wait that it can take.

        Raises:
            Fenced: when another execution owns the segment.
        """
        key = {"run_id": self.run_id, "seq": self.seq, "epoch": self.epoch}
        async with self._transaction() as conn:
            cut = None if rest.checkpoint is None else rest.checkpoint.state.cut
            of_state, of_items = quotes_of(cut, rest.items, self.parts)
            asked = await self._fence(conn, [*of_state, *of_items])
            if rest.takes_inputs and asked["inputs_waiting"] and not asked["cancel_requested"]:
                return None
            cancelled = asked["cancel_requested"] and rest.outcome == "interrupted"
            outcome = "cancelled" if cancelled else rest.outcome
            if rest.checkpoint is not None:
                await self._write_state(conn, rest.checkpoint, quoted=asked["quoted"])
            await self._write_items(conn, rest.items, of_items if asked["quoted"] else ())
            await self._write_guardrails(conn)
            for name, calls in (
                ("not_begun", rest.not_begun),
                ("doubt", rest.doubtful),
                ("cut_short", () if outcome == "interrupted" else rest.cut_short),
                ("await_approval", () if cancelled else rest.awaiting),
                ("supersede", rest.superseded),
            ):
                if calls:
                    await conn.execute(_SQL[name], {**key, "ids": list(calls)})
            settled = False
            if rest.questions and not cancelled:
                voided = [
                    {"id": str(one.replaces), "reason": one.reason}
                    for one in rest.questions
                    if one.replaces is not None
                ]
                if voided:
                    await conn.execute(
                        _SQL["void_interruptions"], {**key, "voided": jsonsafe.dumps(voided)}
                    )
                    entries = [
                        withdrawn(
                            tenant_id=self.tenant_id,
                            run_id=self.run_id,
                            interruption_id=str(one["id"]),
                            reason=str(one["reason"]),
                        )
                        for one in voided
                    ]
                    await record(conn, *entries)
                rows = jsonsafe.dumps([question.as_row() for question in rest.questions])
                await conn.execute(_SQL["insert_interruptions"], {**key, "interruptions": rows})
                left = await settle(
                    conn, tenant_id=self.tenant_id, run_id=self.run_id, questions=rest.questions
                )
                settled = not left
            output = None if rest.output is None else jsonsafe.dumps(rest.output)
            await conn.execute(
                _SQL["rest_run"],
                {
                    **key,
                    "outcome": outcome,
                    "output": output,
                    "error_type": rest.error_type,
                    "error_message": _storable(rest.error_message),
                    "turn": rest.turn,
                    # Who completes has heard its models out.
                    "streaming": outcome != "completed",
                },
            )
            if settled:
                await go_on_if_decided(conn, run_id=self.run_id, segment=self.seq)
        self.items += len(rest.items)
        return outcome

    async def waiting(self) -> list[Waiting]:
        """Return the messages that are in no state yet, in the order they were accepted."""
        async with self.pool.connection() as conn:
            return await waiting(conn, self.run_id)

    async def withdraw(self, calls: Sequence[UUID], *, epoch: int) -> None:
        """Take back that ``calls`` were begun by the execution of ``epoch``: none of them was.

        Raises:
            Fenced: when another execution owns the segment.
        """
        if not calls:
            return
        async with self._transaction() as conn:
            await self._fence(conn)
            await conn.execute(
                _SQL["not_begun"], {"run_id": self.run_id, "ids": list(calls), "epoch": epoch}
            )

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """Open a transaction whose statements are sent together, up to each answer read."""
        async with self.pool.connection() as conn, conn.pipeline(), conn.transaction():
            yield conn

    async def _fence(self, conn: Connection, quotes: Sequence[Quote] = ()) -> dict[str, Any]:
        """Lock the run; returns what was asked of it, and ``quoted``: whether ``quotes`` hold."""
        calls = digests(quotes)
        cursor = await conn.execute(
            _SQL["fence"],
            {
                "run_id": self.run_id,
                "seq": self.seq,
                "epoch": self.epoch,
                "calls": list(calls),
                "digests": list(calls.values()),
            },
        )
        row = await cursor.fetchone()
        if row is None:
            raise Fenced(self.run_id, epoch=self.epoch)
        row["quoted"] = row["quoted"] == len(calls)
        return row

    async def _write_state(self, conn: Connection, checkpoint: Checkpoint, *, quoted: bool) -> None:
        state = checkpoint.state
        key = {"run_id": self.run_id, "state_seq": checkpoint.seq}
        await write_state(
            conn,
            run_id=self.run_id,
            seq=checkpoint.seq,
            kind=checkpoint.kind,
            state=state,
            quoted=quoted,
        )
        await conn.execute(_SQL["carry_calls"], key)
        context = checkpoint.context
        await conn.execute(
            _SQL["checkpoint_run"],
            {
                **key,
                "turn": state.turn,
                "current_agent": state.current_agent,
                "context": None if context is None else jsonsafe.dumps(context),
            },
        )

    async def _write_guardrails(self, conn: Connection) -> int:
        """Write what guardrails said so far, and return how many of them that is."""
        said = list(self.guardrails)
        if said:
            await insert_guardrail_results(conn, run_id=self.run_id, segment=self.seq, said=said)
        return len(said)

    async def _write_items(
        self, conn: Connection, items: Sequence[dict[str, Any]], quotes: Sequence[Quote]
    ) -> None:
        if not items:
            return
        rows = [{**item, "seq": self.items + n} for n, item in enumerate(items, 1)]
        await conn.execute(
            _SQL["insert_items"],
            {"run_id": self.run_id, "items": jsonsafe.dumps(as_stored(rows, quotes))},
        )
        if self.session_id is not None:
            await add_to_session(
                conn,
                tenant_id=self.tenant_id,
                run_id=self.run_id,
                session_id=self.session_id,
                rows=rows,
            )


def _storable(text: str | None) -> str | None:
    """Return ``text`` as a text column takes it: without NUL and lone surrogates."""
    if text is None:
        return None
    clean = json.dumps(text).replace("\\u0000", "\\ufffd")
    return str(json.loads(clean)).encode("utf-8", "replace").decode()
