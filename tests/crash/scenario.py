"""One run that has everything in it, with a model that follows rules and a log of what happened.

``triage`` looks something up and hands off to ``desk``; ``desk`` calls four tools at once (one of
each effect class), an agent used as a tool that calls a tool itself, a tool that needs approval,
which it gets for other arguments, and one that asks a person. Every model request and every effect
is a line in a file, written before and after.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from agents import (
    Agent,
    GuardrailFunctionOutput,
    Model,
    ModelResponse,
    RunContextWrapper,
    ToolGuardrailFunctionOutput,
    Usage,
    function_tool,
    input_guardrail,
    output_guardrail,
    tool_input_guardrail,
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

from perdure import Engine, Price, ask_human, effect, record_operation, tool_call

LOG = "PERDURE_TEST_LOG"
_hooks: list[Callable[[str], None]] = []


def die_at(hook: Callable[[str], None]) -> None:
    """Call ``hook`` where a worker may die: ``effect <tool>``, between it and its record."""
    _hooks.append(hook)


def at(place: str) -> None:
    """Say that the run is at ``place``."""
    for hook in _hooks:
        hook(place)


def log(kind: str, **fields: Any) -> None:
    """Append one line; O_APPEND keeps lines of several processes whole."""
    line = json.dumps({"kind": kind, "pid": os.getpid(), **fields}) + "\n"
    fd = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines written so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _call(name: str, call_id: str, **arguments: Any) -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        type="function_call",
        id=f"fc_{call_id}",
        call_id=call_id,
        name=name,
        arguments=json.dumps(arguments),
        status="completed",
    )


def _message(text: str) -> ResponseOutputMessage:
    content = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(
        type="message",
        id=f"msg_{len(text)}",
        role="assistant",
        status="completed",
        content=[content],
    )


def _outputs(items: list[Any]) -> dict[str, str]:
    return {
        item["call_id"]: str(item["output"])
        for item in items
        if isinstance(item, dict) and str(item.get("type")).endswith("_call_output")
    }


class RuleModel(Model):
    """Says what ``rule`` makes of the outputs so far; its memory is the conversation alone."""

    def __init__(self, name: str, rule: Any) -> None:
        self.model = name
        self._rule = rule

    def _ask(self, model_input: Any) -> list[Any]:
        items = model_input if isinstance(model_input, list) else []
        log("asked", agent=self.model, items=len(items))
        at(f"asked {self.model}")
        return list(self._rule(_outputs(items)))

    async def get_response(
        self, system_instructions: Any, input: Any, *_: Any, **__: Any
    ) -> ModelResponse:
        usage = Usage(requests=1, input_tokens=10, output_tokens=5, total_tokens=15)
        return ModelResponse(output=self._ask(input), usage=usage, response_id=None)

    async def stream_response(
        self, system_instructions: Any, input: Any, *_: Any, **__: Any
    ) -> AsyncIterator[Any]:
        response = Response(
            id="resp",
            created_at=0,
            model=self.model,
            object="response",
            output=self._ask(input),
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=True,
            usage=ResponseUsage(
                input_tokens=10,
                output_tokens=5,
                total_tokens=15,
                input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
                output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
            ),
        )
        yield ResponseCompletedEvent(
            type="response.completed", response=response, sequence_number=0
        )


def _begin(name: str) -> None:
    call = tool_call()
    log("effect", tool=name, call_id=call.call_id, attempt=call.attempt, key=call.idempotency_key)
    at(f"effect {name}")


@tool_input_guardrail
def known_order(data: Any) -> ToolGuardrailFunctionOutput:
    """Let every order be looked up."""
    return ToolGuardrailFunctionOutput.allow({"known": True})


@input_guardrail
async def harmless(*_: Any) -> GuardrailFunctionOutput:
    """Let everything in."""
    return GuardrailFunctionOutput({"words": 1}, tripwire_triggered=False)


@output_guardrail
def polite(*_: Any) -> GuardrailFunctionOutput:
    """Let everything out."""
    return GuardrailFunctionOutput(None, tripwire_triggered=False)


SAID = [
    ("harmless", "input", "triage"),
    ("known_order", "input", "look_up"),
    ("known_order", "input", "look_up"),
    ("polite", "output", "desk"),
]
"""What guardrails say in a run, each once."""


@effect("read")
@function_tool(tool_input_guardrails=[known_order])
async def look_up(order: str) -> str:
    """Read something."""
    _begin("look_up")
    # Longer than what states and items repeat: they leave it to the call's row.
    return f"order {order}: " + ", ".join(f"{n} of a thing" for n in range(20))


@effect("idempotent")
@function_tool
async def notify(order: str) -> str:
    """Send something with a key."""
    _begin("notify")
    record_operation("NOTIFY", f"order/{order}", None, {"notified": True})
    return f"notified {order}"


@function_tool
async def ship(order: str) -> str:
    """Do something that must not happen twice; unmarked."""
    _begin("ship")
    record_operation("SHIP", f"order/{order}", {"at": "home"}, {"at": "road"})
    return f"shipped {order}"


@effect("transactional")
@function_tool
async def book(order: str) -> str:
    """Write a row in the transaction of the record."""
    _begin("book")
    conn = tool_call().connection
    await conn.execute("INSERT INTO bookings (order_id) VALUES (%s)", (order,))
    record_operation("BOOK", f"order/{order}", None, {"booked": 1})
    at("effect book written")
    return f"booked {order}"


@effect("idempotent")
@function_tool(needs_approval=True)
async def refund(order: str) -> str:
    """Pay money back, once somebody agreed."""
    _begin("refund")
    log("refunded", order=order)
    return f"refunded {order}"


@effect("idempotent")
@function_tool
def search(context: RunContextWrapper[Any], term: str) -> str:
    """Serve the nested agent."""
    _begin("search")
    record_operation("SEARCH", f"term/{term}")
    return f"found {term}"


def _researcher_rule(outputs: dict[str, str]) -> list[Any]:
    if "s1" not in outputs:
        return [_call("search", "s1", term="a"), _call("search", "s2", term="b")]
    return [_message(f"research: {outputs['s1']}, {outputs['s2']}")]


def _triage_rule(outputs: dict[str, str]) -> list[Any]:
    if "t1" not in outputs:
        return [_call("look_up", "t1", order="7")]
    return [_call("transfer_to_desk", "t2")]


def _desk_rule(outputs: dict[str, str]) -> list[Any]:
    if "d1" not in outputs:
        return [
            _call("notify", "d1", order="7"),
            _call("ship", "d2", order="7"),
            _call("book", "d3", order="7"),
            _call("research", "d4", input="what"),
        ]
    if "r1" not in outputs:
        return [
            _call("refund", "r1", order="7"),
            _call("look_up", "r2", order="7"),
            _call("ask_human", "r3", question="All well?"),
        ]
    return [_message("; ".join(outputs[key] for key in ("d1", "d2", "d3", "d4", "r3", "r1")))]


INSTEAD = {"order": "8"}
"""The arguments the refund is approved with: others than the model's."""
ANSWER = "very"
OUTPUT = (
    "notified 7; shipped 7; booked 7; research: found a, found b; very; refunded 8\n\n"
    "(A person changed the arguments before approving this call. It was executed with: "
    '{"order":"8"})'
)
REQUESTS = 7
"""Model replies of an undisturbed run: triage 2, desk 3, researcher 2."""


def make_engine() -> Engine:
    """Return the engine of the scenario; the graph is new each time."""
    researcher = Agent(
        name="researcher", model=RuleModel("researcher", _researcher_rule), tools=[search]
    )
    desk = Agent(
        name="desk",
        model=RuleModel("desk", _desk_rule),
        tools=[
            notify,
            ship,
            book,
            refund,
            look_up,
            ask_human,
            researcher.as_tool(tool_name="research", tool_description="Ask the researcher."),
        ],
    )
    desk.output_guardrails = [polite]
    triage = Agent(
        name="triage",
        model=RuleModel("triage", _triage_rule),
        tools=[look_up],
        handoffs=[desk],
        input_guardrails=[harmless],
    )
    desk.handoffs = [triage]
    return Engine(
        agents=[triage],
        operations=["NOTIFY", "SHIP", "BOOK", "SEARCH"],
        # Each request is 10 tokens in and 5 out.
        prices={"researcher": Price("1", "2")},
    )


def at_work(url: str) -> AbstractAsyncContextManager[Any]:
    """A worker of the scenario on the database of ``url``, inside the block."""
    return make_engine().running(url=url, migrate_first=False)
