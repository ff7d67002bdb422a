"""Model calls in which the provider may run tools of hosted MCP servers: effects, as tools are.

What a hosted MCP server does, it does within the model's reply; a request whose reply is lost may
have done it all the same. So such a request is a tool call of its own, ``at_most_once``: its
intent commits before the provider is asked, and its outcome in the commit of the reply. The row
is named by what was asked, so that whoever asks the same after a crash finds it.

Crash points and what holds:

* before the intent commits: nobody was asked; the model is.
* after it, before the reply's commit: found from its row at the next start, before anything
  runs, and a person is asked. Whatever they say, the model is asked anew, with an intent: they
  have no reply to give.
* after the reply's commit: the reply is answered from its record.

A request that fails without a word on what it did (a time-out, a cut stream, a server's error)
is the second of these, without a crash. One that certainly did nothing is retried as any other.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from agents import HostedMCPTool
from agents.tool import Tool

from perdure.errors import Uncertain
from perdure.ledger.effects import Effect, effect_of
from perdure.ledger.journal import RecordedCall, request_id
from perdure.ledger.telling import call_ended
from perdure.runs.execution import Execution
from perdure.runs.outcomes import Call
from perdure.runs.sdk import model_timed_out, never_reached
from perdure.runs.tool_rows import begin

KIND = "hosted_mcp"

_T = TypeVar("_T")


def servers_that_may_act(
    tools: Sequence[Tool], model_input: str | Sequence[Any], default: Effect
) -> list[str]:
    """Return the labels of the hosted MCP servers a request may run tools of that change things.

    A server counts unless its tool is marked ``read``. One that needs approval for everything
    counts only while the input holds an approval of a call of it that is not made yet. Pure.
    """
    waiting: set[str] | None = None
    labels = []
    for tool in tools:
        if not isinstance(tool, HostedMCPTool) or effect_of(tool, default) is Effect.READ:
            continue
        label = str(tool.tool_config.get("server_label", ""))
        if tool.tool_config.get("require_approval") == "always":
            if waiting is None:
                waiting = _approved(model_input)
            if not waiting & {label, ""}:
                continue
        labels.append(label)
    return labels


def asking_first(tools: list[Tool], default: Effect) -> list[Tool]:
    """Return tools so that hosted MCP servers ask before each call, but those marked ``read``.

    The tools themselves stay as they are. Pure.
    """
    return [
        _asking(tool)
        if isinstance(tool, HostedMCPTool) and effect_of(tool, default) is not Effect.READ
        else tool
        for tool in tools
    ]


def _asking(tool: HostedMCPTool) -> HostedMCPTool:
    asking = copy.copy(tool)
    asking.tool_config = {**tool.tool_config, "require_approval": "always"}
    return asking


def _approved(model_input: str | Sequence[Any]) -> set[str]:
    """Return the servers with an approved call to make; "" is one that the input does not name."""
    given: Sequence[Any] = () if isinstance(model_input, str) else model_input
    items = [item for item in given if isinstance(item, dict)]
    made = {item.get("approval_request_id") for item in items if item.get("type") == "mcp_call"}
    asked = {
        item.get("id"): str(item.get("server_label", ""))
        for item in items
        if item.get("type") == "mcp_approval_request"
    }
    return {
        asked.get(item.get("approval_request_id"), "")
        for item in items
        if item.get("type") == "mcp_approval_response"
        and item.get("approve")
        and item.get("approval_request_id") not in made
    }


@dataclass(slots=True)
class HostedCall:
    """The row of one request in which hosted MCP servers may act."""

    execution: Execution
    row: RecordedCall
    may_have_acted: bool = False
    """Whether a provider has been asked, and not certainly done nothing."""

    def guarded(self, ask: Callable[[], Awaitable[_T]]) -> Callable[[], Awaitable[_T]]:
        """Return ``ask`` so that it only raises when the provider has done nothing.

        Where that is not known the segment is parked, and rests with a question.
        """

        async def asked() -> _T:
            self.may_have_acted = True
            try:
                return await ask()
            except Exception as error:
                if never_reached(error):
                    self.may_have_acted = False
                    raise
                self._unknown(error)
                await self.execution.park(self._uncertain())
            except asyncio.CancelledError as error:
                # The SDK's time-out waits for the end of this task, which must not wait then.
                if model_timed_out():
                    self._unknown(error)
                    self.execution.stop(self._uncertain())
                raise

        return asked

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Hold off the driver's cancellation while the provider is asked and the reply recorded.

        Where it ends with an exception, or between two attempts, and nobody has acted, it failed.
        """
        with self.execution.effect_under_way(self.row.tool, self.row.call_id):
            try:
                yield
            except BaseException as error:
                if not self.may_have_acted:
                    self._failed(error)
                raise

    def replied(self) -> dict[str, Any]:
        """Return the columns with which the reply's entry is the outcome of this call as well.

        ``events`` among them are to stand before the reply's own.
        """
        self._settle("succeeded")
        entry: dict[str, Any] = {"call_id": self.row.call_id, "status": "succeeded"}
        return {**entry, "events": [call_ended(self.row, entry)]}

    def _failed(self, error: BaseException) -> None:
        # Not "raised": a resumed run asks in a row of its own.
        trouble = {"type": type(error).__name__, "message": str(error), "raised": False}
        entry = {
            "kind": "outcome",
            "scope": self.row.scope,
            "call_id": self.row.call_id,
            "status": "failed",
            "error": trouble,
        }
        self.execution.record_later({**entry, "events": [call_ended(self.row, entry)]})
        self._settle("failed")

    def _settle(self, status: str) -> None:
        self.execution.journal.settle(self.row.scope, self.row.call_id, status)

    def _unknown(self, error: BaseException) -> None:
        words = str(error) or type(error).__name__
        self.row.error = {"type": type(error).__name__, "message": words}

    def _uncertain(self) -> Uncertain:
        return Uncertain(self.execution.run_id, call_ids=[self.row.call_id])


def guarded(
    hosted: HostedCall | None, ask: Callable[[], Awaitable[_T]]
) -> Callable[[], Awaitable[_T]]:
    """Return ``ask`` as it is where no hosted MCP server may act, else guarded by the call."""
    return ask if hosted is None else hosted.guarded(ask)


async def begin_hosted(
    execution: Execution, scope: str, agent: str, input_hash: str, servers: Sequence[str]
) -> HostedCall:
    """Commit the intent of a request in which ``servers`` may act, and return its row.

    Parks when it cannot, or when the segment stops meanwhile.
    """
    call_id = _call_id(execution, scope, agent, input_hash)
    call = Call(call_id, ", ".join(servers), KIND, Effect.AT_MOST_ONCE, {})
    row = await begin(execution, scope, call, execution.call(scope, call_id))
    await execution.may_begin()
    execution.started.add((scope, call_id))
    return HostedCall(execution, row)


def _call_id(execution: Execution, scope: str, agent: str, input_hash: str) -> str:
    """Return the id of the first row for this input that is free, or may be begun again."""
    asked = request_id(execution.journal.base_seq, agent, input_hash)
    n = 1
    while True:
        call_id = f"{asked}{n}"
        known = execution.call(scope, call_id)
        if known is None or known.status == "proposed":
            return call_id
        n += 1
