"""What models and tools may say without harm: hostile text, odd numbers, what is no JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypedDict

import psycopg
import pytest
from agents import Agent, CustomTool, FunctionTool, RunContextWrapper, function_tool
from agents.testing import assistant_message, function_call
from agents.tool_context import ToolContext
from openai.types.responses import ResponseCustomToolCall
from pydantic import BaseModel

from perdure import effect, tool_call
from perdure.engine import Engine
from tests.engine_support import (
    SECONDS,
    RuleModel,
    approve,
    call,
    calls_of,
    error_of,
    items_of,
    outputs_in,
    query,
    records,
    rested,
    running,
    turns,
)

HOSTILE = "nul \x00 lone \ud800\udbff low \udfff marker \ue000 tail \ue0000000 \U0001f600 \\u0000"

WRITTEN = re.sub("[\ud800-\udfff]", "\ufffd", HOSTILE)
"""As a tool is given it: the SDK cannot take a call with lone surrogates."""


async def _state_of(engine: Engine, run_id: str) -> dict[str, Any]:
    from uuid import UUID

    from perdure.access.principals import DEFAULT_TENANT
    from perdure.runs.records import get_state

    async with engine.pool.connection() as conn:
        return await get_state(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run_id))


async def test_text_postgres_refuses_survives_everywhere(database_url: str) -> None:
    heard: list[str] = []

    @function_tool(needs_approval=True)
    async def echo(text: str) -> str:
        heard.append(text)
        return HOSTILE

    @function_tool
    async def breaks(text: str) -> str:
        raise ValueError(HOSTILE)

    model = turns([call("echo", "c1", text=HOSTILE), call("breaks", "c2", text=HOSTILE)], HOSTILE)
    async with running(database_url, Agent(name="a", model=model, tools=[echo, breaks])) as engine:
        run = await rested(engine, "a", HOSTILE, metadata={"note": HOSTILE})
        [one] = run.interruptions
        assert one.tool["arguments"] == {"text": WRITTEN}
        run = await approve(engine, run)
        assert run.error is None
        assert run.output == HOSTILE
        assert run.data["input"] == HOSTILE
        assert run.data["metadata"] == {"note": HOSTILE}
        items = await items_of(engine, run)
        calls = await calls_of(engine, run)
        state = await _state_of(engine, run.id)
    assert heard == [WRITTEN]
    assert outputs_in(model.inputs[-1])["c1"] == HOSTILE
    assert items[0]["text"] == items[-1]["text"] == HOSTILE
    [output] = [
        item["text"]
        for item in items
        if item["type"] == "tool_call_output" and item["item"]["call_id"] == "c1"
    ]
    assert output == HOSTILE
    assert calls["c1"]["arguments"] == {"text": WRITTEN}
    assert calls["c1"]["output"] == HOSTILE
    assert calls["c2"]["error"]["message"] == HOSTILE
    assert state["state"]["original_input"] == HOSTILE


async def test_hostile_ids_and_names_of_calls(database_url: str) -> None:
    ids = ["c\x00", "c\ud800", "c\ue000", "c/d"]
    done: list[str] = []

    @effect("transactional")
    @function_tool
    async def note() -> str:
        done.append(tool_call().call_id)
        return f"noted {done[-1]}"

    model = turns([call("note", id_) for id_ in ids], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[note])) as engine:
        run = await rested(engine, "a")
        assert run.error is None
        calls = await calls_of(engine, run)
    assert sorted(done) == sorted(ids)
    assert {key: one["status"] for key, one in calls.items()} == dict.fromkeys(ids, "succeeded")
    assert len({one["idempotency_key"] for one in calls.values()}) == len(ids)


async def test_hostile_input_of_a_custom_tool(database_url: str) -> None:
    heard: list[str] = []

    async def grep(_: Any, text: str) -> str:
        heard.append(text)
        return HOSTILE

    tool = CustomTool(name="grep", description="Looks.", on_invoke_tool=grep)
    asked = ResponseCustomToolCall(
        type="custom_tool_call", call_id="c1", name="grep", input=HOSTILE, id="ctc_1"
    )
    model = turns([asked], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[tool])) as engine:
        run = await rested(engine, "a")
        assert run.error is None
        one = (await calls_of(engine, run))["c1"]
    assert heard == [WRITTEN]
    assert (one["arguments_raw"], one["output"]) == (WRITTEN, HOSTILE)
    assert outputs_in(model.inputs[-1]) == {"c1": HOSTILE}


async def test_an_error_of_hostile_words(database_url: str) -> None:
    @function_tool(failure_error_function=None)
    async def breaks() -> str:
        raise ValueError(HOSTILE)

    model = turns([call("breaks", "c1")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[breaks])) as engine:
        run = await rested(engine, "a")
        assert "ValueError: nul" in error_of(run)["message"]
        assert (await calls_of(engine, run))["c1"]["error"]["message"] == HOSTILE


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no words for it")

    __repr__ = __str__


def _cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


ODD: dict[str, Callable[[], Any]] = {
    "nan": lambda: math.nan,
    "nan inside": lambda: {"a": [math.nan, -math.inf]},
    "set": lambda: {"a"},
    "bytes": lambda: b"\xff\x00",
    "time": lambda: datetime(2026, 1, 1, tzinfo=UTC),
    "decimal": lambda: Decimal("1.10"),
    "huge": lambda: 10**3000,
    "keys": lambda: {1: "a", None: "b"},
    "tuple": lambda: (1, 2),
    "cyclic": _cyclic,
    "none": lambda: None,
    "empty": lambda: "",
    "empty list": list,
    "false": lambda: False,
    "object": object,
}


async def test_outputs_that_are_no_json(database_url: str) -> None:
    """The model reads what it would without us; what is recorded can be listed."""

    @function_tool
    async def odd(kind: str) -> Any:
        return ODD[kind]()

    model = turns([call("odd", kind, kind=kind) for kind in ODD], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[odd])) as engine:
        run = await rested(engine, "a")
        assert run.error is None
        calls = await calls_of(engine, run)
        assert len(await items_of(engine, run)) == 2 + 2 * len(ODD)
    read = outputs_in(model.inputs[-1])
    for kind, make in ODD.items():
        value = make()
        if kind != "object":
            assert read[kind] == str(value), kind
        assert calls[kind]["status"] == "succeeded", kind
        output = calls[kind]["output"]
        assert output == value or output == str(value) or kind == "object", kind
    assert calls["none"]["output"] is None
    assert calls["empty"]["output"] == ""
    assert calls["false"]["output"] is False
    assert calls["empty list"]["output"] == []


@pytest.mark.parametrize("kind", ["unprintable", "too many digits"])
async def test_an_output_the_sdk_cannot_show_fails_the_run_and_says_so(
    database_url: str, kind: str
) -> None:
    @function_tool
    async def odd() -> Any:
        return _Unprintable() if kind == "unprintable" else 10**5000

    model = turns([call("odd", "c1")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[odd])) as engine:
        run = await rested(engine, "a")
        assert error_of(run)["type"] == "programming_error"
        words = "no words for it" if kind == "unprintable" else "digits"
        assert words in error_of(run)["message"]
        one = (await calls_of(engine, run))["c1"]
    assert one["status"] == "failed"
    assert words in one["error"]["message"]


class Price(TypedDict):
    """An output with a type of its own."""

    cents: float


class Answer(BaseModel):
    """Another."""

    when: datetime
    cents: int


async def test_outputs_with_a_schema(database_url: str) -> None:
    @function_tool
    async def price(cents: float) -> Price:
        return {"cents": math.nan if cents < 0 else cents}

    @function_tool
    async def answer() -> Answer:
        return Answer(when=datetime(2026, 1, 1, tzinfo=UTC), cents=5)

    model = turns(
        [call("price", "c1", cents=2.5), call("price", "c2", cents=-1), call("answer", "c3")],
        "done",
    )
    async with running(database_url, Agent(name="a", model=model, tools=[price, answer])) as engine:
        run = await rested(engine, "a")
        assert run.error is None
        calls = await calls_of(engine, run)
    assert {one["status"] for one in calls.values()} == {"succeeded"}
    assert "2.5" in str(calls["c1"]["output"])
    assert "nan" in outputs_in(model.inputs[-1])["c2"].lower()
    assert "2026" in str(calls["c3"]["output"])


ARGUMENTS = {
    "huge integer": '{"n": 1' + "0" * 400 + "}",
    "too many digits": '{"n": 1' + "0" * 5000 + "}",
    "infinite": '{"n": 1e400}',
    "nan": '{"n": NaN}',
    "cut off": '{"n": ',
    "empty": "",
    "a list": "[1]",
    "deep": '{"n": ' + "[" * 200 + "]" * 200 + "}",
    "very deep": '{"n": ' + "[" * 20000 + "]" * 20000 + "}",
    "twice": '{"n": 1, "n": 2}',
    "fraction": '{"n": 1.0000000000000000001}',
}


@pytest.mark.parametrize("gated", [False, True])
async def test_arguments_of_every_kind(database_url: str, gated: bool) -> None:
    async def invoke(context: ToolContext[Any], arguments: str) -> str:
        seen[context.tool_call_id] = arguments
        return "took it"

    seen: dict[str, str] = {}
    tool = FunctionTool(
        name="take",
        description="Takes anything.",
        params_json_schema={"type": "object", "properties": {}},
        on_invoke_tool=invoke,
        strict_json_schema=False,
        needs_approval=gated,
    )
    model = turns(
        [function_call("take", text, call_id=kind) for kind, text in ARGUMENTS.items()], "done"
    )
    async with running(database_url, Agent(name="a", model=model, tools=[tool])) as engine:
        run = await rested(engine, "a")
        if gated:
            assert run.error is None
            assert len({one.digest for one in run.interruptions}) == len(ARGUMENTS)
            run = await approve(engine, run)
        assert run.error is None
        calls = await calls_of(engine, run)
    # The tool gets what the model wrote, to the letter, or so much of it that it is no JSON.
    for kind, text in ARGUMENTS.items():
        one = calls[kind]
        assert one["status"] == "succeeded"
        if "deep" in kind:
            assert seen[kind] == text[: len(seen[kind])]
            assert len(seen[kind]) < 1000
        else:
            assert seen[kind] == text
        if one["arguments"] is None:
            assert one["arguments_raw"] == seen[kind]
    assert calls["huge integer"]["arguments"] == {"n": 10**400}
    assert calls["infinite"]["arguments_raw"] == '{"n": 1e400}'


class Anything(BaseModel):
    """Makes the SDK leave a tool's output as it is."""


