"""What goes wrong, told apart: to the model, to the run's error, or to nobody because it passed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import httpx
import httpx2
import openai
import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    ModelRetrySettings,
    ModelSettings,
    RunContextWrapper,
    RunHooks,
    Runner,
    function_tool,
    input_guardrail,
    output_guardrail,
    retry_policies,
)
from agents.testing import ModelStep, ScriptedModel, assistant_message
from openai.types.responses import ResponseCreatedEvent, ResponseFailedEvent
from pydantic import BaseModel

from perdure import Engine, effect, tool_call
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    call,
    calls_of,
    completed_event,
    error_of,
    items_of,
    outputs_in,
    query,
    quick_retries,
    records,
    replies_in,
    rested,
    running,
    turns,
)

REQUEST = httpx2.Request("POST", "https://models.example/v1/responses")


def rate_limited(retry_after: str = "0") -> openai.RateLimitError:
    response = httpx2.Response(429, request=REQUEST, headers={"retry-after": retry_after})
    return openai.RateLimitError("slow down, please", response=response, body=None)


def refused() -> openai.BadRequestError:
    response = httpx2.Response(400, request=REQUEST)
    return openai.BadRequestError("the prompt is too long by 7", response=response, body=None)


def out_of_order() -> openai.InternalServerError:
    response = httpx2.Response(503, request=REQUEST)
    return openai.InternalServerError("out of order", response=response, body=None)


async def _cut(_: Any) -> AsyncIterator[Any]:
    whole = completed_event([assistant_message("never complete")])
    yield ResponseCreatedEvent(type="response.created", sequence_number=0, response=whole.response)


async def _cut_by_the_network(given: Any) -> AsyncIterator[Any]:
    async for event in _cut(given):
        yield event
    raise httpx.RemoteProtocolError("peer closed connection")


async def _overloaded(_: Any) -> AsyncIterator[Any]:
    response = completed_event([]).response.model_copy(
        update={
            "status": "failed",
            "error": {"code": "server_error", "message": "we are overloaded"},
        }
    )
    response = type(response).model_validate(response.model_dump(warnings=False))
    yield ResponseFailedEvent(type="response.failed", sequence_number=1, response=response)


PASSING: dict[str, Any] = {
    "429": rate_limited(),
    "503": out_of_order(),
    "network": openai.APIConnectionError(request=REQUEST),
    "httpx": httpx.ConnectError("refused"),
    "httpx2": httpx2.ReadError("reset"),
    "time-out": openai.APITimeoutError(request=REQUEST),
    "stream cut": ModelStep.stream(_cut),
    "stream broken": ModelStep.stream(_cut_by_the_network),
    "overloaded": ModelStep.stream(_overloaded),
}


async def test_passing_trouble_with_the_model_is_retried(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {
        name: ScriptedModel([trouble, trouble, [assistant_message("there")]])
        for name, trouble in PASSING.items()
    }
    agents = [Agent(name=name, model=model) for name, model in models.items()]
    with quick_retries(monkeypatch):
        async with running(database_url, *agents) as engine:
            for name, model in models.items():
                run = await rested(engine, name)
                assert (name, run.data["error"], run.output) == (name, None, "there")
                assert len(model.calls) == 3, name
                assert run.data["usage"]["requests"] == 1, name


async def test_lasting_trouble_with_the_model_fails_with_its_words(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RuleModel(lambda _: rate_limited())
    monkeypatch.setattr("perdure.runs.asking.MAX_RETRIES", 2)
    with quick_retries(monkeypatch):
        async with running(database_url, Agent(name="a", model=model)) as engine:
            run = await rested(engine, "a")
            assert error_of(run) == {
                "type": "model_error",
                "message": "RateLimitError: slow down, please",
            }
    # One layer retries: the first attempt and two more, not three times three.
    assert model.asked == 3


async def test_a_request_the_provider_refuses_is_not_repeated(database_url: str) -> None:
    model = RuleModel(lambda _: refused())
    async with running(database_url, Agent(name="a", model=model)) as engine:
        run = await rested(engine, "a")
        assert error_of(run) == {
            "type": "model_error",
            "message": "BadRequestError: the prompt is too long by 7",
        }
    assert model.asked == 1


async def test_retries_of_ones_own_are_the_only_ones(database_url: str) -> None:
    model = RuleModel(lambda _: out_of_order())
    own = ModelRetrySettings(
        max_retries=1,
        backoff={"initial_delay": 0.0, "max_delay": 0.0},
        policy=retry_policies.http_status([503]),
    )
    agent = Agent(name="a", model=model, model_settings=ModelSettings(retry=own))
    async with running(database_url, agent) as engine:
        run = await rested(engine, "a")
        assert error_of(run)["type"] == "model_error"
    assert model.asked == 2


async def test_a_model_that_calls_what_is_not_there(database_url: str) -> None:
    ran: list[str] = []

    @function_tool
    async def look() -> str:
        ran.append("look")
        return "saw"

    model = turns([call("look", "c1"), call("dance", "c2")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[look])) as engine:
        run = await rested(engine, "a")
        assert error_of(run)["type"] == "model_error"
        assert "dance" in error_of(run)["message"]
        calls = await calls_of(engine, run)
    assert ran == []
    assert (calls["c1"]["status"], calls["c1"]["attempt"]) == ("proposed", 0)


async def test_a_guardrail_may_ask_an_agent_of_the_graph(database_url: str) -> None:
    judge_model = turns("fine")
    judge = Agent(name="judge", model=judge_model)

    @output_guardrail
    async def judged(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        verdict = await Runner.run(judge, str(output), context=context.context)
        return GuardrailFunctionOutput(None, tripwire_triggered=verdict.final_output != "fine")

    @input_guardrail
    async def judged_before(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        verdict = await Runner.run(judge, str(given), context=context.context)
        return GuardrailFunctionOutput(None, tripwire_triggered=verdict.final_output != "fine")

    model = turns([call("ask", "c1", input="x")], "done")
    agent = Agent(
        name="a",
        model=model,
        tools=[judge.as_tool("ask", "asks")],
        input_guardrails=[judged_before],
        output_guardrails=[judged],
    )
    async with running(database_url, agent) as engine:
        run = await rested(engine, "a")
        assert (run.data["error"], run.output) == (None, "done")
        assert run.data["turn"] == 2
    assert (model.asked, judge_model.asked) == (2, 3)
    assert run.data["usage"]["requests"] == 5


async def test_an_output_that_does_not_fit_its_type(database_url: str) -> None:
    class Answer(BaseModel):
        cents: int

    agent = Agent(name="a", model=turns('{"cents": "many"}'), output_type=Answer)
    async with running(database_url, agent) as engine:
        run = await rested(engine, "a")
        assert error_of(run)["type"] == "model_error"


async def test_too_many_turns(database_url: str) -> None:
    @function_tool
    async def look() -> str:
        return "saw"

    model = RuleModel(lambda items: [call("look", f"c{replies_in(items)}")])
    async with running(database_url, Agent(name="a", model=model, tools=[look])) as engine:
        run = await rested(engine, "a", max_turns=3)
        assert error_of(run) == {"type": "max_turns", "message": "Max turns (3) exceeded"}
        assert run.data["turn"] == 3
        items = await items_of(engine, run)
    assert model.asked == 3
    assert [item["type"] for item in items] == ["message", *["tool_call", "tool_call_output"] * 3]


async def test_what_a_tool_raises_goes_to_the_model(database_url: str) -> None:
    def says(context: RunContextWrapper[Any], error: Exception) -> str:
        return f"sorry: {error}"

    async def says_later(context: RunContextWrapper[Any], error: Exception) -> str:
        await asyncio.sleep(0)
        return f"sorry later: {error}"

    @function_tool
    async def by_default(n: int) -> str:
        raise LookupError("no such order")

    @function_tool(failure_error_function=says)
    def by_function(n: int) -> str:
        raise LookupError("no such order")

    @function_tool(failure_error_function=says_later)
    async def by_coroutine(n: int) -> str:
        raise LookupError("no such order")

    @function_tool
    async def fine(n: int) -> str:
        return "fine"

    tools: list[Any] = [by_default, by_function, by_coroutine, fine]
    model = turns([call(tool.name, f"c{n}", n=n) for n, tool in enumerate(tools)], "done")
    async with running(database_url, Agent(name="a", model=model, tools=tools)) as engine:
        run = await rested(engine, "a")
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    read = outputs_in(model.inputs[-1])
    assert "error" in read["c0"]
    assert read["c1"] == "sorry: no such order"
    assert read["c2"] == "sorry later: no such order"
    assert read["c3"] == "fine"
    for n in range(3):
        one = calls[f"c{n}"]
        assert one["status"] == "failed"
        assert (one["error"]["type"], one["error"]["message"]) == ("LookupError", "no such order")
        assert one["output"] == read[f"c{n}"]
    assert calls["c3"]["status"] == "succeeded"


async def test_a_tool_that_wants_its_error_raised_is_a_programming_error(database_url: str) -> None:
    @function_tool(failure_error_function=None)
    async def breaks() -> str:
        try:
            return {"a": "b"}["c"]
        except KeyError:
            raise ValueError("no such order")  # noqa: B904 - the tool's words count, not the cause's

    line = inspect.getsourcelines(test_a_tool_that_wants_its_error_raised_is_a_programming_error)
    raised = line[1] + next(n for n, text in enumerate(line[0]) if "raise ValueError" in text)
    model = turns([call("breaks", "c1")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[breaks])) as engine:
        run = await rested(engine, "a")
        assert error_of(run)["type"] == "programming_error"
        assert "ValueError: no such order" in error_of(run)["message"]
        assert f"{Path(__file__).name}, line {raised}, in breaks" in error_of(run)["message"]
        calls = await calls_of(engine, run)
    assert model.asked == 1
    assert calls["c1"]["status"] == "failed"
    assert calls["c1"]["error"]["message"] == "no such order"


async def test_a_hook_that_raises_is_a_programming_error(database_url: str) -> None:
    class Hooks(RunHooks[Any]):
        async def on_tool_start(self, *_: Any) -> None:
            raise RuntimeError("hook trouble")

    @function_tool
    async def look() -> str:
        return "saw"

    model = turns([call("look", "c1")], "done")
    agent = Agent(name="a", model=model, tools=[look])
    async with running(database_url, agent, hooks=Hooks()) as engine:
        run = await rested(engine, "a")
        assert error_of(run)["type"] == "programming_error"
        assert "hook trouble" in error_of(run)["message"]
        assert Path(__file__).name in error_of(run)["message"]
        calls = await calls_of(engine, run)
    assert (calls["c1"]["status"], calls["c1"]["attempt"]) == ("proposed", 0)


@pytest.mark.parametrize("kind", ["by default", "by function", "raised"])
async def test_a_tool_that_takes_too_long(database_url: str, kind: str) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "by default": {},
        "by function": {"timeout_error_function": lambda *_: "took too long"},
        "raised": {"timeout_behavior": "raise_exception"},
    }

    async def endless() -> str:
        await asyncio.Event().wait()
        return "never"

    slow = effect("read")(function_tool(endless, name_override="slow", timeout=0.05, **kinds[kind]))
    model = turns([call("slow", "c1")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[slow])) as engine:
        run = await rested(engine, "a")
        calls = await calls_of(engine, run)
        if kind == "raised":
            assert error_of(run)["type"] == "programming_error"
            assert "0.05" in error_of(run)["message"]
        else:
            assert (run.status, run.error) == ("completed", None)
            read = outputs_in(model.inputs[-1])["c1"]
            assert read == "took too long" if kind == "by function" else "timed out" in read
    assert calls["c1"]["status"] == "failed"


@pytest.mark.parametrize("side", ["input", "input beside", "output"])
async def test_an_agents_guardrail_trips(database_url: str, side: str) -> None:
    @input_guardrail(run_in_parallel=side == "input beside")
    async def polite(*_: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput({"rude": True}, tripwire_triggered=side.startswith("input"))

    @output_guardrail
    async def short(*_: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput({"long": True}, tripwire_triggered=side == "output")

    model = turns("done")
    agent = Agent(name="a", model=model, input_guardrails=[polite], output_guardrails=[short])
    async with running(database_url, agent) as engine:
        run = await rested(engine, "a")
        assert error_of(run)["type"] == "guardrail"
        name, why = ("short", "long") if side == "output" else ("polite", "rude")
        assert name in error_of(run)["message"]
        assert why in error_of(run)["message"]
    if side == "input":
        assert model.asked == 0


async def test_a_guardrail_that_trips_late_does_not_hide_what_a_tool_did(
    database_url: str,
) -> None:
    gate = Gate()

    @input_guardrail
    async def slow(*_: Any) -> GuardrailFunctionOutput:
        await gate.reached()
        gate.open()
        return GuardrailFunctionOutput("too late", tripwire_triggered=True)

    @function_tool
    async def send() -> str:
        await gate.stop()
        return "sent"

    model = turns([call("send", "c1")], "done")
    agent = Agent(name="a", model=model, tools=[send], input_guardrails=[slow])
    async with running(database_url, agent) as engine:
        run = await rested(engine, "a")
        assert error_of(run)["type"] == "guardrail"
        calls = await calls_of(engine, run)
    assert gate.passed == 1
    assert (calls["c1"]["status"], calls["c1"]["output"]) == ("succeeded", "sent")


@pytest.mark.parametrize("kind", ["at_most_once", "idempotent"])
async def test_a_call_the_sdk_cuts_short_is_not_left_running(
    database_url: str, kind: Literal["at_most_once", "idempotent"]
) -> None:
    """When a tool raises, the SDK cancels those beside it in mid-effect."""
    gate = Gate()
    began: list[int] = []

    @effect(kind)
    @function_tool
    async def slow() -> str:
        began.append(tool_call().attempt)
        if len(began) == 1:
            await gate.stop()
        return "slow"

    @effect("idempotent")
    @function_tool(failure_error_function=None)
    async def breaks() -> str:
        if tool_call().attempt == 1:
            await gate.reached()
            raise ValueError("broken")
        return "mended"

    model = turns([call("slow", "c1"), call("breaks", "c2")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[slow, breaks])) as engine:
        run = await rested(engine, "a")
        assert error_of(run)["message"].startswith("ValueError: broken")
        calls = await calls_of(engine, run)
        assert gate.passed == 0
        assert calls["c2"]["status"] == "failed"
        if kind == "idempotent":
            assert calls["c1"]["status"] == "failed"
            assert calls["c1"]["error"]["type"] == "CancelledError"
            await _resume(engine, run.id)
        else:
            # Whether it happened nobody knows: resumed, the run asks before it does anything.
            assert calls["c1"]["status"] == "uncertain"
            await _resume(engine, run.id)
            await run.wait(SECONDS)
            [one] = run.interruptions
            assert (one.type, one.tool["call_id"]) == ("uncertain_effect", "c1")
            assert began == [1]
            await engine.decide(one.id, "resolve", outcome="not_done")
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
    assert began == [1, 2]
    assert outputs_in(model.inputs[-1]) == {"c1": "slow", "c2": "mended"}


async def test_no_exception_of_a_tool_leaves_a_run_without_a_rest(database_url: str) -> None:
    def tool(raised: type[BaseException], *, plain: bool) -> Any:
        async def odd() -> str:
            raise raised("odd")

        def plainly_odd() -> str:
            raise raised("odd")

        return effect("read")(
            function_tool(
                plainly_odd if plain else odd, name_override="odd", failure_error_function=None
            )
        )

    agents = {
        f"{raised.__name__} {plain}": Agent(
            name=f"{raised.__name__} {plain}",
            model=turns([call("odd", "c1")], "done"),
            tools=[tool(raised, plain=plain)],
        )
        for raised in (asyncio.CancelledError, SystemExit, BaseException)
        for plain in (True, False)
    }
    async with running(database_url, *agents.values()) as engine:
        for name in agents:
            run = await rested(engine, name)
            assert error_of(run)["type"] == "programming_error"
            if "Cancelled" not in name:  # its words the SDK drops
                assert "odd" in error_of(run)["message"]
            assert (await calls_of(engine, run))["c1"]["status"] == "failed", name


async def test_a_build_that_cannot_read_a_runs_context_says_so(database_url: str) -> None:
    class Before(BaseModel):
        customer: str

    class After(BaseModel):
        customer: str
        since: int

    @function_tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    def agent() -> Agent[Any]:
        return Agent(name="a", model=turns([call("pay", "c1")], "done"), tools=[pay])

    async with running(database_url, agent(), context_type=Before) as engine:
        run = await rested(engine, "a", context={"customer": "ada"})
        assert run.status == "interrupted"
    async with running(database_url, agent(), context_type=After) as engine:
        run = await engine.get(run.id)
        [one] = run.interruptions
        await engine.decide(one.id, "approve", digest=one.digest)
        await run.wait(SECONDS)
        assert error_of(run)["type"] == "programming_error"
        assert "since" in error_of(run)["message"]
        workflows = await query(engine, "SELECT status FROM dbos.workflow_status")
    assert "ERROR" not in {row["status"] for row in workflows}


async def test_an_agent_this_build_does_not_have(database_url: str) -> None:
    @function_tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    first = Agent(name="first", model=turns([call("pay", "c1")], "done"), tools=[pay])
    async with running(database_url, first) as engine:
        run = await rested(engine, "first")
    async with running(database_url, Agent(name="second", model=turns("x"))) as engine:
        run = await engine.get(run.id)
        [one] = run.interruptions
        await engine.decide(one.id, "approve", digest=one.digest)
        await run.wait(SECONDS)
        assert error_of(run)["type"] == "programming_error"
        assert "first" in error_of(run)["message"]
        assert "second" in error_of(run)["message"]
    # Deployed again and resumed, it goes on from where it stood.
    async with running(database_url, first) as engine:
        await _resume(engine, run.id)
        run = await (await engine.get(run.id)).wait(SECONDS)
        assert (run.status, run.output) == ("completed", "done")


async def _resume(engine: Engine, run_id: str) -> None:
    from uuid import UUID

    from perdure.access.principals import DEFAULT_TENANT
    from perdure.runs.resume import retry

    async with engine.pool.connection() as conn:
        await retry(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run_id))


async def test_a_failed_run_resumes_from_what_it_has(database_url: str) -> None:
    tries: list[int] = []

    @function_tool(failure_error_function=None)
    async def flaky(n: int) -> str:
        tries.append(n)
        if 99 not in tries:
            raise ConnectionError("not now")
        return "worked"

    @function_tool
    async def steady() -> str:
        tries.append(0)
        return "steady"

    model = turns([call("steady", "c0")], [call("flaky", "c1", n=1)], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[flaky, steady])) as engine:
        run = await rested(engine, "a")
        assert error_of(run)["type"] == "programming_error"
        tries.append(99)
        await _resume(engine, run.id)
        await run.wait(SECONDS)
        assert (run.status, run.error, run.output) == ("completed", None, "done")
        calls = await calls_of(engine, run)
        items = await items_of(engine, run)
        segments = await query(engine, "SELECT outcome FROM perdure.segments ORDER BY seq")
        states = await records(engine, run, "checkpoints")
    # The recorded replies and the call that had worked stand; the call that raised is made again.
    assert tries == [0, 1, 99, 1]
    assert model.asked == 3
    assert (calls["c1"]["status"], calls["c1"]["attempt"]) == ("succeeded", 2)
    assert calls["c1"]["error"] is None
    assert calls["c0"]["attempt"] == 1
    assert outputs_in(model.inputs[-1]) == {"c0": "steady", "c1": "worked"}
    assert [row["outcome"] for row in segments] == ["failed", "completed"]
    assert [state["kind"] for state in states] == ["final"]
    assert [item["type"] for item in items] == [
        "message",
        *["tool_call", "tool_call_output"] * 2,
        "message_output",
    ]


async def test_what_was_approved_and_done_stays_done_when_a_failed_run_resumes(
    database_url: str,
) -> None:
    paid: list[str] = []

    @function_tool(needs_approval=True)
    async def pay(to: str) -> str:
        paid.append(to)
        return f"paid {to}"

    inner = Agent(
        name="inner",
        model=RuleModel(
            lambda items: (
                [call("pay", "c1", to="bob")]
                if replies_in(items) == 0
                else [assistant_message(outputs_in(items)["c1"])]
            )
        ),
        tools=[pay],
    )
    troubles: list[Exception] = [refused()]

    def rule(items: list[Any]) -> Any:
        if replies_in(items) == 0:
            return [
                call("pay", "c1", to="ada"),
                call("pay", "c2", to="eve"),
                call("ask", "c3", input="x"),
            ]
        return troubles.pop() if troubles else [assistant_message("done")]

    model = RuleModel(rule)
    agent = Agent(name="a", model=model, tools=[pay, inner.as_tool("ask", "asks")])
    async with running(database_url, agent) as engine:
        run = await rested(engine, "a")
        for one in run.interruptions:
            if one.tool["arguments"] == {"to": "eve"}:
                await engine.decide(one.id, "reject", message="not eve")
            else:
                await engine.decide(one.id, "approve", digest=one.digest)
        await run.wait(SECONDS)
        assert error_of(run)["type"] == "model_error"
        assert sorted(paid) == ["ada", "bob"]
        await _resume(engine, run.id)
        await run.wait(SECONDS)
        assert (run.data["error"], run.output) == (None, "done")
    assert sorted(paid) == ["ada", "bob"]
    assert outputs_in(model.inputs[-1]) == {"c1": "paid ada", "c2": "not eve", "c3": "paid bob"}
    assert run.data["usage"]["requests"] == 4


async def test_a_run_whose_model_failed_asks_again_when_resumed(database_url: str) -> None:
    replies: list[Any] = [refused(), [call("dance", "c1")], [assistant_message("done")]]
    model = RuleModel(lambda _: replies.pop(0))
    async with running(database_url, Agent(name="a", model=model)) as engine:
        run = await rested(engine, "a")
        assert error_of(run)["type"] == "model_error"
        # Then a reply the SDK cannot use: it is recorded, and would fail the run for ever.
        await _resume(engine, run.id)
        await run.wait(SECONDS)
        assert error_of(run)["type"] == "model_error"
        assert "dance" in error_of(run)["message"]
        await _resume(engine, run.id)
        await run.wait(SECONDS)
        assert (run.status, run.output) == ("completed", "done")
    assert replies == []
