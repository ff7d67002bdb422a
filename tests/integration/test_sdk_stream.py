"""``run.stream()``: the SDK's own stream events, of a run that lasts."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Agent, ItemHelpers, Runner, function_tool
from agents.testing import assistant_message
from openai.types.responses import ResponseTextDeltaEvent

from perdure import Interrupted, effect
from perdure.runs.sdk_stream import RunStream
from tests.engine_support import SECONDS, call, replies_in, running
from tests.sdk_stream_support import StreamedModel, joined, seen, thought


@effect("read")
@function_tool
async def find(order: str) -> str:
    """Find an order."""
    return f"order {order}: 4900 cents"


@effect("read")
@function_tool
async def broken(order: str) -> str:
    """Fail."""
    raise ValueError("no such thing")


@function_tool(needs_approval=True)
async def refund(cents: int) -> str:
    """Pay."""
    return f"refunded {cents}"


def _streamed(*replies: Any) -> StreamedModel:
    def rule(items: list[Any]) -> list[Any]:
        reply = replies[min(replies_in(items), len(replies) - 1)]
        return [assistant_message(reply)] if isinstance(reply, str) else list(reply)

    return StreamedModel(rule)


def _shop() -> Agent[None]:
    model = _streamed(
        [thought("The order has to be found first."), call("find", "f1", order="7")],
        [call("broken", "b1", order="8"), call("find", "f2", order="9")],
        [assistant_message("One moment, please."), call("transfer_to_back", "h1")],
        "All is well with order 7, it will come.",
    )
    nested = Agent(name="helper", model=_streamed("nobody above hears this"))
    back = Agent(name="back", model=model, tools=[refund])
    return Agent(
        name="front",
        model=model,
        tools=[find, broken, nested.as_tool("ask_helper", "Ask.")],
        handoffs=[back],
    )


async def _all(stream: RunStream) -> list[tuple[int, tuple[str, ...]]]:
    async with asyncio.timeout(SECONDS), stream:
        return [(stream.last_event_id, seen(event)) async for event in stream]


def _without_done(events: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return joined(one for one in events if not one[0].endswith(".done"))


async def test_it_is_what_the_sdk_streams(database_url: str) -> None:
    shop = _shop()
    async with asyncio.timeout(SECONDS):
        result = Runner.run_streamed(shop, "hi")
        theirs = [seen(event) async for event in result.stream_events()]
    async with running(database_url, shop) as engine:
        run = await engine.start("front", "hi")
        ours = [one for _, one in await _all(run.stream())]
        assert run.status == "completed"
        assert run.output == result.final_output
        late = await _all(run.stream())

        # The same, in the same order; what says that a part is done comes when all are recorded.
        assert _without_done(ours) == _without_done(theirs)
        assert sorted(one for one in ours if one[0].endswith(".done")) == sorted(
            one for one in theirs if one[0].endswith(".done")
        )
        # A late reader is told no less, and nothing twice.
        assert _without_done([one for _, one in late]) == _without_done(theirs)

        # Whoever left with a number is told the rest: nothing is lost, and again comes what had
        # been given of an event that was not given whole.
        left = {number: place for place, (number, _) in enumerate(late)}
        for number, place in left.items():
            rest = await _all(run.stream(after=number))
            begins = len(late) - len(rest)
            assert [one for _, one in rest] == [one for _, one in late[begins:]]
            assert begins <= place + 1
            assert {again for again, _ in late[begins : place + 1]} <= {number}


async def test_people_are_waited_for(database_url: str) -> None:
    model = _streamed(
        [
            call("refund", "r1", cents=5),
            call("refund", "r2", cents=6),
            call("find", "f1", order="7"),
        ],
        "done",
    )
    agent = Agent(name="shop", model=model, tools=[refund, find])
    async with running(database_url, agent) as engine:
        run = await engine.start("shop", "hi")
        told: list[Any] = []
        text = ""
        async with asyncio.timeout(SECONDS), run.stream() as stream:
            async for event in stream:
                told.append(event)
                if event.type == "raw_response_event":
                    if isinstance(event.data, ResponseTextDeltaEvent):
                        text += event.data.delta
                elif isinstance(event, Interrupted):
                    for one in event.interruptions:
                        approve = one.tool["call_id"] == "r1"
                        await engine.decide(
                            one.id,
                            "approve" if approve else "reject",
                            digest=one.digest,
                            message=None if approve else "not this one",
                        )
        assert (text, run.output) == ("done", "done")
        outputs = [
            (one.item.raw_item["call_id"], one.item.output)
            for one in told
            if one.type == "run_item_stream_event" and one.name == "tool_output"
        ]
        assert sorted(outputs) == [
            ("f1", "order 7: 4900 cents"),
            ("r1", "refunded 5"),
            ("r2", "not this one"),
        ]
        [asked] = [one for one in told if isinstance(one, Interrupted)]
        assert [one.tool["name"] for one in asked.interruptions] == ["refund", "refund"]
        messages = [
            ItemHelpers.text_message_output(one.item)
            for one in told
            if one.type == "run_item_stream_event" and one.item.type == "message_output_item"
        ]
        assert messages == ["done"]
        # What is decided is not asked again.
        later = [one for _, one in await _all(run.stream())]
        assert "interrupted" not in {one[0] for one in later}
        assert len(later) == len(told) - 1