async def test_final_outputs_that_are_no_json(database_url: str) -> None:
    values = {
        "nan": math.nan,
        "inf": {"a": math.inf},
        "set": {1},
        "bytes": b"\xff",
        "any": object(),
    }

    def agent(name: str, value: Any) -> Agent[Any]:
        async def odd() -> Any:
            return value

        return Agent(
            name=name,
            model=turns([call("odd", "c1")], "never said"),
            tools=[function_tool(odd)],
            tool_use_behavior="stop_on_first_tool",
            output_type=Anything,
        )

    agents = [agent(name, value) for name, value in values.items()]
    outputs = {}
    async with running(database_url, *agents) as engine:
        for name in values:
            run = await rested(engine, name)
            assert (name, run.data["error"]) == (name, None)
            outputs[name] = run.output
    # JSON has no such numbers: they become null.
    assert outputs["nan"] is None
    assert outputs["inf"] == {"a": None}
    assert outputs["set"] == [1]
    assert isinstance(outputs["bytes"], str)
    assert "object" in outputs["any"]


class Basket(BaseModel):
    """A context."""

    customer: str
    items: list[str] = []


@pytest.mark.parametrize("typed", [True, False])
async def test_a_context_tools_change_comes_back_after_an_interruption(
    database_url: str, typed: bool
) -> None:
    def items(context: Any) -> list[str]:
        found: list[str] = context.items if typed else context["items"]
        return found

    @function_tool
    async def add(context: RunContextWrapper[Any], item: str) -> str:
        assert isinstance(context.context, Basket) is typed
        items(context.context).append(item)
        return "added"

    @function_tool(needs_approval=True)
    async def pay(context: RunContextWrapper[Any]) -> str:
        return ",".join(items(context.context))

    model = turns(
        [call("add", "c1", item="a")],
        [call("pay", "c2")],
        [call("add", "c3", item="b")],
        [call("pay", "c4")],
        "done",
    )
    agent = Agent(name="a", model=model, tools=[add, pay])
    options = {"context_type": Basket} if typed else {}
    given = Basket(customer="ada") if typed else {"customer": "ada", "items": []}
    async with running(database_url, agent, **options) as engine:
        run = await rested(engine, "a", context=given)
        assert run.status == "interrupted"
    # Another process, another engine: what is left of the context is what was stored.
    async with running(database_url, agent, **options) as engine:
        run = await engine.get(run.id)
        run = await approve(engine, run)
        assert run.status == "interrupted"
        run = await approve(engine, run)
        assert run.error is None
        [stored] = await query(engine, "SELECT context FROM perdure.runs")
    assert outputs_in(model.inputs[-1])["c2"] == "a"
    assert outputs_in(model.inputs[-1])["c4"] == "a,b"
    assert stored["context"] == {"customer": "ada", "items": ["a", "b"]}


