"""Drives the SDK's runner through one segment, from its base to the next resting point.

The SDK is asked to stop after a turn where a state is due (a handoff, a long way since the last
one, a message to the run), the state is written, and the run goes on from it. Whatever stops the
segment from within lets effects under way finish first.

A message becomes part of the state that is written between two turns; where the last one was to be
the run's end, the run takes another. Recorded replies are replayed first: the state they were
given from is the one they are matched by.
"""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import replace
from typing import Any
from uuid import UUID

import agents as sdk
from agents import RunResultStreaming, RunState
from pydantic import TypeAdapter

from perdure import jsonsafe
from perdure.errors import Fenced, LedgerRejected, LedgerUnavailable, StopSegment, Uncertain
from perdure.logs import run_fields
from perdure.runs.approvals import Tampered, approvals_of
from perdure.runs.budgeting import BudgetReached, budget_question
from perdure.runs.execution import (
    CancelRequested,
    Execution,
    current_execution,
    database_needed,
)
from perdure.runs.failures import classify
from perdure.runs.history import with_history
from perdure.runs.inputs import Waiting
from perdure.runs.items import input_rows, item_rows, token_counts
from perdure.runs.leftovers import (
    begun_calls,
    cancelled,
    leaving_nothing_under_way,
    never_begun,
    unusable_reply,
)
from perdure.runs.questions import Questions
from perdure.runs.registry import Registry
from perdure.runs.rest import Checkpoint, Question, Rest
from perdure.runs.restoring import load_state
from perdure.runs.sdk import add_messages, goes_on, has_turns_left, reopen, resumes_a_turn
from perdure.runs.segment import Begun, SegmentRows
from perdure.runs.state import apply_decisions, dump_state, worth_writing

_ANY: TypeAdapter[Any] = TypeAdapter(Any)


