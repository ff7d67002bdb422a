"""Writes run states with the version of the Agents SDK it runs under, for the corpus.

To add a version of the SDK, in an environment of its own, from the root of the repository::

    python -m venv sdk && sdk/bin/pip install "openai-agents==0.25.0"
    sdk/bin/python tests/corpus/write_states.py

It writes ``tests/corpus/states/<version>/<name>.json``: the state, and what is to be found in it.
Names after the command write those alone. Nothing but the SDK is needed, from 0.8 on; what a
version does not have (custom tools came with 0.14) is left out and said. Those before 0.18 want an
``openai`` of their time: 2.36 will do. The tests take every file that is there.

Tests build the same agents of ``agents()``, and let them end what was begun here.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import agents as sdk
from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

STATES = Path(__file__).parent / "states"
NAMES = {
    "approval": "waits for an approval, after a call that was carried out",
    "nested": "an agent used as a tool waits for an approval",
    "handed_off": "waits for an approval, after a handoff and a call of the agent before",
    "run_again": "stopped between two turns, after a handoff",
    "shell": "waits for the approval of a shell call",
    "custom": "waits for the approval of a custom tool's call",
    "final": "has ended",
}
CONTEXT = {"customer": "ada"}


class Scripted(Model):
    """Gives the n-th reply to an input with n replies in it; whatever the SDK calls it with."""

    def __init__(self, *replies: list[Any]) -> None:
        self._replies = replies

    def _reply(self, args: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        given = named["input"] if "input" in named else args[1]
        replies, within = 0, False
        for item in given if isinstance(given, list) else []:
            kind = str(item.get("type") or "")
            said = item.get("role") == "assistant" or kind.endswith("_call")
            replies, within = replies + (said and not within), said
        return self._replies[min(replies, len(self._replies) - 1)]

    async def get_response(self, *args: Any, **named: Any) -> ModelResponse:
        """Return the reply."""
        return ModelResponse(
            output=list(self._reply(args, named)), usage=Usage(requests=1), response_id="resp"
        )

    async def stream_response(self, *args: Any, **named: Any) -> Any:
        """Give the reply as the one event there has to be."""
        response = Response.model_construct(
            id="resp",
            created_at=0.0,
            model="scripted",
            object="response",
            output=list(self._reply(args, named)),
            parallel_tool_calls=True,
            tool_choice="auto",
            tools=[],
            usage=None,
        )
        yield ResponseCompletedEvent.model_construct(
            type="response.completed", sequence_number=0, response=response
        )


def call(name: str, call_id: str, /, **arguments: Any) -> Any:
    """A function call as a model asks for it."""
    return ResponseFunctionToolCall(
        id=f"fc_{call_id}",
        call_id=call_id,
        name=name,
        arguments=json.dumps(arguments),
        type="function_call",
        status="completed",
    )


def said(text: str) -> Any:
    """A message as a model writes it."""
    part = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(
        id="msg", type="message", role="assistant", status="completed", content=[part]
    )


def shell_call() -> Any:
    """A shell call as a model asks for it."""
    from openai.types.responses.response_function_shell_tool_call import (
        Action,
        ResponseFunctionShellToolCall,
    )

    return ResponseFunctionShellToolCall(
        id="sh_c2",
        call_id="c2",
        type="shell_call",
        status="completed",
        action=Action(commands=["ls"], timeout_ms=None, max_output_length=None),
    )


def custom_call() -> Any:
    """A custom tool's call as a model asks for it."""
    from openai.types.responses import ResponseCustomToolCall

    return ResponseCustomToolCall(
        id="ct_c2", call_id="c2", name="note", input="a note", type="custom_tool_call"
    )


