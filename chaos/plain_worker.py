"""A worker of plain DBOS: the same script, each model call and tool a step of one workflow.

Written as the documentation of DBOS tells: what is asked of models and tools is a step, what is
written to the database a transaction of a datasource, what runs beside other things a child
workflow, a person's answer a message. A worker that died is started again with its executor id,
and goes on with what that id left behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, AsyncSQLAlchemyDatasource, DBOSConfig

from chaos import script
from chaos.script import Call
from chaos.world import World, enter

QUEUE = "chaos"
WORKFLOW = "run_agent"
VERSION = "chaos"
APPROVALS = "approvals"
_BOOK = sa.text("INSERT INTO chaos.bookings (order_id, call_id) VALUES (:order, :call)")


def warm_up() -> None:
    """Load nothing more: importing this module has loaded it all."""


def main(order: dict[str, Any]) -> None:
    """Be a worker until killed."""
    logging.basicConfig(format="%(asctime)s %(process)d %(name)s %(message)s")
    enter(order["log"], order["seed"])
    asyncio.run(_work(World(), order["url"], f"worker-{order['slot']}"))


class Steps:
    """What a run does outside of itself, registered with DBOS as steps."""

    def __init__(self, world: World, source: AsyncSQLAlchemyDatasource) -> None:
        @DBOS.step(name="ask")
        async def ask(agent: str, order: str, outputs: dict[str, str]) -> dict[str, Any]:
            said = await world.ask(agent, order, outputs)
            return {"calls": [(call.tool, call.id) for call in said.calls], "text": said.text}

        @DBOS.step(name="act")
        async def act(tool: str, call_id: str, order: str, key: str) -> str:
            return await world.act(Call(tool, call_id), order, key=key, attempt=1)

        @source.transaction(name="book")
        async def book(call_id: str, order: str, key: str) -> str:
            await source.sql_session().execute(_BOOK, {"order": order, "call": call_id})
            return await world.act(Call("book", call_id), order, key=key, attempt=1)

        self.ask = ask
        self._act = act
        self._book = book

    async def perform(self, call: Call, order: str) -> str:
        """Perform a call, with a key that is the same each time, as the workflow's id is."""
        key = f"{DBOS.workflow_id}:{call.id}"
        if call.effect == "transactional":
            return await self._book(call.id, order, key)
        return await self._act(call.tool, call.id, order, key)


def register(world: World, steps: Steps) -> None:
    """Register the workflow a run is."""

    @DBOS.workflow(name=WORKFLOW)
    async def run_agent(agent: str, order: str) -> str:
        if agent == script.FIRST:
            world.note("began", order=order)
        outputs: dict[str, str] = {}
        while True:
            said = await steps.ask(agent, order, outputs)
            if not said["calls"]:
                return str(said["text"])
            calls = [Call(tool, id) for tool, id in said["calls"]]
            if any(call.tool in script.GATED for call in calls):
                world.note("waiting", order=order)
                await DBOS.recv_async(APPROVALS, timeout_seconds=3600)
            under_way: dict[str, Awaitable[str]] = {}
            for call in calls:
                if call.effect == "handoff":
                    agent, outputs[call.id] = "desk", "handed off"
                elif call.effect == "nested":
                    child = await DBOS.start_workflow_async(run_agent, "researcher", order)
                    under_way[call.id] = child.get_result()
                else:
                    under_way[call.id] = steps.perform(call, order)
            returned = await asyncio.gather(*under_way.values())
            outputs.update(zip(under_way, returned, strict=True))


async def _work(world: World, url: str, executor_id: str) -> None:
    source = await AsyncSQLAlchemyDatasource.create(url)
    register(world, Steps(world, source))
    config: DBOSConfig = {
        "name": "chaos",
        "system_database_url": url,
        "application_version": VERSION,
        "executor_id": executor_id,
        "run_migrations": False,
    }
    DBOS(config=config)
    DBOS.launch()
    await DBOS.register_queue_async(QUEUE)
    await asyncio.get_running_loop().create_future()
