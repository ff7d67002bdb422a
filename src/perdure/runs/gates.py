"""Where policies meet calls: what a run is interrupted for though its tool asks nobody.

A call that a policy asks about or denies is gated as if its tool needed approval: it is not begun
with its reply, and the SDK interrupts the run. What becomes of the question, when a policy alone
can tell, is settled where the run rests (``settling``); so an answer of a policy is a row like
that of a person.

A run that asks first (``NewRun.tools``) is as if a policy asked about each call that is not of the
effect ``read``, whatever others allow.

What the ledger says of a call goes before any policy: one that waited for approval before waits
again in a replay, whatever the policies are by then, and one that was begun is not asked about.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from agents import FunctionTool

from perdure.errors import StopSegment
from perdure.interruptions.policies.question_rules import NO_RULES, Rules, rules_for
from perdure.ledger.effects import Effect
from perdure.ledger.journal import STARTED, RecordedCall
from perdure.runs.execution import (
    Execution,
    current_agent,
    current_execution,
    current_scope,
    database_needed,
    scope_text,
)
from perdure.runs.inherited import ORIGIN
from perdure.runs.sdk import approval_call_id, gate_function_tools

_WAITED: Final = frozenset({"awaiting_approval", "approved", "rejected"})
_STRICTNESS: Final = ("allow", "ask", "deny")

ASK_FIRST: Final = Rules(
    policy="replay",
    message="This run says a conversation's messages again: the call may have been made before.",
)
"""What holds for a call of a run that asks first, where no policy asks for more."""
FORKED: Final = Rules(
    policy="fork",
    message="This run is a fork, and the run it was forked from has no outcome of such a call.",
)
"""The same for a fork, of a call that nothing answers."""
FORKED_KNOWN: Final = replace(
    FORKED,
    message="This run is a fork. Approved as it stands, the call is answered with what came of it "
    "in the run it was forked from; nothing is executed.",
)
_HARMLESS: Final = frozenset({Effect.READ, Effect.NESTED})

CANNOT_ASK: Final = (
    "The policy {policy!r} asks a person about this call, and calls of this tool cannot wait for "
    "one. Nothing was done."
)


def policies_known(execution: Execution) -> bool:
    """Whether ``execution.policies`` are those of now, without asking the database."""
    source = execution.policy_source
    if source is not None:
        known = source.known(execution.tenant_id)
        if known is None:
            return False
        execution.policies = known
    return True


async def _know_policies(execution: Execution) -> None:
    if policies_known(execution) or execution.policy_source is None:
        return
    try:
        with database_needed(execution.run_id, doing="reading the tenant's policies"):
            execution.policies = await execution.policy_source.of(execution.tenant_id)
    except StopSegment as reason:
        await execution.park(reason)


def judge(
    execution: Execution,
    scope: str,
    call_id: str,
    *,
    agent: str,
    tool: str,
    arguments: Mapping[str, Any] | None,
    effect: Effect | None = None,
    kind: str = "function",
) -> Rules:
    """Return what the policies say of a call, once for each call of an execution.

    ``effect`` is the call's; None, where it is not known, counts as one that changes things.
    Of several judgements on one call (a patch in several files) the strictest counts.
    """
    asks = execution.asks_first and effect not in _HARMLESS
    if not execution.policies and not asks:
        return NO_RULES
    rules = rules_for(execution.policies, agent=agent, tool=tool, arguments=arguments)
    if asks:
        first = ASK_FIRST
        if execution.inherited is not None:
            known = execution.inherited.answer(
                scope, call_id, tool=tool, kind=kind, arguments=arguments
            )
            first = FORKED if known is None else FORKED_KNOWN
        rules = asked_first(rules, first)
    key = scope, call_id
    before = execution.judged.get(key)
    if before is None or _strictness(rules) > _strictness(before):
        execution.judged[key] = rules
        return rules
    return before


def asked_first(rules: Rules, first: Rules = ASK_FIRST) -> Rules:
    """Return rules by which a person lets the call be made, or nobody does. Pure.

    ``first`` holds where no policy asks for more.
    """
    if rules.policy is None or rules.then == "allow":
        return replace(first, policies=rules.policies)
    return replace(rules, on_expire="reject") if rules.on_expire == "approve" else rules


def judge_recorded(execution: Execution, call: RecordedCall) -> Rules:
    """Return what was said of a recorded call in this execution, or what the policies say now."""
    known = execution.judged.get((call.scope, call.call_id))
    if known is not None:
        return known
    return judge(
        execution,
        call.scope,
        call.call_id,
        agent=call.agent,
        tool=call.tool,
        arguments=as_object(call.kind, call.arguments, call.arguments_raw),
        effect=call.effect,
        kind=call.kind,
    )


def answer_to(
    execution: Execution, call: RecordedCall, arguments: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Return the output that answers a recorded call, where it was not begun; see ``answer_for``.

    ``arguments`` are those it is to be made with, by default what the model wrote.
    """
    if execution.inherited is None or call.attempt or call.effect is Effect.NESTED:
        return None
    if arguments is None:
        arguments = as_object(call.kind, call.arguments, call.arguments_raw)
    return answer_for(
        *(execution, call.scope, call.call_id),
        agent=call.agent,
        tool=call.tool,
        kind=call.kind,
        arguments=arguments,
    )


