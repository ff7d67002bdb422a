"""The applications on the pages of docs/patterns do what those pages say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from agents import Model, ModelProvider

from perdure import Engine, Run
from perdure.access.keys import create_key
from perdure.cli.serving import address_of, bind
from perdure.errors import AlreadyDecidedError, ForbiddenError
from perdure.runs.durable_model import DurableModelProvider
from perdure.runs.overdue import expire_due, remind_due
from tests.docs_support import DOCS, blocks
from tests.engine_support import SECONDS, call, outputs_in, query, turns


def application(page: str) -> dict[str, Any]:
    """The names that the page's Python defines."""
    [block] = blocks("python", pages=[DOCS / "patterns" / page])
    names: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), names)  # noqa: S102 - our own documentation
    return names


def with_model(engine: Engine, *replies: Any) -> Any:
    """Give the agents of an application a model of the test's."""
    model = turns(*replies)
    engine.registry.sdk_config.model_provider = DurableModelProvider(_One(model))
    return model


class _One(ModelProvider):
    def __init__(self, model: Model) -> None:
        self._model = model

    def get_model(self, model_name: str | None) -> Model:
        return self._model


async def started(engine: Engine, agent: str, **options: Any) -> Run:
    """Start a run and return it at its first rest."""
    return await (await engine.start(agent, "go", **options)).wait(SECONDS)


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[str]:
    """The engine's API on a port of its own, inside the block; gives its address."""
    config = uvicorn.Config(engine.api(), lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with bind("127.0.0.1", 0) as listening:
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield address_of(listening)
        finally:
            server.should_exit = True
            await task


async def test_two_people(database_url: str) -> None:
    engine: Engine = application("two-people.md")["engine"]
    asked = call("pay_out", "c1", account="A", cents=250000)
    model = with_model(engine, [asked], "done")
    async with engine.running(url=database_url):
        run = await started(engine, "treasurer", by="ann")
        [one] = run.interruptions
        assert (one.required, one.policy["name"]) == (2, "two people")

        async def approve(who: str, digest: str = one.digest, **more: Any) -> dict[str, Any]:
            return await engine.decide(
                one.id, "approve", digest=digest, by=who, groups=["finance"], **more
            )

        with pytest.raises(ForbiddenError, match="may not decide"):
            await approve("ann")
        with pytest.raises(ForbiddenError, match="the group finance"):
            await engine.decide(one.id, "approve", digest=one.digest, by="eve")
        first = await approve("ben")
        assert (first["status"], len(first["decisions"])) == ("pending", 1)
        with pytest.raises(AlreadyDecidedError):
            await approve("ben")
        # Smaller than where the policy starts: it takes two all the same, and of this very call.
        edited = await approve("cid", arguments={"account": "A", "cents": 5})
        assert edited["status"] == "pending"
        assert edited["digest"] != one.digest
        closed = await approve("ben", digest=edited["digest"])
        assert closed["status"] == "approved"
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
    assert outputs_in(model.inputs[-1])["c1"].startswith("sent 5 cents to A")


async def test_escalation(database_url: str) -> None:
    engine: Engine = application("escalation.md")["engine"]
    model = with_model(engine, [call("restart", "c1", service="db")], "done")
    async with engine.running(url=database_url):
        run = await started(engine, "operator")
        [one] = run.interruptions

        async def later(minutes: int) -> dict[str, Any]:
            """Do what is due so much later; returns what has become of the question."""
            await query(
                engine,
                "UPDATE perdure.interruptions SET expires_at = expires_at - %s * interval '1 min',"
                " remind_at = remind_at - %s * interval '1 min'",
                *(minutes, minutes),
            )
            # A worker may be doing it as well: each thing is done once.
            await remind_due(engine.pool)
            await expire_due(engine.pool)
            [row] = await query(
                engine, "SELECT reminded, escalated, status FROM perdure.interruptions"
            )
            return row

        assert await later(6) == {"reminded": 1, "escalated": 0, "status": "pending"}
        assert (await later(10))["escalated"] == 1
        with pytest.raises(ForbiddenError, match="the group heads"):
            await engine.decide(one.id, "reject", by="ann", groups=["on-call"])
        assert (await later(16))["status"] == "expired"
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
    assert outputs_in(model.inputs[-1]) == {"c1": "Nobody decided in time."}


async def test_edit_before_approve(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    approve = application("edit-before-approve.md")["approve"]
    engine: Engine = application("two-people.md")["engine"]
    with_model(engine, [call("pay_out", "c1", account="A", cents=12900)], "done")
    async with engine.running(url=database_url):
        run = await started(engine, "treasurer")
        async with engine.pool.connection() as conn:
            key = await create_key(conn, subject="ann", groups=["finance"])
        [one] = run.interruptions
        async with serving(engine) as address:
            headers = {"Authorization": f"Bearer {key.secret}"}
            with httpx.Client(base_url=address, headers=headers) as api:
                with pytest.raises(httpx.HTTPStatusError):
                    await asyncio.to_thread(approve, api, one.id, {"cents": "some"})
                said = capsys.readouterr().out
                assert said == "/arguments/cents: 'some' is not of type 'integer'\n"
                decided = await asyncio.to_thread(approve, api, one.id, {"cents": 2900})
    assert decided["tool"]["arguments"] == {"account": "A", "cents": 2900}
    assert decided["tool"]["original_arguments"]["cents"] == 12900
