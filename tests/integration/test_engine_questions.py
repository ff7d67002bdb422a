"""Asking a person in mid-run."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from agents import Agent, Runner
from agents.testing import ScriptedModel, assistant_message
from pydantic import BaseModel

from perdure import ask_human
from perdure.errors import ConfigurationError, InvalidRequestError
from tests.engine_support import (
    SECONDS,
    call,
    calls_of,
    outputs_in,
    rested,
    running,
    turns,
    waiting_for,
)


class Address(BaseModel):
    """Where to."""

    street: str
    country: Literal["DE", "FR"]


async def test_questions_are_answered_in_the_shape_they_ask_for(database_url: str) -> None:
    choice = {"type": "string", "enum": ["blue", "red"]}
    asked = [
        call("ask_human", "free", question="Which one?"),
        call("ask_human", "formed", question="Which colour?", schema=choice),
        call("ask_human", "odd", question="What?", schema={"type": "colour"}),
        call("ask_human", "slow", question="Word?", schema={"type": "string", "pattern": "(a+)+$"}),
        call("ask_address", "fixed", question="Where to?"),
        call("ask_human", "declined", question="Your password?"),
    ]
    model = turns(asked, "done")
    tools = [ask_human, ask_human(schema=Address, name="ask_address")]
    agent = Agent(name="a", model=model, tools=list(tools))
    async with running(database_url, agent) as engine:
        run = await rested(engine, "a")
        assert {one.type for one in run.interruptions} == {"question"}
        shown = {one.tool["call_id"]: one for one in run.interruptions}
        assert {key: one.question for key, one in shown.items()} == {
            item.call_id: question_of(item) for item in asked
        }
        assert shown["free"].schema is None
        assert shown["formed"].schema == choice
        # What is no schema asks for nothing.
        assert shown["odd"].schema is None
        assert shown["fixed"].schema["properties"]["country"]["enum"] == ["DE", "FR"]

        async def answer(call_id: str, answer: Any) -> dict[str, Any]:
            return await engine.decide(
                waiting_for(run, call_id=call_id).id, "answer", answer=answer
            )

        for call_id, wrong, pointers in (
            ("formed", "green", ["/answer"]),
            ("fixed", {"street": 1, "country": "XX"}, ["/answer/country", "/answer/street"]),
            ("fixed", None, ["/answer"]),
        ):
            with pytest.raises(InvalidRequestError) as refused:
                await answer(call_id, wrong)
            assert sorted(one.pointer for one in refused.value.errors) == pointers
        one = shown["free"]
        with pytest.raises(InvalidRequestError, match="takes answer or reject"):
            await engine.decide(one.id, "approve", digest=one.digest)
        answered = await answer("free", "the left one")
        assert (answered["status"], answered["decision"]["answer"]) == ("answered", "the left one")
        await answer("formed", "blue")
        await answer("odd", [1, None])
        # A stranger's regular expression is not tried.
        await answer("slow", "a" * 40 + "!")
        await answer("fixed", {"street": "Rue 1", "country": "FR"})
        await engine.decide(shown["declined"].id, "reject", message="I do not tell.")
        run = await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    assert outputs_in(model.inputs[-1]) == {
        "free": "the left one",
        "formed": "blue",
        "odd": "[1, null]",
        "slow": "a" * 40 + "!",
        "fixed": '{"street": "Rue 1", "country": "FR"}',
        "declined": "I do not tell.",
    }
    assert calls["free"]["status"] == "succeeded"
    assert calls["declined"]["status"] == "rejected"


def question_of(item: Any) -> str:
    """The question a call asks."""
    return str(json.loads(item.arguments)["question"])


async def test_questions_of_agents_used_as_tools(database_url: str) -> None:
    inner_model = turns([call("ask_human", "q", question="Really?")], "inner done")
    inner = Agent(name="inner", model=inner_model, tools=[ask_human])
    model = turns([call("sub", "o", input="go")], "done")
    agent = Agent(name="a", model=model, tools=[inner.as_tool("sub", "")])
    async with running(database_url, agent) as engine:
        run = await rested(engine, "a")
        [one] = run.interruptions
        assert (one.question, one.agent) == ("Really?", "inner")
        await engine.decide(one.id, "answer", answer="Yes.")
        assert (await run.wait(SECONDS)).status == "completed"
    assert outputs_in(inner_model.inputs[-1]) == {"q": "Yes."}


def test_a_schema_has_to_be_one() -> None:
    with pytest.raises(ConfigurationError, match=r"The schema of ask_human is no JSON schema"):
        ask_human(schema={"type": "colour"})
    named = ask_human(name="ask_boss", description="Ask the boss.")
    assert (named.name, ask_human.name) == ("ask_boss", "ask_human")


async def test_outside_a_durable_run_nobody_is_asked() -> None:
    model = ScriptedModel([[call("ask_human", "q", question="?")], [assistant_message("done")]])
    result = await Runner.run(Agent(name="a", model=model, tools=[ask_human]), "hi")
    assert [one.tool_name for one in result.interruptions] == ["ask_human"]