@pytest.mark.parametrize("value", [math.nan, object()])
async def test_a_context_that_stopped_being_json_fails_the_run_and_says_so(
    database_url: str, value: Any
) -> None:
    @function_tool
    async def spoil(context: RunContextWrapper[Any]) -> str:
        context.context["spoiled"] = value
        return "spoiled"

    model = turns([call("spoil", "c1")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[spoil])) as engine:
        run = await rested(engine, "a", context={"customer": "ada"})
        assert error_of(run)["type"] == "programming_error"
        assert "context" in error_of(run)["message"]
        # The engine is none the worse for it.
        [row] = await records(engine, run, "tool_calls")
        assert row["call_id"] == "c1"


async def test_an_empty_reply_and_items_of_other_kinds(database_url: str) -> None:
    given = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "function_call", "call_id": "old", "name": "gone", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "old", "output": "long ago"},
        {"role": "user", "content": "and now"},
    ]
    model = RuleModel(lambda items: [assistant_message("")])
    async with running(database_url, Agent(name="a", model=model)) as engine:
        run = await rested(engine, "a", given)
        assert (run.data["error"], run.output) == (None, "")
        items = await items_of(engine, run)
    assert [item["item"] for item in items[:5]] == given
    assert model.inputs[0] == given
    assert [item["role"] for item in items] == ["system", "user", None, None, "user", "assistant"]


