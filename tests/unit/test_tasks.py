"""Tasks end when they are told to."""

from __future__ import annotations

import asyncio

import pytest

from perdure.tasks import end


async def test_a_cancellation_that_was_forgotten_is_repeated() -> None:
    begun, forgotten = asyncio.Event(), 0

    async def loop() -> None:
        nonlocal forgotten
        while True:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if forgotten:
                    raise
                forgotten += 1

    task = asyncio.create_task(loop())
    await begun.wait()
    async with asyncio.timeout(10):
        await end(task)
    assert task.cancelled()
    assert forgotten == 1


async def test_what_a_task_failed_of_is_not_hidden() -> None:
    async def fail() -> None:
        raise ValueError("wrong")

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    with pytest.raises(ValueError, match="wrong"):
        await end(task)
