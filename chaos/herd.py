"""The workers of a trial: so many at any time, each replaced when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from chaos.nursery import Nursery

_BREATH_SECONDS = 0.5
"""Before a worker that ended by itself is replaced, as a supervisor would."""
_SETTLED_SECONDS = 0.5
"""How long after a pause a process has done what it was about to do."""


@dataclass
class Pause:
    """A worker that was stopped, from ``at`` until ``until`` (None: it still is)."""

    pid: int
    at: float
    until: float | None = None


@dataclass
class Blows:
    """What was really done, with its time."""

    born: set[int] = field(default_factory=set)
    """Every worker there was."""
    kills: list[tuple[int, float]] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    restarts: list[tuple[float, float]] = field(default_factory=list)
    """From when until when the database was away."""
    ended_by_themselves: list[tuple[int, float]] = field(default_factory=list)


class Herd:
    """Keeps ``size`` workers; ``order`` is what the one in a slot is told."""

    def __init__(
        self, nursery: Nursery, size: int, order: Callable[[int], dict[str, Any]], blows: Blows
    ) -> None:
        self._nursery = nursery
        self._size = size
        self._order = order
        self._blows = blows
        self._living: dict[int, int] = {}
        self._paused: dict[int, Pause] = {}
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for slot in range(self._size):
            self._spawn(self._keep(slot))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pid in self._living.values():
            if _signalled(pid, signal.SIGKILL):
                await self._nursery.death(pid)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, slot: int) -> None:
        while True:
            pid = await self._nursery.worker(self._order(slot))
            self._blows.born.add(pid)
            async with self._changed:
                self._living[slot] = pid
                self._changed.notify_all()
            await self._nursery.death(pid)
            if self._living.get(slot) == pid:
                del self._living[slot]
                self._blows.ended_by_themselves.append((pid, time.time()))
                await asyncio.sleep(_BREATH_SECONDS)

    async def _aim(self, aim: float, *, awake: bool = False) -> tuple[int, int]:
        """Return slot and process id of the living worker ``aim`` (0 to 1) points at."""
        async with self._changed:
            while True:
                among = sorted(
                    (slot, pid)
                    for slot, pid in self._living.items()
                    if not (awake and pid in self._paused)
                )
                if among:
                    return among[int(aim * len(among))]
                await self._changed.wait()

    async def complete(self) -> None:
        """Wait until there are as many workers as there should be."""
        async with self._changed:
            while len(self._living) < self._size:
                await self._changed.wait()

    async def kill(self, aim: float) -> None:
        """Kill a worker as by kill -9; another takes its place at once."""
        while True:
            slot, pid = await self._aim(aim)
            at = time.time()
            if _signalled(pid, signal.SIGKILL):
                break
            await self._nursery.death(pid)
        self._blows.kills.append((pid, at))
        del self._living[slot]
        self._ended(pid)

    async def pause(self, aim: float, seconds: float) -> None:
        """Stop a worker for ``seconds``, as a machine that is frozen and goes on."""
        while True:
            _, pid = await self._aim(aim, awake=True)
            pause = Pause(pid, time.time())
            if _signalled(pid, signal.SIGSTOP):
                break
            await self._nursery.death(pid)
        self._paused[pid] = pause
        self._blows.pauses.append(pause)
        self._spawn(self._go_on(pid, seconds))

    async def _go_on(self, pid: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if pid in self._paused:
            _signalled(pid, signal.SIGCONT)
            async with self._changed:
                self._ended(pid)
                self._changed.notify_all()

    def _ended(self, pid: int) -> None:
        pause = self._paused.pop(pid, None)
        if pause is not None:
            pause.until = time.time()

    async def all_awake(self) -> None:
        """Wait until nobody is paused any more."""
        async with self._changed:
            while self._paused:
                await self._changed.wait()

    def may_still_act(self, pids: set[int]) -> bool:
        """Whether one of ``pids`` is paused, or was until a moment ago."""
        now = time.time()
        return any(
            pause.pid in pids and (pause.until is None or now - pause.until < _SETTLED_SECONDS)
            for pause in self._blows.pauses
        )


def _signalled(pid: int, how: signal.Signals) -> bool:
    """Send a signal; whether there was somebody to get it."""
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return False
    return True
