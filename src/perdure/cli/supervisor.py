"""The parent of ``perdure dev``: holds the database and the port, and replaces what serves.

The child (``dev_child``) loads the target, migrates, runs the worker and answers on the socket it
inherits, so that connections wait through a reload instead of being refused. It ends with its
parent, however that dies: the two share a pipe whose other end only the parent has.

What follows what: a changed file → the child is told to stop and another one started. A child that
cannot load the target → its message is shown, requests are told so, and the next change is waited
for; where it was the first, the command fails. A child that dies → another one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from watchfiles import awatch

from perdure import embedded
from perdure.cli.apology import apologizing
from perdure.cli.output import print_error, print_fields, print_note
from perdure.cli.serving import address_of
from perdure.cli.target import Target
from perdure.config import Settings

_STOP_SECONDS = 15.0
_SHORT_LIFE_SECONDS = 5.0
_MOST_SHORT_LIVES = 3


@dataclass(frozen=True, slots=True)
class Greeting:
    """What is shown when it serves: a question to try, and more lines by name."""

    question: str
    more: Mapping[str, str] = field(default_factory=dict)


class Child:
    """One child process and what it has reported."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready = False
        self.failure: str | None = None
        self.started = time.monotonic()

    async def stop(self) -> None:
        """Tell it to stop, and make it where it does not."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.terminate()
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


class Supervisor:
    """Runs children for one target until it is told to stop; ``run`` returns the exit code."""

    def __init__(
        self,
        target: Target,
        listening: socket.socket,
        *,
        environment: Mapping[str, str],
        home: Path | None,
        greeting: Greeting,
    ) -> None:
        """Take the target, a bound socket, the children's environment, and where the embedded
        Postgres lives: None where the environment names a database.
        """
        self._greeting = greeting
        self._target = target
        self._listening = listening
        self._environment = dict(environment)
        self._home = home
        self._told = asyncio.Event()
        self._changed = asyncio.Event()
        self._watched: set[Path] = set()
        self._files: set[Path] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loads = 0
        self._short_lives = 0
        self._where = "DATABASE_URL"

    async def run(self) -> int:
        """Supervise until SIGINT or SIGTERM.

        Raises:
            ConfigurationError, UnavailableError: the embedded Postgres cannot be run.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._tell)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._end_tasks)
            if self._home is not None:
                server = await stack.enter_async_context(embedded.running(self._home))
                self._environment["DATABASE_URL"] = server.url
                self._where = f"embedded Postgres in {self._home}"
            self._watch([self._target.file.parent if self._target.file else Path.cwd()])
            while not self._told.is_set():
                if not await self._one_life():
                    return 1
        return 0

    def _tell(self) -> None:
        if self._told.is_set():
            # Asked twice: the child's own SIGINT ends it at once, and so does the kernel us.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._told.set()
        self._changed.set()

    async def _one_life(self) -> bool:
        """Run one child to its end; False where the command has failed."""
        self._changed.clear()
        async with self._child() as child:
            exited = asyncio.create_task(child.process.wait())
            changed = asyncio.create_task(self._changed.wait())
            await asyncio.wait({exited, changed}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        await exited
        if self._told.is_set() or self._changed.is_set():
            if not self._told.is_set():
                print_note("Changed: loading it again.")
            return True
        return await self._after_death(child)

    async def _after_death(self, child: Child) -> bool:
        code = child.process.returncode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if child.ready:
            lived = time.monotonic() - child.started
            self._short_lives = self._short_lives + 1 if lived < _SHORT_LIFE_SECONDS else 0
            if self._short_lives < _MOST_SHORT_LIVES:
                print_note(f"The server process ended by {how}; starting another.")
                return True
        print_error(child.failure or f"The server process ended by {how}.")
        if self._loads == 0:
            return False
        print_note("Waiting for a change.")
        self._short_lives = 0
        # Also of a file that was not there before.
        self._files = set()
        async with apologizing(self._listening):
            await self._changed.wait()
        return True

    @asynccontextmanager
    async def _child(self) -> AsyncIterator[Child]:
        """Start a child and stop it at the end of the block; its reports are read meanwhile."""
        alive_read, alive_write = os.pipe()
        report_read, report_write = os.pipe()
        orders = {
            "target": self._target.text,
            "listening": self._listening.fileno(),
            "alive": alive_read,
            "report": report_write,
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "perdure.cli.dev_child", json.dumps(orders)),
                stdin=asyncio.subprocess.DEVNULL,
                env=self._environment,
                pass_fds=(self._listening.fileno(), alive_read, report_write),
            )
        finally:
            os.close(alive_read)
            os.close(report_write)
        child = Child(process)
        reading = asyncio.create_task(self._read_reports(child, report_read))
        try:
            yield child
        finally:
            await child.stop()
            await reading
            os.close(alive_write)

    async def _read_reports(self, child: Child, pipe: int) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb")
        )
        try:
            # Ends with the child: nobody else has the other end.
            while line := await reader.readline():
                self._take_report(child, json.loads(line))
        finally:
            transport.close()

    def _take_report(self, child: Child, report: Mapping[str, Any]) -> None:
        match report["event"]:
            case "loaded":
                self._files = {Path(file) for file in report["files"]}
                self._watch({file.parent for file in self._files})
            case "ready":
                child.ready = True
                seconds = time.monotonic() - child.started
                self._loads += 1
                self._greet(report["agents"], seconds)
            case "failed":
                child.failure = report["message"]

    def _greet(self, agents: Iterable[str], seconds: float) -> None:
        names = list(agents)
        if self._loads > 1:
            print_note(f"Loaded again in {seconds:.1f} s: {', '.join(names)}.")
            return
        address = address_of(self._listening)
        command = f'perdure runs start {names[0]} "{self._greeting.question}" --wait'
        if address != Settings.from_env().server_url:
            command = f"PERDURE_URL={address} {command}"
        shown = {
            "agents": ", ".join(names),
            "API": f"{address}  (described at {address}/docs)",
            "database": self._where,
            **self._greeting.more,
            "try": command,
        }
        print_note(f"perdure dev: {self._target.text}")
        print_fields({f"  {name}": value for name, value in shown.items()}, as_note=True)
        print_note("Loaded again when the file changes. Ctrl-C stops.")

    def _watch(self, folders: Iterable[Path]) -> None:
        new = set(folders) - self._watched
        self._watched |= new
        if new:
            task = asyncio.create_task(self._keep_watching(new))
            self._tasks.add(task)

    async def _keep_watching(self, folders: set[Path]) -> None:
        async for changes in awatch(
            *folders, recursive=False, watch_filter=None, stop_event=self._told, step=20
        ):
            paths = {Path(path) for _, path in changes}
            if any(path in self._files if self._files else path.suffix == ".py" for path in paths):
                self._changed.set()

    async def _end_tasks(self) -> None:
        self._told.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
