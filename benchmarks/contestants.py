"""Who is measured. Each lives in a process of its own, runs the same agent, and is asked the same.

A contestant is entered once (``async with``). ``run`` does one run and returns its final output;
``start`` and ``wait`` are the same in two parts, for runs that outlive the process they began in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

from agents import RunConfig, Runner

from benchmarks import workload

if TYPE_CHECKING:
    from perdure.engine import Run

_UNTRACED = RunConfig(tracing_disabled=True)


@dataclass(frozen=True)
class Setting:
    """What a contestant is told at its start.

    ``url`` is its database. ``stop_at`` is a turn (from 1) its model never answers: ``reached``
    is called when it is asked for. ``gated`` puts a person before each tool call, and the tool
    answers with the moment it ran.
    """

    url: str
    stop_at: int | None = None
    gated: bool = False
    concurrency: int = 64
    reached: Callable[[], None] = field(default=lambda: None)

    @property
    def before(self) -> Callable[[int], Awaitable[None]] | None:
        """What the model awaits before it answers."""
        return None if self.stop_at is None else workload.stop_at(self.stop_at, self.reached)


class Contestant(Protocol):
    """A way to run an agent."""

    def __init__(self, setting: Setting) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def run(self, turns: int, tool_bytes: int) -> str:
        """Run the agent for ``turns`` turns and return its final output."""
        ...

    async def start(self, turns: int, tool_bytes: int) -> str:
        """Begin a run and return its id."""
        ...

    async def wait(self, run_id: str) -> str:
        """Wait for a run's end, whichever process began it, and return its final output."""
        ...


class Bare:
    """``Runner.run``: the SDK alone, which remembers nothing."""

    def __init__(self, setting: Setting) -> None:
        self._agent = workload.agent(before=setting.before)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def run(self, turns: int, tool_bytes: int) -> str:
        result = await Runner.run(
            self._agent,
            workload.prompt(turns, tool_bytes),
            max_turns=turns + 1,
            run_config=_UNTRACED,
        )
        return str(result.final_output)

    async def start(self, turns: int, tool_bytes: int) -> str:
        raise NotImplementedError("A bare run ends with its process.")

    async def wait(self, run_id: str) -> str:
        raise NotImplementedError("A bare run ends with its process.")


class Streamed(Bare):
    """``Runner.run_streamed``: the SDK alone, with the stopping points a checkpoint needs."""

    async def run(self, turns: int, tool_bytes: int) -> str:
        result = Runner.run_streamed(
            self._agent,
            workload.prompt(turns, tool_bytes),
            max_turns=turns + 1,
            run_config=_UNTRACED,
        )
        async for _ in result.stream_events():
            pass
        return str(result.final_output)


class Perdure:
    """The engine with its worker in one process, as in a program of one's own."""

    def __init__(self, setting: Setting) -> None:
        from perdure import Engine

        body = workload.moment if setting.gated else workload.look_up
        tool = workload.tool(body, gated=setting.gated)
        self._url = setting.url
        self._engine = Engine(
            agents=[workload.agent(tool, setting.before), workload.talker()],
            run_config=_UNTRACED,
            database_url=setting.url,
            concurrency=setting.concurrency,
        )

    async def __aenter__(self) -> Self:
        await self._engine.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._engine.__aexit__(*exc)

    async def run(self, turns: int, tool_bytes: int) -> str:
        return _output(await (await self._start(turns, tool_bytes)).wait())

    async def start(self, turns: int, tool_bytes: int) -> str:
        return (await self._start(turns, tool_bytes)).id

    async def wait(self, run_id: str) -> str:
        return _output(await (await self._engine.get(run_id)).wait())

    async def start_many(self, request: dict[str, Any]) -> list[str]:
        """Begin ``count`` runs of an agent on an input, or of so many turns; return their ids."""
        input = request.get("input") or workload.prompt(request["turns"], request["bytes"])
        started = [
            await self._engine.start(
                request.get("agent", workload.AGENT),
                input,
                max_turns=request.get("turns", 0) + 1,
                delay_seconds=request.get("delay"),
            )
            for _ in range(request["count"])
        ]
        return [run.id for run in started]

    async def _start(self, turns: int, tool_bytes: int) -> Run:
        return await self._engine.start(
            workload.AGENT, workload.prompt(turns, tool_bytes), max_turns=turns + 1
        )


def _output(run: Run) -> str:
    return str(run.output) if run.status == "completed" else f"{run.status}: {run.error}"


class DbosAgents:
    """dbos-openai-agents as its documentation shows it: the run a workflow, each call a step."""

    def __init__(self, setting: Setting) -> None:
        from dbos import DBOS

        self._url = setting.url
        self._tool = workload.tool(DBOS.step()(workload.look_up))
        self._before = setting.before
        self._done: dict[str, asyncio.Future[str]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        from dbos import DBOS

        # By name, as only the benchmarks' extra brings it.
        runner = import_module("dbos_openai_agents").DBOSRunner

        agent = workload.agent(self._tool, self._before)
        loop = asyncio.get_running_loop()

        @DBOS.workflow()
        async def run_agent(turns: int, tool_bytes: int) -> str:
            result = await runner.run(
                agent,
                workload.prompt(turns, tool_bytes),
                max_turns=turns + 1,
                run_config=_UNTRACED,
            )
            output = str(result.final_output)
            run_id = DBOS.workflow_id
            if run_id is not None:
                loop.call_soon_threadsafe(self._ended, run_id, output)
            return output

        self._workflow = run_agent
        # A process that is to go on with another's runs has to have its name and version.
        DBOS(
            config={
                "name": "benchmark",
                "system_database_url": self._url,
                "executor_id": "benchmark",
                "application_version": "benchmark",
                "log_level": "ERROR",
            }
        )
        DBOS.launch()
        return self

    async def __aexit__(self, *exc: object) -> None:
        from dbos import DBOS

        await asyncio.to_thread(DBOS.destroy)

    async def run(self, turns: int, tool_bytes: int) -> str:
        return await self._workflow(turns, tool_bytes)

    async def start(self, turns: int, tool_bytes: int) -> str:
        from dbos import DBOS

        handle = await DBOS.start_workflow_async(self._workflow, turns, tool_bytes)
        return str(handle.workflow_id)

    async def wait(self, run_id: str) -> str:
        # Not by its handle, which looks once a second: the end is seen as the body returns.
        return await self._end_of(run_id)

    def _end_of(self, run_id: str) -> asyncio.Future[str]:
        loop = asyncio.get_running_loop()
        return self._done.setdefault(run_id, loop.create_future())

    def _ended(self, run_id: str, output: str) -> None:
        future = self._end_of(run_id)
        if not future.done():
            future.set_result(output)


CONTESTANTS: dict[str, type[Contestant]] = {
    "bare": Bare,
    "streamed": Streamed,
    "perdure": Perdure,
    "dbos": DbosAgents,
}
"""By name; each is entered in a process of its own, as DBOS is one to a process."""

SHOWN = {
    "bare": "Runner.run",
    "streamed": "Runner.run_streamed",
    "perdure": "Perdure",
    "dbos": "dbos-openai-agents",
}
"""What a contestant is called in a table."""

__all__ = ["CONTESTANTS", "SHOWN", "Contestant", "Setting"]
