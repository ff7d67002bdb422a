"""What a run used and cost, request by request and in sum, and what guardrails said of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    ModelRetrySettings,
    ModelSettings,
    Runner,
    ToolGuardrailFunctionOutput,
    Usage,
    function_tool,
    input_guardrail,
    output_guardrail,
    tool_input_guardrail,
    tool_output_guardrail,
)
from agents.usage import RequestUsage
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from perdure import Engine, Price, effect
from perdure.db import uuid7
from perdure.ledger.prices import Prices
from perdure.runs import asking
from perdure.runs.reply_rows import settings_column, usage_entries
from tests.engine_support import (
    RuleModel,
    call,
    error_of,
    query,
    records,
    rested,
    running,
    turns,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@effect("read")
@function_tool
def look(what: str) -> str:
    """Look at something."""
    return f"saw {what}"


class _TroubledModel(RuleModel):
    """Fails at first, then answers."""

    def __init__(self, *replies: Any) -> None:
        self.failures = 1
        scripted = turns(*replies)

        def rule(items: list[Any]) -> Any:
            if self.failures:
                self.failures -= 1
                return asking.StreamCut("gone")
            return scripted._rule(items)

        super().__init__(rule)


def _named(model: RuleModel, name: str) -> RuleModel:
    model.model = name  # type: ignore[attr-defined]
    return model


async def test_usage_and_cost_by_request_agent_and_model(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "FIRST_DELAY_SECONDS", 0.0)
    helper = Agent(name="helper", model=_named(turns("helped"), "nobody-s-model"))
    desk = Agent(
        name="desk",
        model=_named(
            _TroubledModel(
                [call("look", "c1", what="x"), call("help", "c2", input="how?")], "done"
            ),
            "house-model-2",
        ),
        model_settings=ModelSettings(
            temperature=0.5, extra_headers={"Authorization": "a secret"}, max_tokens=99
        ),
        tools=[look, helper.as_tool(tool_name="help", tool_description="Help.")],
    )
    # 10 tokens in and 5 out a request.
    prices = {"house-*": Price("1", "4")}
    async with running(database_url, desk, prices=prices) as engine:
        run = await rested(engine, "desk", "go")
        assert run.status == "completed"
        assert run.data["usage"] == {
            "requests": 3,
            "unpriced_requests": 1,
            "input_tokens": 30,
            "cached_input_tokens": 0,
            "cache_write_tokens": 0,
            "output_tokens": 15,
            "reasoning_tokens": 0,
            "total_tokens": 45,
            "cost_usd": "0.00006",
        }
        parts = {(one["agent"], one["model"]): one for one in await records(engine, run, "usage")}
        assert set(parts) == {("desk", "house-model-2"), ("helper", "nobody-s-model")}
        priced, unpriced = parts["desk", "house-model-2"], parts["helper", "nobody-s-model"]
        assert (priced["cost_usd"], unpriced["cost_usd"]) == ("0.00003", None)
        assert priced["price"] == {"input_mtok": "1", "output_mtok": "4"}
        assert priced["price_source"] == "own"
        [day] = await query(engine, "SELECT (now() AT TIME ZONE 'UTC')::date::text AS today")
        assert priced["price_date"] == day["today"]
        assert unpriced["price"] is unpriced["price_date"] is None
        replies = await records(engine, run, "model_responses")
        first, nested, last = replies
        assert (first["agent"], first["attempt"]) == ("desk", 2)
        assert (nested["agent"], nested["attempt"], nested["scope"]) == ("helper", 1, "c2")
        assert last["settings"] == {"temperature": 0.5, "max_tokens": 99}
        assert [one["type"] for one in first["output"]] == ["function_call", "function_call"]
        assert "secret" not in str(replies)


async def test_a_reply_that_took_several_requests_has_a_part_for_each() -> None:
    def one(tokens: int, cached: int) -> RequestUsage:
        return RequestUsage(
            input_tokens=tokens,
            output_tokens=1,
            total_tokens=tokens + 1,
            input_tokens_details=InputTokensDetails(cached_tokens=cached, cache_write_tokens=2),
            output_tokens_details=OutputTokensDetails(reasoning_tokens=1),
        )

    usage = Usage(
        requests=2,
        input_tokens=300,
        output_tokens=2,
        total_tokens=302,
        request_usage_entries=[one(100, 10), one(200, 0)],
    )
    reply = uuid7()
    first, second = usage_entries(reply, "m", usage, Prices({"m": Price("1", "1")}))
    assert first["id"] == str(reply) != second["id"]
    assert [first["position"], second["position"]] == [0, 1]
    assert [first["input_tokens"], second["input_tokens"]] == [100, 200]
    assert [first["cached_input_tokens"], second["cache_write_tokens"]] == [10, 2]
    assert [first["cost_usd"], second["cost_usd"]] == ["0.000101", "0.000201"]
    # A provider's nonsense is no count, and does not keep its reply from being recorded.
    odd = Usage(requests=1, input_tokens=-5, output_tokens=2**80, total_tokens=0)
    [entry] = usage_entries(reply, "m", odd, Prices())
    assert (entry["input_tokens"], entry["output_tokens"]) == (0, 2**53)
    assert settings_column(ModelSettings()) is None
    retried = ModelRetrySettings(max_retries=2, policy=lambda _: True)
    assert settings_column(ModelSettings(retry=retried)) == {"retry": {"max_retries": 2}}


@input_guardrail(name="no shouting")
async def no_shouting(context: Any, agent: Any, said: Any) -> GuardrailFunctionOutput:
    """Refuse capitals."""
    text = said if isinstance(said, str) else str(said[-1]["content"])
    return GuardrailFunctionOutput({"loud": text.isupper()}, tripwire_triggered=text.isupper())


@output_guardrail
def short_enough(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
    """Let short answers out."""
    return GuardrailFunctionOutput(object(), tripwire_triggered=len(str(output)) > 1000)


@tool_input_guardrail
def known_thing(data: Any) -> ToolGuardrailFunctionOutput:
    """Refuse what must not be looked at."""
    if "secret" in data.context.tool_arguments:
        return ToolGuardrailFunctionOutput.reject_content("Not that.\0", output_info=["secret"])
    return ToolGuardrailFunctionOutput.allow()


@tool_output_guardrail
async def seen_well(data: Any) -> ToolGuardrailFunctionOutput:
    """Let every output through."""
    return ToolGuardrailFunctionOutput.allow({"length": len(data.output)})


@effect("read")
@function_tool(tool_input_guardrails=[known_thing], tool_output_guardrails=[seen_well])
def peek(what: str) -> str:
    """Look at something, guarded."""
    return f"saw {what}"


async def test_what_guardrails_said_is_kept(database_url: str) -> None:
    nested = Agent(name="nested", model=turns("well"), input_guardrails=[no_shouting])
    guarded = Agent(
        name="guarded",
        model=turns(
            [
                call("peek", "c1", what="a secret"),
                call("peek", "c2", what="a door"),
                call("ask", "c3", input="how?"),
            ],
            "done",
        ),
        tools=[peek, nested.as_tool(tool_name="ask", tool_description="Ask.")],
        input_guardrails=[no_shouting],
        output_guardrails=[short_enough],
    )
    async with running(database_url, guarded) as engine:
        run = await rested(engine, "guarded", "hello")
        said = {
            (one["type"], one["call_id"] or one["scope"]): one
            for one in await records(engine, run, "guardrail_results")
        }
        assert set(said) == {
            ("input", ""),
            ("input", "c3"),
            ("tool_input", "c1"),
            ("tool_input", "c2"),
            ("tool_output", "c2"),
            ("output", ""),
        }
        assert said["input", ""]["guardrail"] == "no shouting"
        assert said["input", ""]["output_info"] == {"loud": False}
        assert said["input", "c3"]["agent"] == "nested"
        refused = said["tool_input", "c1"]
        assert (refused["behavior"], refused["message"]) == ("reject_content", "Not that.\0")
        assert (refused["tool"], refused["tripwire_triggered"]) == ("peek", True)
        assert said["tool_output", "c2"]["output_info"] == {"length": len("saw a door")}
        assert said["output", ""]["output_info"].startswith("<object")

        stopped = await rested(engine, "guarded", "HELLO")
        assert error_of(stopped)["type"] == "guardrail"
        [one] = await records(engine, stopped, "guardrail_results")
        assert (one["guardrail"], one["tripwire_triggered"]) == ("no shouting", True)


async def test_outside_a_durable_run_guardrails_and_prices_leave_no_trace(
    database_url: str,
) -> None:
    agent = Agent(name="plain", model=turns("ok"), input_guardrails=[no_shouting])
    engine = Engine([agent])
    result = await Runner.run(agent, "hello")
    assert result.final_output == "ok"
    assert [one.guardrail.get_name() for one in result.input_guardrail_results] == ["no shouting"]
    assert engine.registry.prices.cost(
        "gpt-4.1",
        {"input_tokens": 1, "cached_input_tokens": 0, "cache_write_tokens": 0, "output_tokens": 0},
    ).cost_usd > Decimal(0)  # type: ignore[union-attr]
