"""The models of the examples: deterministic, stateless, and streaming as a service would."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, ModelResponse, ModelSettings, ModelTracing, Runner, function_tool
from openai.types.responses import ResponseCompletedEvent, ResponseTextDeltaEvent
from pydantic import TypeAdapter

from perdure import offline
from perdure.offline import refunds, research
from perdure.offline.model import OfflineModel, OfflineProvider
from perdure.offline.turn import Answer, Call, Turn


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def about_weather(turn: Turn) -> Answer:
    given = turn.outputs("weather")
    if not given:
        return [Call("weather", {"city": city}) for city in turn.question.split()]
    return " and ".join(given)


ASKED: tuple[Any, ...] = (None, ModelSettings(), [weather], None, [], ModelTracing.DISABLED)


async def reply(model: OfflineModel, given: Any, instructions: str = "") -> ModelResponse:
    return await model.get_response(instructions, given, *ASKED[1:])


async def events(model: OfflineModel, given: Any) -> list[Any]:
    return [event async for event in model.stream_response("", given, *ASKED[1:])]


async def test_the_same_question_has_the_same_answer_and_another_another() -> None:
    one, two = OfflineModel(about_weather), OfflineModel(about_weather)
    first = await reply(one, "Oslo")

    assert await reply(two, "Oslo") == first
    assert await reply(one, [{"role": "user", "content": "Oslo"}]) == first
    other = await reply(one, "Rome")
    assert other.response_id != first.response_id
    assert other.output[0].call_id != first.output[0].call_id  # type: ignore[union-attr]
    assert (await reply(one, "Oslo", "Be kind.")).response_id != first.response_id


async def test_a_stream_ends_with_the_whole_reply() -> None:
    model = OfflineModel(about_weather)
    seen = await events(model, "Oslo Rome")
    whole = await reply(model, "Oslo Rome")

    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    last = seen[-1]
    assert isinstance(last, ResponseCompletedEvent)
    assert last.response.output == whole.output
    assert last.response.id == whole.response_id
    assert last.response.usage is not None
    assert last.response.usage.total_tokens == whole.usage.total_tokens > 0
    for event in seen:
        # As it would come over a wire.
        again = TypeAdapter(type(event)).validate_json(event.model_dump_json())
        assert again.model_dump() == event.model_dump()


async def test_text_comes_word_by_word() -> None:
    seen = await events(OfflineModel(lambda _: "one two  three\nfour"), "hi")

    deltas = [event.delta for event in seen if isinstance(event, ResponseTextDeltaEvent)]
    assert deltas == ["one ", "two  ", "three\n", "four"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_it_drives_the_sdks_runner(streamed: bool) -> None:
    agent = Agent(name="a", tools=[weather], model=OfflineModel(about_weather))
    if streamed:
        result: Any = Runner.run_streamed(agent, "Oslo Rome")
        async for _ in result.stream_events():
            pass
    else:
        result = await Runner.run(agent, "Oslo Rome")

    assert result.final_output == "sunny in Oslo and sunny in Rome"
    assert result.context_wrapper.usage.requests == 2
    assert result.context_wrapper.usage.total_tokens > 0


async def test_a_provider_tells_who_wants_to_know_before_it_replies() -> None:
    told: list[str] = []

    def rules(turn: Turn) -> Answer:
        told.append("replied")
        return "ok"

    provider = OfflineProvider(rules)
    provider.on_ask = lambda: told.append("asked")
    await reply(provider.get_model("any"), "hi")

    assert told == ["asked", "replied"]


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OPENAI_BASE_URL"])
def test_with_a_key_or_an_address_the_real_model_is_asked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    # It gives the SDK a key of no meaning, for the whole process: taken back after this test.
    monkeypatch.setattr("agents.models._openai_shared._default_openai_key", None)
    assert isinstance(offline.unless_key("refunds"), OfflineProvider)
    monkeypatch.setenv(name, "something")
    assert offline.unless_key("refunds") is None


def asked(*items: Any, tools: set[str]) -> Turn:
    return Turn("", items, frozenset(tools))


USER = {"role": "user", "content": [{"type": "input_text", "text": "Refund order 1042"}]}


def called(tool: str, output: str) -> list[dict[str, str]]:
    return [
        {"type": "function_call", "name": tool, "call_id": tool, "arguments": "{}"},
        {"type": "function_call_output", "call_id": tool, "output": output},
    ]


REFUNDS = {"lookup_order", "refund", "transfer_to_triage"}
ORDER = '{"id": "1042", "cents": 12900}'


@pytest.mark.parametrize(
    ("items", "tools", "answer"),
    [
        ([USER], {"transfer_to_refunds"}, [Call("transfer_to_refunds")]),
        ([USER], REFUNDS, [Call("lookup_order", {"order_id": "1042"})]),
        (
            [USER, *called("lookup_order", ORDER)],
            REFUNDS,
            [Call("refund", {"order_id": "1042", "cents": 12900})],
        ),
        (
            [USER, *called("lookup_order", "There is no order 1042.")],
            REFUNDS,
            [Call("transfer_to_triage")],
        ),
        (
            [USER, *called("lookup_order", ORDER), *called("refund", "refunded 129")],
            REFUNDS,
            [Call("transfer_to_triage")],
        ),
    ],
)
def test_the_refund_rules(items: list[Any], tools: set[str], answer: Answer) -> None:
    assert refunds.answer(asked(*items, tools=tools)) == answer


def test_what_came_before_the_last_question_does_not_count() -> None:
    before = [USER, *called("lookup_order", ORDER), *called("refund", "refunded 129")]
    again = {"role": "user", "content": "And order 1041 is broken too"}

    assert refunds.answer(asked(*before, again, tools={"transfer_to_refunds"})) == [
        Call("transfer_to_refunds")
    ]


def test_the_research_rules_search_all_topics_at_once() -> None:
    turn = asked({"role": "user", "content": "What about bees and tea?"}, tools={"search"})

    assert research.answer(turn) == [
        Call("search", {"topic": "bees"}),
        Call("search", {"topic": "tea"}),
    ]
