"""The questions a segment rests on: approvals, effects in doubt, a reply that was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import agents as sdk
from agents import RunState
from agents.items import ToolApprovalItem

from perdure.interruptions.digest import digest_v1, parse_object, same_json
from perdure.interruptions.policies.question_rules import Rules
from perdure.ledger.journal import STARTED, RecordedCall, RecordedReply
from perdure.runs import hosted
from perdure.runs.approvals import Approval, Tampered
from perdure.runs.ask_human import asked_of
from perdure.runs.doubts import settle_by_probe
from perdure.runs.execution import Execution, scope_text
from perdure.runs.gates import judge, judge_recorded
from perdure.runs.probing import Probe, probe_for
from perdure.runs.proposals import kind_of
from perdure.runs.registry import Registry
from perdure.runs.rest import Question, Rest
from perdure.runs.sdk import PendingApproval, pending_approvals
from perdure.runs.stand_ins import StandIn

_DIED = "{tool} was begun (attempt {attempt}) and its process died before the outcome was recorded."
_ENDED = "{tool} ended with {error} before its outcome was known (attempt {attempt})."
_LOST_REPLY = (
    "After a restart the conversation came out differently than recorded, so the model would be "
    "asked again after {tool} had begun ({status}). Go on (done or not_done: the model is asked "
    "anew), or abandon the run?"
)


_UNHEARD = (
    "The model was asked with hosted MCP server {tool} (attempt {attempt}), and {trouble}. What "
    "the provider did is not known. Go on (done or not_done: the model is asked anew), or abandon "
    "the run?"
)


_WITH_SCHEMA = ("function", "agent", "mcp")

_ASKED_AGAIN = {
    "schema_changed": (
        "This was approved, and since then the tool takes other arguments. Look at the call again."
    ),
    "tool_removed": (
        "This was approved, and since then the tool is gone. Approve: the model is told so. Or "
        "deploy a build that has it first."
    ),
}

_LONGEST = 500
"""Characters of an error that a question quotes: gateways send whole pages."""


class Questions:
    """Makes the questions of one execution, each with its digest."""

    def __init__(self, registry: Registry, execution: Execution, context: Any) -> None:
        self._registry = registry
        self._execution = execution
        self._context = context

    async def approvals(
        self, state: RunState[Any, Any], base_seq: int
    ) -> tuple[list[Question], list[UUID]]:
        """Return what a state waits for, and the calls that wait; ``base_seq`` is the state's."""
        questions = [
            await self._approval(ordinal, pending, base_seq)
            for ordinal, pending in enumerate(pending_approvals(state))
        ]
        return questions, [one.tool_call_id for one in questions if one.tool_call_id is not None]

    async def _approval(self, ordinal: int, pending: PendingApproval, base_seq: int) -> Question:
        item, call_id, scope = pending.item, pending.call_id, scope_text(pending.path)
        call = self._execution.call(scope, call_id)
        name = item.qualified_name or item.tool_name or ""
        arguments: Any = item.arguments if call is None else call.arguments
        if arguments is None:
            arguments = (call.arguments_raw if call is not None else None) or ""
        tool = await self._tool(item)
        schema = None if tool is None else tool.params_json_schema
        asked = None if tool is None else asked_of(tool, arguments)
        rules = self._rules(item, call, scope, call_id)
        return Question(
            type="tool_approval" if asked is None else "question",
            tool_call_id=call.id if call is not None else None,
            agent=item.agent.name,
            scope=scope,
            ordinal=ordinal,
            tool={"name": name, "call_id": call_id, "arguments": arguments, "schema": schema},
            digest=self._digest(base_seq, scope, call_id, name, schema, arguments),
            base_seq=base_seq,
            question=None if asked is None else asked.question,
            schema=None if asked is None else asked.schema,
            rules=rules if asked is None else rules.of_a_question(),
        )

    def _rules(
        self, item: ToolApprovalItem, call: RecordedCall | None, scope: str, call_id: str
    ) -> Rules:
        if call is not None:
            return judge_recorded(self._execution, call)
        arguments = parse_object(item.arguments or "")
        agent, tool = item.agent.name, item.tool_name or ""
        return judge(self._execution, scope, call_id, agent=agent, tool=tool, arguments=arguments)

    async def _tool(self, item: ToolApprovalItem) -> sdk.FunctionTool | None:
        agent = item.agent
        for tool in await agent.get_all_tools(sdk.RunContextWrapper(self._context)):
            if isinstance(tool, sdk.FunctionTool) and tool.name == item.tool_name:
                return None if isinstance(tool, StandIn) else tool
        return None

    async def no_longer_as_shown(self, state: RunState[Any, Any]) -> list[Question]:
        """Return new questions for what was approved and this build would do otherwise.

        A tool that is gone, or takes other arguments than were shown, is asked about again. What
        has begun goes on.

        Raises:
            Tampered: what is stored is not what was approved.
        """
        again: list[Question] = []
        for ordinal, pending in enumerate(pending_approvals(state)):
            scope = scope_text(pending.path)
            approval = self._execution.approvals.get((scope, pending.call_id))
            call = self._execution.call(scope, pending.call_id)
            if approval is None or (call is not None and call.status in STARTED):
                continue
            self._require_untouched(approval, pending, call)
            reason = await self._changed(approval, pending, call)
            if reason is not None:
                question = await self._approval(ordinal, pending, approval.base_seq)
                again.append(
                    replace(
                        question,
                        replaces=approval.interruption_id,
                        reason=reason,
                        question=question.question or _ASKED_AGAIN[reason],
                    )
                )
        return again

    def _require_untouched(
        self, approval: Approval, pending: PendingApproval, call: RecordedCall | None
    ) -> None:
        digest = self._digest(
            *(approval.base_seq, approval.scope, approval.call_id, approval.tool),
            *(approval.schema, approval.arguments),
        )
        untouched = approval.bound and digest == approval.digest
        if call is not None:
            untouched &= approval.is_about(call.arguments, call.arguments_raw)
        if pending.item.arguments is not None:
            untouched &= approval.is_about(None, pending.item.arguments)
        if not untouched:
            run_id = self._execution.run_id
            raise Tampered(run_id, tool=approval.tool, call_id=approval.call_id)

    async def _changed(
        self, approval: Approval, pending: PendingApproval, call: RecordedCall | None
    ) -> str | None:
        if call is None or call.kind not in _WITH_SCHEMA:
            return None
        tool = await self._tool(pending.item)
        schema = None if tool is None else tool.params_json_schema
        if same_json(schema, approval.schema):
            return None
        return "tool_removed" if tool is None else "schema_changed"

    def in_doubt(self) -> list[RecordedCall]:
        """Return every call whose effect is in doubt."""
        journal = self._execution.journal
        doubts = journal.doubts()
        known = {call.id for call in doubts}
        doubts += [
            call
            for call in journal.calls.values()
            if call.status == "executing"
            and call.kind in ("function", "agent")
            and call.id not in known
            and self.is_gone(call)
        ]
        return doubts

    async def left_by_probes(self) -> list[RecordedCall]:
        """Ask the probes of all calls in doubt, side by side; returns what they leave in doubt."""
        asked = [
            settle_by_probe(self._execution, call, probe)
            for call in self.in_doubt()
            if (probe := self._probe(call)) is not None
        ]
        if asked:
            await asyncio.gather(*asked)
        return self.in_doubt()

    def lost_with_agents(self) -> list[RecordedReply]:
        """Return replies with effects of agents that this build does not have.

        Whatever asks in their place is another agent: nothing would match, and its model, asked
        anew, would repeat those effects.
        """
        journal = self._execution.journal
        lost = journal.unmatchable(self._registry.agents)
        return [reply for reply in lost if journal.started_by(reply)]

    def _probe(self, call: RecordedCall) -> Probe | None:
        agent = self._registry.agents.get(call.agent)
        for tool in agent.tools if agent is not None else ():
            if kind_of(tool) == call.kind and getattr(tool, "name", None) == call.tool:
                return probe_for(tool, call.kind)
        return None

    def is_gone(self, call: RecordedCall) -> bool:
        """Whether this build has no tool of the call's name with the call's agent."""
        agent = self._registry.agents.get(call.agent)
        if agent is None:
            return True
        names = {getattr(tool, "name", None) for tool in agent.tools}
        return not agent.mcp_servers and call.tool not in names

    def uncertain(self, doubts: Sequence[RecordedCall], lost: Sequence[RecordedReply] = ()) -> Rest:
        """Return a rest that asks about all of it at once.

        ``doubts`` are calls whose effect is in doubt, ``lost`` replies that nothing matches any
        more, whose calls are asked about.
        """
        asked = [
            (call, _LOST_REPLY.format(tool=call.tool, status=call.status))
            for reply in lost
            for call in self._execution.journal.started_by(reply)
        ]
        known = {call.id for call, _ in asked}
        asked += [(call, _did_it_happen(call)) for call in doubts if call.id not in known]
        return Rest(
            "interrupted",
            questions=[self._uncertain(n, call, text) for n, (call, text) in enumerate(asked)],
            doubtful=[call.id for call, _ in asked if _is_open(call)],
            superseded=[reply.id for reply in lost],
        )

    def _uncertain(self, ordinal: int, call: RecordedCall, question: str) -> Question:
        arguments = call.arguments if call.arguments is not None else call.arguments_raw or ""
        base_seq = self._execution.journal.base_seq
        return Question(
            type="uncertain_effect",
            # What has an outcome keeps it, however the question is decided.
            tool_call_id=call.id if _is_open(call) else None,
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
            question=question,
            rules=judge_recorded(self._execution, call).of_a_doubt(),
        )

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


def _did_it_happen(call: RecordedCall) -> str:
    """Return the question about a call in doubt: what is known of it, in the order it came."""
    error = call.error or {}
    named, message = str(error.get("type", "")), str(error.get("message", ""))[:_LONGEST]
    if call.kind == hosted.KIND:
        trouble = f"the request failed without a reply ({named}: {message})"
        if not named:
            trouble = "its process died before the reply was recorded"
        return _UNHEARD.format(tool=call.tool, attempt=call.attempt, trouble=trouble)
    text = (_ENDED if named else _DIED).format(
        tool=call.tool,
        attempt=call.attempt,
        error=f"{named} ({message})" if message else named,
    )
    return " ".join(part for part in (text, call.probe_said, "Did it happen?") if part)


def _is_open(call: RecordedCall) -> bool:
    return call.status in ("executing", "uncertain")
