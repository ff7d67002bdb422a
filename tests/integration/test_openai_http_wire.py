"""The loopback server speaks as the API does, by the word of OpenAI's own client and types."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.loopback.replies import Asked, call, in_turn, reasoning, text
from tests.loopback.server import KEY, Loopback, loopback
from tests.loopback.troubles import Cut, Refused
from tests.loopback.wire import Reply, Tokens

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ITEMS = [
    reasoning("The customer wants thé vert.", "sealed"),
    text("Grüße, I will look 一二三."),
    call("look", "call_1", words="ein Stück Würfelzucker"),
    call("look", "call_2", words=""),
]
REQUEST: dict[str, Any] = {"model": "gpt-5.6-luna", "input": "hi"}


def client(server: Loopback) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.url, api_key=KEY, max_retries=0)


def test_every_event_is_one_of_the_apis_types() -> None:
    reply = Reply("resp_1", Asked(REQUEST | {"stream": True}), ITEMS, Tokens(10, 3, 5, 2))
    events = []
    for sent in [*reply.stream(), reply.failed("server_error", "sorry"), reply.cut_off("max")]:
        name, data, *end = sent.decode().split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert end == ["", ""]
        if event["type"] != "response.incomplete":
            EVENT.validate_python(event)
        events.append(event)
    assert [event["sequence_number"] for event in events[:-2]] == list(range(len(events) - 2))
    Response.model_validate(reply.whole())


async def test_openais_client_puts_the_stream_together() -> None:
    async with loopback(lambda _: ITEMS) as server, client(server) as openai_client:
        async with openai_client.responses.stream(**REQUEST) as stream:
            kinds = [event.type async for event in stream]
            response = await stream.get_final_response()
        whole = await openai_client.responses.create(**REQUEST)
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-1] == "response.completed"
    assert response.output_text == whole.output_text == "Grüße, I will look 一二三."
    for given in (response, whole):
        dumped = [item.to_dict() for item in given.output]
        for item in dumped:
            item.pop("parsed_arguments", None)
        assert [item["id"] for item in dumped] == [item["id"] for item in ITEMS]
        assert dumped[3]["arguments"] == '{"words":""}'
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (1001, 51)
    assert server.connections == 1


async def test_openais_client_puts_the_chat_together() -> None:
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with loopback(lambda _: ITEMS) as server, client(server) as openai_client:
        chat = openai_client.chat.completions
        async with chat.stream(**asked, stream_options={"include_usage": True}) as stream:
            streamed = await stream.get_final_completion()
        whole = await chat.create(**asked)
    for given in (streamed, whole):
        message = given.choices[0].message
        assert message.content == "Grüße, I will look 一二三."
        assert message.tool_calls is not None
        assert [one.id for one in message.tool_calls] == ["call_1", "call_2"]
        assert given.choices[0].finish_reason == "tool_calls"
        assert given.usage is not None
        assert given.usage.prompt_tokens_details is not None
    assert server.requests[0].asked.question == "hi"


async def test_trouble_is_what_it_says() -> None:
    async with loopback(in_turn("hello")) as server, client(server) as openai_client:
        server.trouble(Refused(429, None, "slow down", headers={"retry-after": "7"}))
        with pytest.raises(openai.RateLimitError, match="slow down") as refused:
            await openai_client.responses.create(**REQUEST)
        assert refused.value.response.headers["retry-after"] == "7"
        server.trouble(Cut(5), Cut(5, "closed"))
        for _ in range(2):
            stream = await openai_client.responses.create(**REQUEST, stream=True)
            with pytest.raises(openai.APIConnectionError):
                async for _event in stream:
                    pass
        server.trouble(Cut(5, "ended"))
        stream = await openai_client.responses.create(**REQUEST, stream=True)
        kinds = [event.type async for event in stream]
        assert len(kinds) == 5
        assert server.answered == []
    assert [request.connection for request in server.requests] == [1, 1, 2, 3]


async def test_a_wrong_key_is_refused() -> None:
    async with loopback(in_turn("hello")) as server, client(server) as openai_client:
        with pytest.raises(openai.AuthenticationError):
            await openai_client.with_options(api_key="wrong").responses.create(**REQUEST)
    assert server.requests == []
