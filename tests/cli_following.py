"""The real command beside a test's own loop, in a pipe or on a terminal, read as it speaks."""

from __future__ import annotations

import asyncio
import os
import pty
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tests.cli_support import PERDURE, SECONDS, environment

_TIME = re.compile(r"^\d\d:\d\d:\d\d ", re.MULTILINE)
_SECONDS = re.compile(r" \d+ s$", re.MULTILINE)


class Following:
    """A command that goes on: all that it wrote to stdout so far, and to stderr."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self.notes = ""
        self._more = asyncio.Event()

    def take(self, descriptor: int, name: str) -> None:
        """Read what is there."""
        try:
            raw = os.read(descriptor, 65536)
        except OSError:  # the other end of a terminal is closed
            raw = b""
        if not raw:
            asyncio.get_running_loop().remove_reader(descriptor)
        text = raw.decode(errors="replace").replace("\r\n", "\n")
        setattr(self, name, getattr(self, name) + text)
        self._more.set()

    async def until(self, text: str, *, note: bool = False) -> None:
        """Wait until it has said ``text``, wherever."""
        async with asyncio.timeout(SECONDS):
            while text not in (self.notes if note else self.said):
                self._more.clear()
                await self._more.wait()

    async def ended(self) -> int:
        """Wait for its end and return the exit code."""
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def following(
    env: Mapping[str, str], *command: str, terminal: bool = False
) -> AsyncIterator[Following]:
    """Start a command; with ``terminal`` it writes to one of 60 columns."""
    out, out_end = pty.openpty() if terminal else os.pipe()
    notes, notes_end = os.pipe()
    size = {"COLUMNS": "60", "LINES": "40", "TERM": "xterm"} if terminal else {}
    process = await asyncio.create_subprocess_exec(
        *PERDURE,
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=out_end,
        stderr=notes_end,
        env=environment({**env, **size}),
    )
    os.close(out_end)
    os.close(notes_end)
    there = Following(process)
    loop = asyncio.get_running_loop()
    loop.add_reader(out, there.take, out, "said")
    loop.add_reader(notes, there.take, notes, "notes")
    try:
        yield there
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        for descriptor in (out, notes):
            loop.remove_reader(descriptor)
            os.close(descriptor)


def without_times(said: str) -> list[str]:
    """The lines of it, with ``T`` for the moments and ``N`` for seconds."""
    return _SECONDS.sub(" N s", _TIME.sub("T ", said)).splitlines()


def plain(said: str) -> str:
    """What it says without its colours."""
    return re.sub("\x1b\\[[0-9;]*m", "", said)
