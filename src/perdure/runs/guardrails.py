"""What guardrails say, kept for people.

Their functions are wrapped where they stand, once; outside a durable run that does nothing. What
they said is written in the transaction of the run's next state or of its end: a guardrail is asked
again when a dead execution is, so what was said before a crash is said again, and stands once.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterable
from typing import Any

from agents import Agent, FunctionTool, RunConfig
from pydantic import TypeAdapter

from perdure import jsonsafe
from perdure.db import Connection, load_sql, uuid7
from perdure.runs.execution import current_execution, current_scope, scope_text

_SQL = load_sql("perdure.runs", "guardrails.sql")
_WRAPPED = "__perdure_recorded__"
_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_MAX_INFO = 64 * 1024
"""How many characters of JSON are kept of what a guardrail gave as its reasons."""

Said = dict[str, Any]
"""One result: the columns of its row; ``tool`` is null in that of an agent's guardrail."""


def record_guardrails_of_agents(agents: Iterable[Agent[Any]]) -> None:
    """Let what the guardrails of ``agents`` and of their tools say be kept, in place."""
    for agent in agents:
        _record(agent.input_guardrails, "input", _of_agent)
        _record(agent.output_guardrails, "output", _of_agent)
        for tool in agent.tools:
            if isinstance(tool, FunctionTool):
                _record(tool.tool_input_guardrails or (), "input", _of_tool)
                _record(tool.tool_output_guardrails or (), "output", _of_tool)


def record_guardrails_of_config(config: RunConfig) -> None:
    """Let what the guardrails of a run config say be kept, in place."""
    _record(config.input_guardrails or (), "input", _of_agent)
    _record(config.output_guardrails or (), "output", _of_agent)


def _of_agent(args: tuple[Any, ...], output: Any) -> Said:
    return {
        "agent": args[1].name,
        "tool": None,
        "tripwire_triggered": bool(output.tripwire_triggered),
    }


def _of_tool(args: tuple[Any, ...], output: Any) -> Said:
    [data] = args
    return {
        "agent": data.agent.name,
        "tool": data.context.tool_name,
        "call_id": data.context.tool_call_id,
        "behavior": output.behavior["type"],
        "message": output.behavior.get("message"),
    }


def _record(
    guardrails: Iterable[Any], kind: str, about: Callable[[tuple[Any, ...], Any], Said]
) -> None:
    for guardrail in guardrails:
        asked = guardrail.guardrail_function
        if not getattr(asked, _WRAPPED, False):
            guardrail.guardrail_function = _recording(asked, guardrail.get_name(), kind, about)


def _recording(
    asked: Callable[..., Any],
    name: str,
    kind: str,
    about: Callable[[tuple[Any, ...], Any], Said],
) -> Callable[..., Any]:
    def note(args: tuple[Any, ...], output: Any, began: float) -> Any:
        execution = current_execution.get()
        if execution is not None:
            execution.guardrails.append(
                {
                    "id": str(uuid7()),
                    "guardrail": name,
                    "kind": kind,
                    "scope": scope_text(current_scope.get()),
                    "output_info": _as_json(output.output_info),
                    "latency_ms": int((time.monotonic() - began) * 1000),
                    **about(args, output),
                }
            )
        return output

    # A plain function stays one: it is called in the same place, in the same way.
    @functools.wraps(asked)
    def ask(*args: Any) -> Any:
        began = time.monotonic()
        output = asked(*args)
        return (
            later(args, output, began) if inspect.isawaitable(output) else note(args, output, began)
        )

    async def later(args: tuple[Any, ...], output: Any, began: float) -> Any:
        return note(args, await output, began)

    setattr(ask, _WRAPPED, True)
    return ask


def _as_json(value: Any) -> Any:
    if value is None:
        return None
    try:
        plain = jsonsafe.finite(_ANY.dump_python(value, mode="json"))
        if len(jsonsafe.dumps(plain)) <= _MAX_INFO:
            return plain
    except (TypeError, ValueError, RecursionError):
        pass
    return str(value)[:_MAX_INFO]


async def insert_guardrail_results(
    conn: Connection, *, run_id: Any, segment: int, said: Iterable[Said]
) -> None:
    """Write what guardrails of a run said, in the transaction ``conn`` is in."""
    rows = {"run_id": run_id, "segment": segment, "said": jsonsafe.dumps(list(said))}
    await conn.execute(_SQL["insert_results"], rows)
