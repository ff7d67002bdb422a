"""Drives the SDK's runner through one segment, from its base to the next resting point.

The SDK is asked to stop after a turn where a state is due (a handoff, or a long way since the
last one), the state is written, and the run goes on from it. Whatever stops the segment from
within lets effects under way finish first.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import agents as sdk
from agents import RunResultStreaming, RunState
from agents.items import ToolApprovalItem
from pydantic import TypeAdapter

from perdure import jsonsafe
from perdure.errors import StopSegment, Uncertain
from perdure.interruptions.digest import digest_v1
from perdure.ledger.journal import RecordedCall
from perdure.runs.execution import CancelRequested, Execution, current_execution, scope_text
from perdure.runs.failures import classify, is_unusable_reply
from perdure.runs.items import input_rows, item_rows
from perdure.runs.registry import Registry
from perdure.runs.sdk import PendingApproval, goes_on, pending_approvals
from perdure.runs.segment import Begun, Checkpoint, Question, Rest, SegmentRows
from perdure.runs.state import apply_decisions, dump_state, load_state, worth_writing

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
        self._agent = registry.agent(begun.agent)
        self._context = registry.load_context(begun.context)
        self._stream: RunResultStreaming | None = None
        self._turns_since = 0
        self._due: str | None = None
        execution.on_reply = self._on_reply
        execution.dump_context = lambda: registry.dump_context(self._context)
        execution.stored_context = begun.context

    async def run(self) -> Rest:
        """Run to the next resting point.

        Raises:
            StopSegment: when another execution owns the segment or the database is gone.
        """
        doubts = self._doubts()
        if doubts:
            return self._ask_about(doubts)
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
        reason = stopped.result()
        if isinstance(reason, CancelRequested):
            await self._execution.flush()
            doubtful = [call.id for call in self._begun_calls()]
            return Rest("cancelled", doubtful=doubtful, turn=self._turn)
        if isinstance(reason, Uncertain):
            return self._ask_about_lost_reply(reason)
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

    async def _drive(self) -> Rest:
        source: str | list[Any] | RunState[Any, Any] = self._begun.input
        if self._begun.state is not None:
            source = await load_state(self._begun.state, self._agent, self._context)
            apply_decisions(source, self._begun.decisions)
        while True:
            result = await self._to_next_stop(source)
            if result.interruptions:
                return await self._interrupted(result)
            state = result.to_state()
            # Without a stop of ours it ended by itself; a handler's output leaves no trace in it.
            if self._due is None or not goes_on(state):
                return await self._completed(result, state)
            await self._write_checkpoint(self._due, result, state)
            source = state

    async def _to_next_stop(
        self, source: str | list[Any] | RunState[Any, Any]
    ) -> RunResultStreaming:
        registry = self._registry
        self._due = None
        fresh = not isinstance(source, RunState)
        self._stream = sdk.Runner.run_streamed(
            self._agent,
            source,
            context=self._context if fresh else None,
            max_turns=self._begun.max_turns,
            hooks=registry.hooks,
            run_config=registry.sdk_config,
            error_handlers=registry.error_handlers,
        )
        async for _ in self._stream.stream_events():
            pass
        return self._stream

    def _on_reply(self, handoff: bool) -> None:
        self._turns_since += 1
        if handoff:
            self._due = "handoff"
        elif worth_writing(self._turns_since, self._turn):
            self._due = "periodic"
        if self._due is not None and self._stream is not None:
            self._stream.cancel(mode="after_turn")

    def _checkpoint(self, kind: str, state: RunState[Any, Any]) -> Checkpoint:
        return Checkpoint(
            kind=kind,
            seq=self._execution.journal.base_seq + 1,
            state=dump_state(state, self._registry),
            context=self._registry.dump_context(self._context),
        )

    async def _write_checkpoint(
        self, kind: str, result: RunResultStreaming, state: RunState[Any, Any]
    ) -> None:
        await self._execution.flush()
        await self._execution.check()
        checkpoint = self._checkpoint(kind, state)
        await self._rows.checkpoint(checkpoint, self._new_items(result))
        self._execution.rebase(checkpoint.seq)
        self._begun = self._begun.moved_on(checkpoint.state.turn)
        self._turns_since = 0

    def _new_items(self, result: RunResultStreaming) -> list[dict[str, Any]]:
        rows = input_rows(self._begun.input) + item_rows(result.new_items)
        return rows[self._rows.items :]

    async def _completed(self, result: RunResultStreaming, state: RunState[Any, Any]) -> Rest:
        await self._execution.flush()
        return self._leaving_nothing_under_way(
            Rest(
                "completed",
                checkpoint=self._checkpoint("final", state),
                items=self._new_items(result),
                output=_as_json(result.final_output),
            )
        )

    async def _interrupted(self, result: RunResultStreaming) -> Rest:
        await self._execution.flush()
        state = result.to_state()
        checkpoint = self._checkpoint("interrupted", state)
        questions = []
        waiting: list[UUID] = []
        for ordinal, pending in enumerate(pending_approvals(state)):
            question = await self._approval(ordinal, pending, checkpoint.seq)
            questions.append(question)
            if question.tool_call_id is not None:
                waiting.append(question.tool_call_id)
        return Rest(
            "interrupted",
            checkpoint=checkpoint,
            items=self._new_items(result),
            questions=questions,
            awaiting=waiting,
            not_begun=[call.id for call in self._never_begun()],
        )

    async def _approval(self, ordinal: int, pending: PendingApproval, base_seq: int) -> Question:
        item, call_id, scope = pending.item, pending.call_id, scope_text(pending.path)
        call = self._execution.call(scope, call_id)
        name = item.qualified_name or item.tool_name or ""
        arguments: Any = item.arguments if call is None else call.arguments
        if arguments is None:
            arguments = (call.arguments_raw if call is not None else None) or ""
        schema = await self._schema(item)
        return Question(
            type="tool_approval",
            tool_call_id=call.id if call is not None else None,
            agent=item.agent.name,
            scope=scope,
            ordinal=ordinal,
            tool={"name": name, "call_id": call_id, "arguments": arguments, "schema": schema},
            digest=self._digest(base_seq, scope, call_id, name, schema, arguments),
            base_seq=base_seq,
        )

    async def _schema(self, item: ToolApprovalItem) -> dict[str, Any] | None:
        agent = item.agent
        for tool in await agent.get_all_tools(sdk.RunContextWrapper(self._context)):
            if isinstance(tool, sdk.FunctionTool) and tool.name == item.tool_name:
                return tool.params_json_schema
        return None

    def _digest(
        self,
        base_seq: int,
        scope: str,
        call_id: str,
        tool: str,
        schema: dict[str, Any] | None,
        arguments: Any,
    ) -> str:
        return digest_v1(
            tenant_id=self._execution.tenant_id,
            run_id=self._execution.run_id,
            base_seq=base_seq,
            scope=scope,
            call_id=call_id,
            tool=tool,
            schema=schema,
            arguments=arguments,
        )

    def _doubts(self) -> list[RecordedCall]:
        """Return what a person has to settle before anything runs, all at once."""
        journal = self._execution.journal
        doubts = journal.doubts()
        known = {call.id for call in doubts}
        doubts += [
            call
            for call in journal.calls.values()
            if call.status == "executing"
            and call.kind in ("function", "agent")
            and call.id not in known
            and self._is_gone(call)
        ]
        return doubts

    def _is_gone(self, call: RecordedCall) -> bool:
        agent = self._registry.agents.get(call.agent)
        if agent is None:
            return True
        names = {getattr(tool, "name", None) for tool in agent.tools}
        return not agent.mcp_servers and call.tool not in names

    def _ask_about(self, doubts: Sequence[RecordedCall]) -> Rest:
        return Rest(
            "interrupted",
            questions=[self._uncertain(n, call) for n, call in enumerate(doubts)],
            doubtful=[call.id for call in doubts],
        )

    def _uncertain(self, ordinal: int, call: RecordedCall, question: str | None = None) -> Question:
        arguments = call.arguments if call.arguments is not None else call.arguments_raw or ""
        base_seq = self._execution.journal.base_seq
        return Question(
            type="uncertain_effect",
            tool_call_id=call.id,
            agent=call.agent,
            scope=call.scope,
            ordinal=ordinal,
            tool={
                "name": call.tool,
                "call_id": call.call_id,
                "arguments": arguments,
                "schema": None,
            },
            digest=self._digest(base_seq, call.scope, call.call_id, call.tool, None, arguments),
            base_seq=base_seq,
            question=question
            or (
                f"{call.tool} was begun (attempt {call.attempt}) and its process died before the "
                "outcome was recorded. Did it happen?"
            ),
        )

    def _ask_about_lost_reply(self, reason: Uncertain) -> Rest:
        calls = [
            call
            for call in self._execution.journal.calls.values()
            if call.call_id in reason.call_ids
        ]
        reply = self._execution.journal.reply_of(reason.call_ids)
        question = (
            "After a restart the conversation came out differently than recorded, so the model "
            "would be asked again after this call had begun. Go on (done or not_done: the model "
            "is asked anew), or abandon the run?"
        )
        return Rest(
            "interrupted",
            questions=[self._uncertain(n, call, question) for n, call in enumerate(calls)],
            doubtful=[call.id for call in calls if call.status == "executing"],
            superseded=[reply.id] if reply is not None else [],
        )

    def _begun_calls(self) -> list[RecordedCall]:
        return [
            call
            for key, call in self._execution.journal.calls.items()
            if call.status == "executing"
            and key in self._execution.started
            and call.kind != "agent"
        ]

    def _never_begun(self) -> list[RecordedCall]:
        return [
            call
            for key, call in self._execution.journal.calls.items()
            if call.begun_here and key not in self._execution.started
        ]

    async def _failed(self, error: BaseException) -> Rest:
        await self._execution.flush()
        kind, message = classify(error, self._execution.model_errors)
        items: list[dict[str, Any]] = []
        if self._stream is not None:
            items = self._new_items(self._stream)
        return self._leaving_nothing_under_way(
            Rest(
                "failed",
                items=items,
                error_type=kind,
                error_message=message,
                turn=self._turn,
                superseded=self._unusable_reply(error),
            )
        )

    def _unusable_reply(self, error: BaseException) -> list[UUID]:
        """Return the reply that failed the run, if the model may be asked anew on a resume."""
        if self._execution.last_reply is None or not is_unusable_reply(error):
            return []
        reply, call_ids = self._execution.last_reply
        started = {call_id for scope, call_id in self._execution.started if not scope}
        return [reply] if started.isdisjoint(call_ids) else []

    def _leaving_nothing_under_way(self, rest: Rest) -> Rest:
        """Return ``rest`` with what becomes of calls that were never begun, or cut short.

        The SDK cancels a tool in mid-effect when one beside it raises.
        """
        cut = self._begun_calls()
        return replace(
            rest,
            not_begun=[call.id for call in self._never_begun()],
            doubtful=[call.id for call in cut if not call.effect.repeatable],
            cut_short=[call.id for call in cut if call.effect.repeatable],
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
