"""Conversations replayed over HTTP by an engine with a worker, and shown beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from agents import Agent, Model, ModelProvider, RunContextWrapper, UserError, function_tool
from agents.testing import assistant_message

from perdure import Policy, effect
from perdure.access.principals import Principal, local_principal
from perdure.engine import Engine, Run
from perdure.errors import InvalidRequestError
from perdure.web.replay_answers import Replay, SessionDiff
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    call,
    error_of,
    query,
    replies_in,
    running,
)
from tests.integration.api.reading import read, refused

IMAGE = [
    {"type": "input_text", "text": "What is this?"},
    {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"},
]


def said(items: list[Any]) -> list[tuple[Any, Any]]:
    """Who said what, in an input or a session."""
    found = []
    for item in items:
        content = item.get("content")
        if isinstance(content, list) and all("text" in part for part in content):
            content = "".join(part["text"] for part in content)
        found.append((item.get("role") or item.get("type"), content))
    return found


class Models(ModelProvider):
    """Two models, which say their names and how many messages of users they have read."""

    def __init__(self) -> None:
        self.gates: dict[str, Gate] = {}
        self.fails = True
        self.models = {name: RuleModel(self._rule(name)) for name in ("one", "two")}

    def get_model(self, model_name: str | None) -> Model:
        try:
            return self.models[model_name or "one"]
        except KeyError:
            raise UserError(f"There is no model {model_name!r}.") from None

    def _rule(self, name: str) -> Any:
        async def reply(items: list[Any]) -> list[Any]:
            asked = [words for role, words in said(items) if role == "user"]
            last = str(asked[-1])
            if last in self.gates:
                await self.gates[last].stop()
            if last == "fail" and self.fails:
                raise ValueError("no")
            if last.startswith("refund") and items[-1].get("type") != "function_call_output":
                given = {"input": "refund"} if last.endswith("helper") else {"order": "42"}
                return [call(last, f"c{replies_in(items)}", **given)]
            return [assistant_message(f"{name} has read {len(asked)}")]

        return reply


async def _anybody(_: Any) -> Principal:
    return local_principal()


@asynccontextmanager
async def asking(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(engine.api(authenticate=_anybody))
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        yield client


async def make(client: httpx.AsyncClient, *items: Any, **fields: Any) -> str:
    made = (await client.post("/v1/sessions", json={"user_id": "bob", **fields})).json()
    url = f"/v1/sessions/{made['id']}"
    if items:
        (await client.post(f"{url}/items", json={"items": list(items)})).raise_for_status()
    return url


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def reply(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


async def replay(client: httpx.AsyncClient, url: str, **body: Any) -> tuple[str, list[Any]]:
    """Replay a session; returns the branch's address and the runs."""
    answer = await client.post(f"{url}/replay", json={"agent": "chat", **body})
    content = read(Replay, answer, 202)
    assert answer.headers["location"] == f"/v1/sessions/{content['session']['id']}"
    return answer.headers["location"], content["runs"]


async def ended(engine: Engine, runs: list[Any]) -> list[Run]:
    """The runs, each at its next rest."""
    return [await (await engine.get(run["id"])).wait(SECONDS) for run in runs]


async def items_of(client: httpx.AsyncClient, url: str) -> list[tuple[Any, Any]]:
    rows = (await client.get(f"{url}/items?limit=100")).json()["data"]
    return said([row["item"] for row in rows])


async def diff(client: httpx.AsyncClient, url: str, query: str = "") -> dict[str, Any]:
    return read(SessionDiff, await client.get(f"{url}/diff?{query}"))


