"""``run.stream()``: the SDK's own stream events, of a run that lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, ItemHelpers, Runner, function_tool
from agents.testing import assistant_message
from openai.types.responses import ResponseTextDeltaEvent

from perdure import Engine, Interrupted, Superseded, effect
from perdure.runs.asking import StreamCut
from perdure.runs.sdk_streaming.stream import RunStream
from tests.docs_support import DOCS, blocks
from tests.engine_support import (
    SECONDS,
    Gate,
    call,
    other_worker,
    query,
    quick_retries,
    replies_in,
    running,
)
from tests.sdk_stream_support import StreamedModel, joined, seen, thought
from tests.streaming_support import StreamingModel


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


def _in_order(events: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """What comes in the SDK's order: not what is done, nor what tools gave, which come apart."""
    return joined(one for one in events if not _comes_apart(one))


def _apart(events: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return sorted(filter(_comes_apart, events))


def _comes_apart(event: tuple[str, ...]) -> bool:
    return event[0].endswith(".done") or event[0] == "tool_output"


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

        # The same in the same order, live and late; what is done is told when it is recorded.
        for told in (ours, [one for _, one in late]):
            assert _in_order(told) == _in_order(theirs)
            assert _apart(told) == _apart(theirs)

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


async def test_what_dies_is_void_and_what_is_recorded_comes_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Gate()
    told: list[Any] = []
    more = asyncio.Event()

    async def heard(text: str) -> None:
        while text not in _text(told):
            more.clear()
            await more.wait()

    model = StreamingModel(
        [("call", "find", "f1", '{"order": "7"}')],
        ["All ", "is ", "well."],
        before=[
            [("call", "find", "f1", '{"order": "7"}')],
            ["Lost ", "with ", stuck.stop],
            ["Cut ", "off ", lambda: heard("Cut off "), StreamCut("gone")],
        ],
    )
    agent = Agent(name="a", model=model, tools=[find])
    with quick_retries(monkeypatch):
        async with running(database_url, agent) as engine, asyncio.timeout(SECONDS):
            run = await engine.start("a", "hi")

            async def read() -> None:
                async for event in run.stream():
                    told.append(event)
                    more.set()

            reading = asyncio.create_task(read())
            await heard("Lost with ")
            async with other_worker(engine, database_url) as other:
                assert await other.run(UUID(run.id), 1) == "completed"
            stuck.open()
            await reading
            late = [event async for event in run.stream()]
    assert (run.status, run.output) == ("completed", "All is well.")
    assert [one.reason for one in told if isinstance(one, Superseded)] == ["death", "retry"]
    *void, whole = _parts(told)
    assert void == ["Lost with ", "Cut off "]
    assert whole == run.output
    names = [one.name for one in told if one.type == "run_item_stream_event"]
    assert names == ["tool_called", "tool_output", "message_output_created"]
    assert joined(map(seen, late)) == joined(map(seen, told))


def _text(told: list[Any]) -> str:
    return "".join(_parts(told))


def _parts(told: list[Any]) -> list[str]:
    """The text streamed, as far as the next Superseded each."""
    parts = [""]
    for one in told:
        if isinstance(one, Superseded):
            parts.append("")
        elif one.type == "raw_response_event" and isinstance(one.data, ResponseTextDeltaEvent):
            parts[-1] += one.data.delta
    return parts


async def test_what_the_docs_port_does_the_same(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = blocks("python", pages=[DOCS / "streaming.md"])
    before, after = (
        _defined(block.text)["answer"] for block in page if "def answer(" in block.text
    )
    shop = _shop()
    shop.name = "support"
    capsys.readouterr()
    async with asyncio.timeout(SECONDS):
        output = await before(shop, "hi")
        wanted = capsys.readouterr().out
        async with running(database_url, shop) as engine:
            assert await after(engine, "hi") == output
            said = capsys.readouterr().out
            [relay] = (block.text for block in page if "def relay(" in block.text)
            [run] = await query(engine, "SELECT id::text FROM perdure.runs")
            told = [one async for one in _defined(relay)["relay"](engine, run["id"], 0)]
    # The outputs of two tools at once come in the order in which they ended.
    assert sorted(said.splitlines()) == sorted(wanted.splitlines())
    assert "[a tool gave order 9: 4900 cents]" in said
    assert [number for number, _ in told] == sorted(number for number, _ in told)


def _defined(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"Engine": Engine, "AsyncIterator": AsyncIterator}
    exec(source, names)  # noqa: S102 - our own documentation
    return names