async def test_transactional_tools_commit_with_their_record(database_url: str) -> None:
    @effect("transactional")
    @function_tool
    async def book(cents: int) -> str:
        known = tool_call()
        await known.connection.execute(
            "INSERT INTO bookings (key, cents) VALUES (%s, %s)", (known.idempotency_key, cents)
        )
        if cents < 0:
            raise ValueError("nothing to book")
        return f"booked {cents}"

    model = turns([call("book", "c1", cents=5), call("book", "c2", cents=-1)], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[book])) as engine:
        await query(engine, "CREATE TABLE bookings (key text PRIMARY KEY, cents int)")
        run = await rested(engine, "a")
        assert run.error is None
        calls = await calls_of(engine, run)
        # One transaction: the row of the effect and that of the call were written by the same one.
        rows = await query(
            engine,
            "SELECT b.cents, b.xmin = t.xmin AS together FROM bookings b"
            " JOIN perdure.tool_calls t ON t.idempotency_key = b.key",
        )
    assert rows == [{"cents": 5, "together": True}]
    assert (calls["c1"]["status"], calls["c1"]["output"]) == ("succeeded", "booked 5")
    assert (calls["c2"]["status"], calls["c2"]["error"]["message"]) == ("failed", "nothing to book")
    read = outputs_in(model.inputs[-1])
    assert read["c1"] == "booked 5"
    assert "error" in read["c2"]


MISUSES = ["swallowed", "deferred", "committed", "rolled back"]


@pytest.mark.parametrize("misuse", MISUSES)
async def test_a_transaction_that_cannot_commit_is_a_failed_call(
    database_url: str, misuse: str
) -> None:
    @effect("transactional")
    @function_tool
    async def book() -> str:
        conn = tool_call().connection
        await conn.execute("INSERT INTO bookings (key, of) VALUES ('k', 1)")
        match misuse:
            case "swallowed":
                with suppress(psycopg.Error):
                    await conn.execute("SELECT 1 / 0")
            case "committed":
                await conn.commit()
            case "rolled back":
                await conn.rollback()
        return "booked"

    model = turns([call("book", "c1")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[book])) as engine:
        await query(engine, "CREATE TABLE orders (id int PRIMARY KEY)")
        if misuse != "deferred":
            await query(engine, "INSERT INTO orders VALUES (1)")
        await query(
            engine,
            "CREATE TABLE bookings (key text PRIMARY KEY,"
            " of int REFERENCES orders DEFERRABLE INITIALLY DEFERRED)",
        )
        run = await rested(engine, "a")
        calls = await calls_of(engine, run)
        assert await query(engine, "SELECT * FROM bookings") == []
        assert calls["c1"]["status"] == "failed"
        if misuse in ("committed", "rolled back"):
            # psycopg refuses that within a transaction, and the tool's error goes to the model.
            assert run.status == "completed"
            assert "error" in outputs_in(model.inputs[-1])["c1"]
        else:
            assert error_of(run)["type"] == "programming_error"
            wanted = "aborted" if misuse == "swallowed" else "foreign key"
            assert wanted in error_of(run)["message"]
            assert wanted in calls["c1"]["error"]["message"]


async def test_a_connection_is_for_transactional_tools_only(database_url: str) -> None:
    @function_tool(failure_error_function=lambda _, error: str(error))
    async def look() -> str:
        return str(tool_call().connection)

    model = turns([call("look", "c1")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[look])) as engine:
        run = await engine.start("a", "hi")
        await run.wait(SECONDS)
    assert 'effect("transactional")' in outputs_in(model.inputs[-1])["c1"]