def answer_for(
    execution: Execution,
    scope: str,
    call_id: str,
    *,
    agent: str,
    tool: str,
    kind: str,
    arguments: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """Return the output that answers a call instead of its being made; None: it is to be made.

    One that a policy denies is not answered either.
    """
    if execution.inherited is None:
        return None
    answer = execution.inherited.answer(scope, call_id, tool=tool, kind=kind, arguments=arguments)
    if answer is None or not execution.policies:
        return answer
    rules = rules_for(execution.policies, agent=agent, tool=tool, arguments=arguments)
    return None if gates(rules) and rules.then == "deny" else answer


def as_object(kind: str, arguments: Any, raw: str | None) -> Mapping[str, Any] | None:
    """Return a call's arguments as policies see them; the text of a custom tool is ``input``."""
    if kind == "custom" and arguments is None:
        return {"input": raw or ""}
    return arguments if isinstance(arguments, Mapping) else None


def gates(rules: Rules) -> bool:
    """Whether a call with these rules waits, whatever its tool needs."""
    return rules.policy is not None and rules.then != "allow"


async def gated(call_id: str, tool: str, arguments: Mapping[str, Any] | None) -> bool | None:
    """Whether a policy, or what is recorded of it, makes the call of this id wait.

    ``tool`` and ``arguments`` are what it asks for, where it is not recorded. False outside a
    durable run. None: it waits for nobody, whatever its tool needs, as it will not be made.
    """
    execution = current_execution.get()
    if execution is None:
        return False
    scope = scope_text(current_scope.get())
    recorded = execution.call(scope, call_id)
    if recorded is not None and recorded.status in _WAITED:
        return True
    if recorded is not None and recorded.status in STARTED:
        # Nobody had to approve what was answered and not made.
        return None if ORIGIN in (recorded.output or {}) else False
    await _know_policies(execution)
    if recorded is not None and answer_to(execution, recorded) is not None:
        return None
    if recorded is not None:
        return gates(judge_recorded(execution, recorded))
    return gates(
        judge(execution, scope, call_id, agent=current_agent.get(), tool=tool, arguments=arguments)
    )


@functools.cache
def gate_all_function_tools() -> None:
    """Let the gates stand before every function tool of this process: also MCP's and agents'."""

    async def is_gated(tool: FunctionTool, call_id: str) -> bool | None:
        return await gated(call_id, tool.name, None)

    gate_function_tools(is_gated)


@dataclass(frozen=True, slots=True)
class Gate:
    """Stands in the ``needs_approval`` of a tool that is a plain callable.

    ``own`` is what stood there; ``plain`` gives what the SDK hands it as the call's arguments.
    """

    own: Any
    tool: str
    plain: Callable[[Any], Mapping[str, Any]]

    async def __call__(self, context: Any, what: Any, call_id: str) -> bool:
        """Say whether the call has to wait for approval."""
        waits = await gated(call_id, self.tool, self.plain(what))
        if waits is not False:
            return bool(waits)
        if not callable(self.own):
            return bool(self.own)
        said = self.own(context, what, call_id)
        return bool(await said if inspect.isawaitable(said) else said)


def own_gate(tool: Any) -> Any:
    """Return a tool's ``needs_approval`` as its author wrote it."""
    gate = getattr(tool, "needs_approval", False)
    return gate.own if isinstance(gate, Gate) else gate


def asked_on_approval(on_approval: Any, tool: str) -> Any:
    """Return a tool's ``on_approval`` so that it does not answer for the people a policy asks."""
    if on_approval is None:
        return None

    @functools.wraps(on_approval)
    async def asked(context: Any, item: Any) -> Any:
        if await gated(approval_call_id(item), tool, None):
            return None
        said = on_approval(context, item)
        return await said if inspect.isawaitable(said) else said

    return asked


async def refusal(call_id: str, tool: str, arguments: Mapping[str, Any] | None) -> str | None:
    """Return why a call may not be made of a tool the SDK cannot interrupt a run for; else None."""
    execution = current_execution.get()
    if execution is None or not await gated(call_id, tool, arguments):
        return None
    scope = scope_text(current_scope.get())
    recorded = execution.call(scope, call_id)
    if recorded is not None:
        rules = judge_recorded(execution, recorded)
    else:
        rules = execution.judged[scope, call_id]
    return rules.denial() if rules.then == "deny" else CANNOT_ASK.format(policy=rules.policy)


def _strictness(rules: Rules) -> int:
    return -1 if rules.policy is None else _STRICTNESS.index(rules.then)
