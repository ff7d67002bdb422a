"""What holds an execution back until its writes have committed."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from perdure.errors import Fenced
from perdure.ledger.effects import Effect
from perdure.ledger.journal import Journal
from perdure.runs.execution import Execution

RUN = UUID(int=1)


async def test_a_write_refused_in_this_very_turn_of_the_loop_stops_what_comes_next() -> None:
    """A zombie's reply is refused while a task that is to begin its effects is about to go on."""
    nothing: Any = None
    execution = Execution(
        run_id=RUN,
        tenant_id=RUN,
        segment=1,
        epoch=1,
        writer=nothing,
        pool=nothing,
        default_effect=Effect.AT_MOST_ONCE,
        journal=Journal(),
    )
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def writing() -> None:
        await refused

    execution.write_beside(writing())
    write = execution._awaited
    assert write is not None
    heard: list[bool] = []
    went_on: list[bool] = []
    going_on = execution.committed()

    def before_the_callbacks(_: object) -> None:
        # The write is done, and nobody has been told: the effect's task takes its turn now.
        heard.append(execution.stopped.done())
        try:
            going_on.send(None)
        except StopIteration:
            went_on.append(True)

    # Behind the task's end and before what it calls back.
    execution._noted(write).remove_done_callback(execution._written)
    write.add_done_callback(before_the_callbacks)
    write.add_done_callback(execution._written)
    refused.set_exception(Fenced(RUN, epoch=1))
    await asyncio.wait({write})
    assert heard == [False]
    assert isinstance(execution.stopped.result(), Fenced)
    # It waits for its end, and gets no further.
    assert not went_on
    going_on.close()
