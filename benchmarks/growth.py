"""What a run leaves in the database: bytes a turn, table by table, of short runs and of long ones.

Each turn calls one tool, whose answer is random letters, which do not compress. Runs that never
stop, runs that ask for approval in every turn and runs handed on to another agent in every turn:
the latter two write a state a turn. Short runs are repeated, so that half-filled pages count alike.
Values are what is stored, compressed where it is, without the 24 bytes each row begins with.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any

from agents import Agent, Model, ModelResponse, function_tool
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from benchmarks import workload
from benchmarks.plan import Plan
from benchmarks.report import Figure, at_most
from benchmarks.server import Server
from perdure.db import Connection
from perdure.engine import Engine

NAME = "growth"
TITLE = "What a turn leaves in the database"

_TURNS = (5, 20, 100)
_KINDS = ("alone", "approved", "handed on")
_MOST_BYTES = 4096
_SECONDS = 120.0
_LETTERS = "abcdefghijklmnopqrstuvwxyz     "

_TABLES_SQL = """
SELECT n.nspname AS schema, c.relname AS name,
       array_agg(quote_ident(a.attname) ORDER BY a.attnum) AS columns
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname IN ('perdure', 'dbos') AND c.relkind = 'r'
 GROUP BY n.nspname, c.relname"""


class _Asking(Model):
    """A model that calls the tool in each turn, and hands on beside it where it can.

    Ids and usage are as long as a provider's, and others in every reply.
    """

    def __init__(self, other: str | None = None) -> None:
        self._other = other

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise NotImplementedError("It is streamed.")

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[Any],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        asked, said = random.randrange(10_000, 99_999), random.randrange(20, 99)
        response = Response(
            id=f"resp_{random.randbytes(24).hex()}",
            created_at=0,
            model="at-once",
            object="response",
            output=self._answer(input),
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=True,
            usage=ResponseUsage(
                input_tokens=asked,
                output_tokens=said,
                total_tokens=asked + said,
                input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
                output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
            ),
        )
        yield ResponseCompletedEvent(
            type="response.completed", response=response, sequence_number=0
        )

    def _answer(self, model_input: str | list[Any]) -> list[Any]:
        first = model_input if isinstance(model_input, str) else model_input[0]["content"]
        task = json.loads(first)
        turn = 0
        if not isinstance(model_input, str):
            outputs = [one for one in model_input if one.get("type") == "function_call_output"]
            turn = sum(one["call_id"].startswith("call_") for one in outputs)
        if turn == task["turns"]:
            return [workload.message(workload.expected(turn))]
        asked = {workload.TOOL: {"turn": turn, "size": task["bytes"]}}
        if self._other is not None:
            asked[f"transfer_to_{self._other}"] = {}
        return [_call(name, arguments) for name, arguments in asked.items()]


def _call(name: str, arguments: dict[str, Any]) -> ResponseFunctionToolCall:
    kind = "call" if name == workload.TOOL else "hand"
    return ResponseFunctionToolCall(
        type="function_call",
        id=f"fc_{random.randbytes(24).hex()}",
        call_id=f"{kind}_{random.randbytes(12).hex()}",
        name=name,
        arguments=json.dumps(arguments),
        status="completed",
    )


async def look_up(turn: int, size: int) -> str:
    """Look something up; the answer has ``size`` characters, others in every turn."""
    return "".join(random.choices(_LETTERS, k=size))


def _agents(kind: str) -> list[Agent[Any]]:
    tool = function_tool(name_override=workload.TOOL, needs_approval=kind == "approved")(look_up)
    if kind != "handed on":
        return [Agent(name="one", model=_Asking(), tools=[tool])]
    one: Agent[Any] = Agent(name="one", model=_Asking("two"), tools=[tool])
    two: Agent[Any] = Agent(name="two", model=_Asking("one"), tools=[tool], handoffs=[one])
    one.handoffs = [two]
    return [one, two]


async def measure(server: Server, plan: Plan) -> list[Figure]:
    """Return the bytes a turn leaves, by kind of run and by its length."""
    figures: list[Figure] = []
    for kind in _KINDS:
        payloads = {}
        for turns in _TURNS:
            payload, pages = await _left(server, kind, turns, plan.tool_bytes)
            payloads[turns] = sum(payload.values())
            figures += _figures(kind, turns, payload, pages)
        figures.append(
            Figure(
                TITLE,
                f"{kind}: a turn of 100 ÷ a turn of 20",
                payloads[100] / payloads[20],
                "x",
                at_most(1.3),
            )
        )
    return figures


def _figures(
    kind: str, turns: int, payload: Mapping[str, float], pages: Mapping[str, float]
) -> list[Figure]:
    largest = sorted(payload, key=lambda name: -payload[name])
    told = ", ".join(f"{name} {payload[name]:.0f}" for name in largest if payload[name] >= 20)
    whole = sorted(pages, key=lambda name: -pages[name])
    target = at_most(_MOST_BYTES) if kind == "alone" and turns > 5 else None
    return [
        Figure(
            TITLE, f"{kind}, {turns} turns: values", sum(payload.values()), "bytes", target, told
        ),
        Figure(
            TITLE,
            f"{kind}, {turns} turns: with pages and indexes",
            sum(pages.values()),
            "bytes",
            None,
            ", ".join(f"{name} {pages[name]:.0f}" for name in whole if pages[name] >= 100),
        ),
    ]


async def _left(
    server: Server, kind: str, turns: int, tool_bytes: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the bytes of values and of pages that a turn of such runs left, by table."""
    url = await server.database(migrated=True)
    engine = Engine(_agents(kind))
    runs = max(1, _TURNS[-1] // turns)
    async with engine.running(url=url), engine.pool.connection() as conn:
        # The first run of all fills pages that later ones use as well.
        await _one(engine, turns, tool_bytes)
        await conn.execute("VACUUM")
        before = await _sizes(conn)
        for _ in range(runs):
            await _one(engine, turns, tool_bytes)
        await conn.execute("VACUUM")
        after = await _sizes(conn)
    done = turns * runs
    payload = {name: (values - before[name][0]) / done for name, (values, _) in after.items()}
    pages = {name: (total - before[name][1]) / done for name, (_, total) in after.items()}
    return payload, pages


async def _one(engine: Engine, turns: int, tool_bytes: int) -> None:
    run = await engine.start("one", workload.prompt(turns, tool_bytes), max_turns=turns + 1)
    run = await run.wait(_SECONDS)
    while run.status == "interrupted":
        for one in run.interruptions:
            await engine.decide(one["id"], "approve", digest=one["digest"])
        run = await run.wait(_SECONDS)
    if run.output != workload.expected(turns):
        raise AssertionError(f"A run came to {run.status}: {run.output or run.error}.")


async def _sizes(conn: Connection) -> dict[str, tuple[int, int]]:
    """Return the bytes of each table's values, as stored, and of all its pages."""
    tables = await (await conn.execute(_TABLES_SQL)).fetchall()
    sizes = {}
    for table in tables:
        name = f"{table['schema']}.{table['name']}"
        stored = " + ".join(f"coalesce(pg_column_size({column}), 0)" for column in table["columns"])
        cursor = await conn.execute(
            f"SELECT coalesce(sum({stored}), 0)::bigint AS stored,"
            f" pg_total_relation_size('{name}') AS total FROM {name}"
        )
        [row] = await cursor.fetchall()
        sizes[name.removeprefix("perdure.").removesuffix("_default")] = row["stored"], row["total"]
    return sizes
