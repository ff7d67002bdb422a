"""A worker of Perdure: the script as agents of the SDK, with its tools marked."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

from agents import (
    Agent,
    FunctionTool,
    Model,
    ModelResponse,
    RunConfig,
    RunContextWrapper,
    Runner,
    Usage,
    function_tool,
)
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from chaos import script
from chaos.script import Call, Reply
from chaos.world import World, enter
from perdure import Engine, effect, tool_call

_BOOK = "INSERT INTO chaos.bookings (order_id, call_id) VALUES (%s, %s)"
_UNTRACED = RunConfig(tracing_disabled=True)
_USAGE = ResponseUsage(
    input_tokens=10,
    output_tokens=5,
    total_tokens=15,
    input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
    output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
)


class ScriptModel(Model):
    """Says what the script makes of the conversation; it remembers nothing itself."""

    def __init__(self, agent: str, world: World) -> None:
        self.model = agent
        self._world = world

    async def _reply(self, given: str | list[Any]) -> list[Any]:
        items = [{"content": given}] if isinstance(given, str) else given
        order = str(items[0]["content"])
        outputs = {
            item["call_id"]: str(item["output"])
            for item in items
            if item.get("type") == "function_call_output"
        }
        return _items(await self._world.ask(self.model, order, outputs), order)

    async def get_response(
        self, system_instructions: Any, input: str | list[Any], *_: Any, **__: Any
    ) -> ModelResponse:
        usage = Usage(requests=1, input_tokens=10, output_tokens=5, total_tokens=15)
        return ModelResponse(await self._reply(input), usage, None)

    async def stream_response(
        self, system_instructions: Any, input: str | list[Any], *_: Any, **__: Any
    ) -> AsyncIterator[Any]:
        response = Response(
            id="response",
            created_at=0,
            model=self.model,
            object="response",
            output=await self._reply(input),
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=True,
            usage=_USAGE,
        )
        yield ResponseCompletedEvent(
            type="response.completed", response=response, sequence_number=0
        )


class _Greeter(ScriptModel):
    def __init__(self) -> None:
        self.model = "greeter"

    async def _reply(self, given: str | list[Any]) -> list[Any]:
        return _items(Reply(0, text="hello"), "")


def _items(said: Reply, order: str) -> list[Any]:
    if said.calls:
        return [_item(call, order) for call in said.calls]
    text = ResponseOutputText(type="output_text", text=said.text, annotations=[])
    return [
        ResponseOutputMessage(
            id=f"message_{said.depth}",
            type="message",
            role="assistant",
            status="completed",
            content=[text],
        )
    ]


def _item(call: Call, order: str) -> ResponseFunctionToolCall:
    arguments = {
        "research": {"input": order},
        "transfer_to_desk": {},
    }.get(call.tool, {"order": order})
    return ResponseFunctionToolCall(
        type="function_call",
        id=f"item_{call.id}",
        call_id=call.id,
        name=call.tool,
        arguments=json.dumps(arguments),
        status="completed",
    )


def _tool(name: str, world: World) -> FunctionTool:
    kind = script.EFFECTS[name]

    async def act(context: RunContextWrapper[Any], order: str) -> str:
        call = tool_call()
        if kind == "transactional":
            await call.connection.execute(_BOOK, (order, call.call_id))
        return await world.act(
            Call(name, call.call_id), order, key=call.idempotency_key, attempt=call.attempt
        )

    act.__doc__ = "Do what the script says."
    tool = function_tool(name_override=name, needs_approval=name in script.GATED)(act)
    # What must not happen twice is left unmarked, as people leave it.
    return tool if kind == "at_most_once" else effect(kind)(tool)  # type: ignore[arg-type]


def make_engine(world: World) -> Engine:
    """Return the engine of the script."""
    researcher = Agent(
        name="researcher",
        model=ScriptModel("researcher", world),
        tools=[_tool("search", world), _tool("write", world)],
    )
    desk = Agent(
        name="desk",
        model=ScriptModel("desk", world),
        tools=[
            *(_tool(name, world) for name in ("notify", "ship", "book", "look_up", "refund")),
            researcher.as_tool(tool_name="research", tool_description="Ask the researcher."),
        ],
    )
    triage = Agent(
        name="triage",
        model=ScriptModel("triage", world),
        tools=[_tool("look_up", world)],
        handoffs=[desk],
    )
    return Engine(agents=[triage], run_config=_UNTRACED)


engine = make_engine(World())
"""In a variable, where a process that is to run one segment alone finds it."""


def warm_up() -> None:
    """Load what is loaded when a worker launches and first runs something: each fork has it."""
    for name in ("claims", "instance", "pickles"):
        import_module(f"perdure.runs.dbos_inside.{name}")
    asyncio.run(Runner.run(Agent(name="warm", model=_Greeter()), "hello", run_config=_UNTRACED))


def main(order: dict[str, Any]) -> None:
    """Be a worker until killed."""
    logging.basicConfig(format="%(asctime)s %(process)d %(name)s %(message)s")
    enter(order["log"], order["seed"])
    asyncio.run(_work(order["url"]))


async def _work(url: str) -> None:
    async with engine.running(url=url, migrate_first=False):
        await asyncio.get_running_loop().create_future()