async def test_a_conversation_said_again_under_another_prompt_and_model(
    database_url: str,
) -> None:
    models = Models()
    chat = Agent(name="chat", model="one")
    async with (
        running(database_url, chat, model_provider=models) as engine,
        asking(engine) as client,
    ):
        url = await make(client, user("before"), reply("yes"), system_prompt="Be kind.")
        for content in ("hello", [user("look:"), user(IMAGE)]):
            run = await engine.start("chat", content, session_id=url[13:], user_id="bob")
            await run.wait(SECONDS)
        before = await items_of(client, url)
        branch, runs = await replay(
            client, url, model="two", system_prompt="Be brief.", from_seq=2, title="Brief"
        )
        assert [run["replays_seq"] for run in runs] == [3, 5]
        assert [run["input"] for run in runs] == [[user("hello")], [user("look:"), user(IMAGE)]]
        for run in runs:
            assert (run["user_id"], run["model"], run["tools"]) == ("bob", "two", "ask")
            assert run["session_id"] == branch[13:]
        # What comes to the source after it was asked for is no part of it.
        await client.put(f"{url}/items", json={"items": [user("other")]})
        outputs = [run.output for run in await ended(engine, runs)]
        assert outputs == ["two has read 2", "two has read 4"]
        # The one that runs first reads what was said before the first message replayed.
        first, second = models.models["two"].inputs
        assert said(first) == [
            ("system", "Be brief."),
            ("user", "before"),
            ("assistant", "yes"),
            ("user", "hello"),
        ]
        assert second[-2:] == [user("look:"), user(IMAGE)]
        assert await items_of(client, branch) == [
            *before[:2],
            ("user", "hello"),
            ("assistant", "two has read 2"),
            *before[4:6],
            ("assistant", "two has read 4"),
        ]
        used = await query(
            engine, "SELECT DISTINCT model, run_id FROM perdure.model_responses ORDER BY run_id"
        )
        assert len(used) == 4
        shown = (await client.get(branch)).json()
        assert (shown["title"], shown["system_prompt"], shown["fork_seq"]) == (
            "Brief",
            "Be brief.",
            2,
        )

        # A branch is replayed with what it reads of its ancestors.
        leaf, runs = await replay(client, branch)
        assert [run["replays_seq"] for run in runs] == [1, 3, 5]
        await ended(engine, runs)
        found = await diff(client, leaf)
        assert (found["fork_seq"], found["base"]["id"]) == (0, branch[13:])
        assert [(turn["number"], turn["same"]) for turn in found["turns"]] == [
            (1, False),
            (2, False),
            (3, False),
        ]
        turn = found["turns"][1]
        assert turn["input"] == {"base": "hello", "session": "hello", "same": True}
        assert (turn["base"]["text"], turn["session"]["text"]) == (
            "two has read 2",
            "one has read 2",
        )
        assert turn["changes"] == [
            {"op": "replace", "base": "two", "session": "one"},
            {"op": "equal", "base": " has read 2", "session": " has read 2"},
        ]
        assert turn["session"]["run_id"] == runs[1]["id"]
        assert [one["role"] for one in turn["session"]["items"]] == ["user", "assistant"]
        # Beside the root, of which the source has taken all away, and turn by turn.
        found = await diff(client, leaf, f"with={url[13:]}&limit=1&after=1")
        [turn] = found["turns"]
        assert (turn["number"], turn["base"], found["has_more"]) == (2, None, True)


async def test_what_becomes_of_a_run_is_no_matter_to_the_next(database_url: str) -> None:
    models = Models()
    gate = models.gates["slow"] = Gate()
    chat = Agent(name="chat", model="one")
    async with (
        running(database_url, chat, model_provider=models) as engine,
        asking(engine) as client,
    ):
        texts = ("slow", "fail", "cancelled", "last")
        url = await make(client, *(one for text in texts for one in (user(text), reply(text))))
        both = await asyncio.gather(*(replay(client, url) for _ in range(2)))
        assert both[0][0] != both[1][0]
        branch, runs = both[0]
        # What waits has its place already.
        found = await diff(client, branch)
        assert [turn["input"]["same"] for turn in found["turns"]] == [True] * 4
        assert [turn["session"]["run_status"] for turn in found["turns"][1:]] == ["queued"] * 3
        await gate.reached()
        await engine.cancel(runs[2]["id"])
        gate.open()
        done = await ended(engine, runs)
        statuses = ["completed", "failed", "cancelled", "completed"]
        assert [run.status for run in done] == statuses
        assert done[-1].output == "one has read 3"
        found = await diff(client, branch)
        assert [turn["session"]["run_status"] for turn in found["turns"]] == statuses
        assert [turn["session"]["text"] for turn in found["turns"]] == [
            "one has read 1",
            None,
            None,
            "one has read 3",
        ]
        assert [turn["input"]["session"] for turn in found["turns"]] == list(texts)
        done = await ended(engine, both[1][1])
        assert [run.status for run in done] == ["completed", "failed", "completed", "completed"]
        # One that is resumed later says what it says in its own turn.
        models.fails = False
        answer = await client.post(f"/v1/runs/{runs[1]['id']}/resume")
        assert answer.status_code == 202
        await ended(engine, runs[1:2])
        found = await diff(client, branch)
        assert [turn["session"]["text"] for turn in found["turns"]][1:] == [
            "one has read 2",
            None,
            "one has read 3",
        ]
        # The one that failed said what it was asked: a replay of the replay asks that too.
        _, runs = await replay(client, branch)
        assert [run["input"][0]["content"] for run in runs] == ["slow", "fail", "last"]