def agents() -> dict[str, Agent[Any]]:
    """The agents of every state by the state's name, as far as this version has their tools.

    What tools did is returned by them alone: nothing is kept.
    """

    @function_tool
    async def look(order: str) -> str:
        return f"{order} costs 500"

    @function_tool(needs_approval=True)
    async def pay(order: str, cents: int) -> str:
        return f"paid {cents} for {order}"

    def clerk(of: str, *replies: list[Any]) -> Agent[Any]:
        return Agent(name=f"{of}_clerk", model=Scripted(*replies), tools=[look, pay])

    looks, pays = [call("look", "c1", order="A1")], [call("pay", "c2", order="A1", cents=500)]
    done = [said("done")]
    helper = clerk("nested", [call("pay", "n1", order="A1", cents=500)], [said("it is paid")])
    ask = helper.as_tool("ask_clerk", "Asks the clerk.")
    asks = Scripted([call("ask_clerk", "c1", input="pay")], done)
    found = {
        "approval": clerk("approval", looks, pays, done),
        "final": clerk("final", looks, done),
        "nested": Agent(name="nested_desk", model=asks, tools=[ask]),
        "handed_off": Agent(
            name="handed_off_front",
            model=Scripted(looks, [call("transfer_to_handed_off_clerk", "h1")]),
            tools=[look],
            handoffs=[clerk("handed_off", [], [], pays, done)],
        ),
        "run_again": Agent(
            name="run_again_front",
            model=Scripted([call("transfer_to_run_again_clerk", "h1")]),
            handoffs=[clerk("run_again", [], looks, pays, done)],
        ),
    }
    if hasattr(sdk, "ShellTool"):
        shell = sdk.ShellTool(executor=_listed, needs_approval=True)
        script = Scripted(looks, [shell_call()], done)
        found["shell"] = Agent(name="shell_clerk", model=script, tools=[look, shell])
    if hasattr(sdk, "CustomTool"):
        note = sdk.CustomTool(
            name="note", description="Keeps it.", on_invoke_tool=_noted, needs_approval=True
        )
        script = Scripted(looks, [custom_call()], done)
        found["custom"] = Agent(name="custom_clerk", model=script, tools=[look, note])
    return found


async def _listed(_: Any) -> str:
    return "a.txt"


async def _noted(_: Any, given: str) -> str:
    return f"noted: {given}"


async def state_of(name: str, agent: Agent[Any]) -> dict[str, Any]:
    """Run to where the state is taken; return it as the SDK writes it."""
    config = RunConfig(tracing_disabled=True)
    if name != "run_again":
        result = await Runner.run(agent, "Pay for order A1", context=CONTEXT, run_config=config)
        return result.to_state().to_json()
    stream = Runner.run_streamed(agent, "Pay for order A1", context=CONTEXT, run_config=config)
    async for event in stream.stream_events():
        if event.type == "raw_response_event":
            stream.cancel(mode="after_turn")
    return stream.to_state().to_json()


def facts_of(name: str, agent: Agent[Any], state: dict[str, Any], version: str) -> dict[str, Any]:
    """What is to be found in a state that is loaded, read off its JSON."""
    step = state.get("current_step")
    pending = step["data"]["interruptions"] if step and "data" in step else []
    return {
        "what": NAMES[name],
        "sdk_version": version,
        "schema_version": state["$schemaVersion"],
        "agent": agent.name,
        "current_agent": state["current_agent"]["name"],
        "turn": state["current_turn"],
        "items": len(state["generated_items"]),
        "pending": [
            {
                "agent": one["agent"]["name"],
                "tool": one.get("tool_name") or one["raw_item"].get("name"),
                "call_id": one["raw_item"].get("call_id"),
                "arguments": one["raw_item"].get("arguments"),
            }
            for one in pending
        ],
    }


async def write(folder: Path, names: Sequence[str]) -> None:
    """Write the states of ``names``, as far as this version can be brought to them."""
    version = importlib.metadata.version("openai-agents")
    (folder / version).mkdir(parents=True, exist_ok=True)
    built = agents()
    for name in names:
        if name not in built:
            print(f"{version}: no {name}, which this version does not have")
            continue
        state = await state_of(name, built[name])
        if not _says_it(name, state):
            print(f"{version}: no {name}, which this version's format does not say")
            continue
        entry = {"facts": facts_of(name, built[name], state, version), "state": state}
        file = folder / version / f"{name}.json"
        file.write_text(json.dumps(entry, separators=(",", ":")) + "\n", encoding="utf-8")
        print(f"{version}: {name}, format {state['$schemaVersion']}, {file.stat().st_size} bytes")


def _says_it(name: str, state: dict[str, Any]) -> bool:
    """Whether a state holds what it is to show: before 0.9 and 0.20 two of them do not."""
    if name == "run_again":
        return (state.get("current_step") or {}).get("type") == "next_step_run_again"
    functions = (state.get("last_processed_response") or {}).get("functions", [])
    return name != "nested" or any("agent_run_state" in one for one in functions)


if __name__ == "__main__":
    asyncio.run(write(STATES, sys.argv[1:] or list(NAMES)))