class Driver:
    """One execution's way through its segment; ``run`` returns how the segment rests."""

    def __init__(
        self, registry: Registry, begun: Begun, execution: Execution, rows: SegmentRows
    ) -> None:
        self._registry = registry
        self._begun = begun
        self._execution = execution
        self._rows = rows
        self._fields = run_fields.get()
        self._agent = registry.agent(begun.agent)
        # A fork may go on with an agent that does not lead to those its state tells of.
        self._root = registry.every_agent if begun.forked else self._agent
        self._config = registry.config_for(begun.model)
        self._context = registry.load_context(begun.context)
        self._questions = Questions(registry, execution, self._context)
        self._stream: RunResultStreaming | None = None
        self._turns_since = 0
        self._due: str | None = None
        self._in_turn = False
        self._ended: tuple[RunResultStreaming, RunState[Any, Any]] | None = None
        execution.on_reply = self._on_reply
        execution.on_input = self._on_input
        execution.approvals = approvals_of(begun.decisions)
        execution.dump_context = lambda: registry.dump_context(self._context)
        execution.stored_context = begun.context

    async def run(self) -> Rest:
        """Run to the next resting point; called again, on from there, as messages wait.

        Raises:
            StopSegment: when another execution owns the segment or the database is gone.
        """
        # Tools, hooks and guardrails run outside the workflow's own context: a DBOS step of
        # theirs would share its step counter and could be given another call's result.
        context = contextvars.Context()
        task = asyncio.create_task(self._in_context(), context=context)
        stopped = self._execution.stopped
        try:
            waited: set[asyncio.Future[Any]] = {task, stopped}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not stopped.done():
                rest = task.result()
                await self._execution.flush()
                if not stopped.done():
                    return rest
        finally:
            await self._wind_down(task)
        return await self._stopped_by(stopped.result())

    async def _stopped_by(self, reason: StopSegment) -> Rest:
        if isinstance(reason, Fenced | LedgerUnavailable):
            raise reason
        await self._execution.flush()
        never = [call.id for call in never_begun(self._execution)]
        match reason:
            case CancelRequested():
                return replace(
                    cancelled(begun_calls(self._execution)),
                    not_begun=never,
                    items=self._new_items(self._stream),
                    turn=self._turn,
                )
            case Uncertain():
                begun = [one for one in self._execution.journal.doubts() if one.id not in never]
                rest = self._questions.uncertain(begun, self._execution.lost_replies)
                return replace(rest, not_begun=never, turn=self._turn)
            case BudgetReached():
                question = budget_question(
                    reason.reached,
                    tenant_id=self._begun.tenant_id,
                    run_id=self._execution.run_id,
                    base_seq=self._execution.journal.base_seq,
                )
                return Rest("interrupted", questions=[question], not_begun=never, turn=self._turn)
            case LedgerRejected() | Tampered():
                return leaving_nothing_under_way(
                    Rest("failed", error_type="infrastructure", error_message=str(reason)),
                    self._execution,
                )
        # The worker stops: whoever goes on need not ask about what was never begun.
        await self._rows.withdraw(never, epoch=self._execution.epoch)
        raise reason

    async def _wind_down(self, task: asyncio.Task[Rest]) -> None:
        if task.done():
            return
        stopped = self._execution.stopped
        if stopped.done() and not isinstance(stopped.result(), CancelRequested):
            await self._execution.idle()
        if self._stream is not None:
            self._stream.cancel(mode="immediate")
        task.cancel()
        await asyncio.wait({task})
        if self._stream is not None and self._stream.run_loop_task is not None:
            await asyncio.wait({self._stream.run_loop_task})

    async def _in_context(self) -> Rest:
        current_execution.set(self._execution)
        run_fields.set(self._fields)
        if self._execution.trace is not None:
            self._execution.trace.attach()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs in one
        try:
            return await self._drive()
        except StopSegment as reason:
            await self._execution.park(reason)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if task.cancelling():
                raise
            # A tool may raise anything, CancelledError too; only ours ends the segment.
            return await self._failed(error)
        finally:
            await self._execution.end()

    async def _drive(self) -> Rest:
        if self._ended is not None:
            # The state the run was to end with was not stored.
            self._execution.parts.forget_last()
            result, source = self._ended
            if not await self._goes_on_with_messages(result, source):
                return await self._completed(result, source)
            return await self._drive_from(source)
        doubts = await self._questions.left_by_probes()
        lost = self._questions.lost_with_agents()
        if doubts or lost:
            return self._questions.uncertain(doubts, lost)
        if self._begun.state is None:
            return await self._drive_from(await self._first_input())
        source = await load_state(self._begun.state, self._root, self._context)
        if self._begun.forked and not (goes_on(source) or resumes_a_turn(source)):
            # Forked from its end, with a message.
            reopen(source)
        again = await self._questions.no_longer_as_shown(source)
        if again:
            return self._asked_again(again)
        apply_decisions(source, self._begun.decisions)
        return await self._drive_from(source)

    async def _first_input(self) -> str | list[Any]:
        """Return the run's input, behind what it is given of its session."""
        config = self._config
        limit = None if config.session_settings is None else config.session_settings.limit
        with database_needed(self._rows.run_id, doing="reading its session"):
            history = await self._rows.history(limit)
        return await with_history(self._begun.input, history, config)

    async def _drive_from(self, source: str | list[Any] | RunState[Any, Any]) -> Rest:
        while True:
            if isinstance(source, RunState) and goes_on(source) and self._may_give:
                await self._give(source)
            result = await self._to_next_stop(source)
            if result.interruptions:
                return await self._interrupted(result)
            source = result.to_state()
            # Without a stop of ours it ended by itself; a handler's output leaves no trace in it.
            if self._due is not None and goes_on(source) and result.final_output is None:
                given = await self._waiting(source) if self._may_give else []
                # Nothing is written where it was for messages only, and there are none.
                if given or self._due != "input":
                    kind = "handoff" if self._due == "handoff" else "periodic"
                    await self._write_checkpoint(kind, result, source, given)
            elif not await self._goes_on_with_messages(result, source):
                return await self._completed(result, source)

    async def _give(self, state: RunState[Any, Any]) -> None:
        given = await self._waiting(state)
        if given:
            await self._write_checkpoint("periodic", None, state, given)

    async def _goes_on_with_messages(
        self, result: RunResultStreaming, state: RunState[Any, Any]
    ) -> bool:
        """Let a run that was to end take another turn, if messages wait for it."""
        given = await self._waiting(state)
        if given:
            reopen(state)
            await self._write_checkpoint("periodic", result, state, given)
        return bool(given)

    @property
    def _may_give(self) -> bool:
        """Whether a state may be written for messages: what is recorded would be left behind."""
        return self._execution.inputs_waiting and not self._execution.journal.replaying

    async def _waiting(self, state: RunState[Any, Any]) -> list[Waiting]:
        """Return the messages that wait and may become part of ``state``, in order."""
        if not (self._execution.inputs_waiting and has_turns_left(state)):
            return []
        # What the state before was given has to be told from what waits.
        await self._execution.committed()
        # Before the look: of one that is added after it we are told again.
        self._execution.inputs_waiting = False
        with database_needed(self._rows.run_id, doing="reading the messages added to it"):
            return await self._rows.waiting()

    async def _to_next_stop(
        self, source: str | list[Any] | RunState[Any, Any]
    ) -> RunResultStreaming:
        registry = self._registry
        self._due = None
        fresh = not isinstance(source, RunState)
        self._in_turn = isinstance(source, RunState) and resumes_a_turn(source)
        self._stream = sdk.Runner.run_streamed(
            self._agent,
            source,
            context=self._context if fresh else None,
            max_turns=self._begun.max_turns,
            hooks=registry.hooks,
            run_config=self._config,
            error_handlers=registry.error_handlers,
        )
        self._on_input()
        async for _ in self._stream.stream_events():
            pass
        return self._stream

    def _on_reply(self, handoff: bool) -> None:
        self._turns_since += 1
        self._in_turn = True
        if handoff:
            self._stop_after_turn("handoff")
        elif worth_writing(self._turns_since, self._turn):
            self._stop_after_turn("periodic")
        else:
            self._on_input()

    def _on_input(self) -> None:
        # Asked to stop before its first turn, the SDK returns what looks like an end.
        if self._in_turn and self._due is None and self._may_give:
            self._stop_after_turn("input")

    def _stop_after_turn(self, due: str) -> None:
        self._due = due
        if self._stream is not None:
            self._stream.cancel(mode="after_turn")

    def _checkpoint(self, kind: str, state: RunState[Any, Any]) -> Checkpoint:
        return Checkpoint(
            kind=kind,
            seq=self._execution.journal.base_seq + 1,
            state=dump_state(state, self._registry, self._execution.parts),
            context=self._registry.dump_context(self._context),
        )

    async def _write_checkpoint(
        self,
        kind: str,
        result: RunResultStreaming | None,
        state: RunState[Any, Any],
        given: list[Waiting],
    ) -> None:
        """Write ``state`` with the messages ``given`` to it; ``result`` has what came before."""
        for one in given:
            add_messages(state, one.items)
        # Serialized while the last outcomes still commit.
        checkpoint = self._checkpoint(kind, state)
        await self._execution.flush()
        await self._execution.check()
        items = [] if result is None else self._new_items(result)
        ids = [one.id for one in given]
        self._execution.write_beside(self._store(checkpoint, items, ids))
        self._execution.rebase(checkpoint.seq)
        self._begun = self._begun.moved_on(checkpoint.state.turn)
        self._turns_since = 0

    async def _store(
        self, checkpoint: Checkpoint, items: list[dict[str, Any]], given: list[UUID]
    ) -> None:
        doing = f"storing its state after turn {checkpoint.state.turn}"
        try:
            with database_needed(self._rows.run_id, doing=doing):
                await self._rows.checkpoint(checkpoint, items, given)
        except Exception as error:
            # The run must not go on as if it were stored, whatever stood in the way.
            raise LedgerRejected(self._rows.run_id, doing=doing, reason=str(error)) from error

    def _new_items(self, result: RunResultStreaming | None) -> list[dict[str, Any]]:
        """Return rows of what is not stored yet, of turns that are over; None: none of them is."""
        stored, given = self._rows.items, input_rows(self._begun.input)
        if result is None:
            return given[stored:]
        counts = token_counts(result.raw_responses)
        annotated = self._execution.annotated
        if not annotated and not self._begun.annotations:
            return given[stored:] + item_rows(result.new_items, stored - len(given), counts)
        # From where this execution began: what was said is of the message that follows.
        first = self._begun.items
        rows = given[first:] + item_rows(result.new_items, first - len(given), counts)
        return annotated.onto(rows, pending=self._begun.annotations)[stored - first :]

    async def _completed(self, result: RunResultStreaming, state: RunState[Any, Any]) -> Rest:
        # Serialized while the last reply still commits.
        checkpoint = self._checkpoint("final", state)
        await self._execution.flush()
        self._ended = result, state
        return leaving_nothing_under_way(
            Rest(
                "completed",
                checkpoint=checkpoint,
                items=self._new_items(result),
                output=_as_json(result.final_output),
                takes_inputs=has_turns_left(state),
            ),
            self._execution,
        )

    async def _interrupted(self, result: RunResultStreaming) -> Rest:
        await self._execution.flush()
        state = result.to_state()
        checkpoint = self._checkpoint("interrupted", state)
        questions, waiting = await self._questions.approvals(state, checkpoint.seq)
        return Rest(
            "interrupted",
            checkpoint=checkpoint,
            items=self._new_items(result),
            questions=questions,
            awaiting=waiting,
            not_begun=[call.id for call in never_begun(self._execution)],
            # Agents used as tools that wait: only if the run is cancelled do they end.
            cut_short=[call.id for call in begun_calls(self._execution)],
        )

    def _asked_again(self, questions: list[Question]) -> Rest:
        """Return a rest on the same state, whose decided questions take the place of others."""
        waiting = [one.tool_call_id for one in questions if one.tool_call_id is not None]
        return Rest("interrupted", questions=questions, awaiting=waiting, turn=self._turn)

    async def _failed(self, error: BaseException) -> Rest:
        await self._execution.flush()
        kind, message = classify(error, self._execution.model_errors)
        return leaving_nothing_under_way(
            Rest(
                "failed",
                items=self._new_items(self._stream),
                error_type=kind,
                error_message=message,
                turn=self._turn,
                superseded=unusable_reply(error, self._execution),
            ),
            self._execution,
        )

    @property
    def _turn(self) -> int:
        return self._begun.turn + self._turns_since


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    try:
        return jsonsafe.finite(_ANY.dump_python(value, mode="json"))
    except (TypeError, ValueError, RecursionError):
        return str(value)