@effect("read")
@function_tool
async def refund_status(order: str) -> str:
    return "none"


def _shop(models: Models, made: list[str]) -> Agent[Any]:
    @function_tool
    async def refund(order: str) -> str:
        made.append(order)
        return "refunded"

    @effect("idempotent")
    @function_tool
    async def refund_again(context: RunContextWrapper[Any], order: str) -> str:
        made.append(f"{order} again")
        return "refunded"

    helper = Agent(name="helper", instructions="refund", model="one", tools=[refund])
    nested = helper.as_tool("refund_by_helper", "Asks the helper.", max_turns=3)
    return Agent(name="chat", model="one", tools=[refund, refund_again, refund_status, nested])


async def test_a_person_is_asked_before_a_replayed_run_changes_anything(
    database_url: str,
) -> None:
    made: list[str] = []
    models = Models()
    allow = Policy("all", tool="refund*", then="allow")
    async with (
        running(
            database_url, _shop(models, made), model_provider=models, policies=[allow]
        ) as engine,
        asking(engine) as client,
    ):
        url = await make(client)
        texts = ("refund_status", "refund", "refund_again")
        for text in texts:
            run = await engine.start("chat", text, session_id=url[13:])
            assert (await run.wait(SECONDS)).status == "completed"
        assert made == ["42", "42 again"]

        branch, runs = await replay(client, url, model="two")
        first, second = await ended(engine, runs[:2])
        assert (first.status, second.status) == ("completed", "interrupted")
        [asked] = second.interruptions
        assert (asked.tool["name"], asked.policy["name"]) == ("refund", "replay")
        third = await engine.get(runs[2]["id"])
        assert third.status == "queued"
        assert made == ["42", "42 again"]
        # Remembered for all of the user's runs, it still is no answer to what a replay asks.
        remember = {"scope": "agent", "until": 3600}
        await engine.decide(asked.id, "approve", digest=asked.digest, remember=remember)
        assert (await second.wait(SECONDS)).output == "two has read 2"
        [asked] = (await third.wait(SECONDS)).interruptions
        await engine.decide(asked.id, "reject", message="Not again.")
        assert (await third.wait(SECONDS)).output == "two has read 3"
        assert made == ["42", "42 again", "42"]
        assert models.models["one"].asked == 6
        found = await diff(client, branch)
        assert [turn["session"]["text"] for turn in found["turns"]] == [
            f"two has read {n}" for n in (1, 2, 3)
        ]

        _, runs = await replay(client, url, from_seq=5, to_seq=5)
        [run] = await ended(engine, runs)
        assert [one.tool["name"] for one in run.interruptions] == ["refund"]
        _, runs = await replay(client, url, tools="run", from_seq=5)
        assert [run.status for run in await ended(engine, runs)] == ["completed"] * 2
        assert made == ["42", "42 again", "42", "42", "42 again"]

        # Also of an agent used as a tool, whose own calls are asked about.
        nested = await make(client, user("refund_by_helper"))
        _, runs = await replay(client, nested)
        [run] = await ended(engine, runs)
        assert [one.tool["name"] for one in run.interruptions] == ["refund"]


async def test_a_model_of_a_run(database_url: str) -> None:
    models = Models()
    chat = Agent(name="chat", model="one")
    async with (
        running(database_url, chat, model_provider=models) as engine,
        asking(engine) as client,
    ):
        for name, text in (("one", "one"), ("two", "two"), (None, "one")):
            body = {"agent": "chat", "input": "hi", "model": name}
            started = (await client.post("/v1/runs", json=body)).json()
            [run] = await ended(engine, [started])
            assert (run.output, run.data["model"]) == (f"{text} has read 1", name)
        problem = refused(
            await client.post("/v1/runs", json={"agent": "chat", "input": "hi", "model": "three"}),
            422,
            "validation_error",
        )
        assert "three" in problem["errors"][0]["detail"]
        with pytest.raises(InvalidRequestError, match="three"):
            await engine.start("chat", "hi", model="three")
        # Known where it was started, and no more where it runs.
        gate = models.gates["slow"] = Gate()
        slow = await engine.start("chat", "slow", session_key="c")
        await gate.reached()
        run = await engine.start("chat", "hi", model="two", session_key="c")
        del models.models["two"]
        gate.open()
        await slow.wait(SECONDS)
        await run.wait(SECONDS)
        error = error_of(run)
        assert error["type"] == "programming_error"
        assert error["message"].startswith("UserError: There is no model 'two'.")
