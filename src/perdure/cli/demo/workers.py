"""The worker processes of the demo, seen from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from typing import IO, Any

from perdure.errors import UnavailableError

_WAIT_SECONDS = 90.0
_LAST_WORDS = 2_000


class WorkerProcess:
    """One process; ``events`` counts what it has said."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, log: IO[bytes]) -> None:
        self.number = number
        self.pid = process.pid
        self.events: dict[str, int] = {}
        self._process = process
        self._log = log
        self._said = asyncio.Condition()
        self._over = False
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def spawn(cls, number: int) -> WorkerProcess:
        """Start one; it loads its agents and waits for orders."""
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        # Without a key the example answers by rules: the demo costs nothing.
        keys = {"OPENAI_API_KEY", "OPENAI_BASE_URL"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "perdure.cli.demo.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={name: value for name, value in os.environ.items() if name not in keys},
            # A Ctrl-C of the terminal is for the demo, which ends its workers itself.
            start_new_session=True,
        )
        return cls(number, process, log)

    async def order(self, orders: Mapping[str, Any]) -> None:
        """Send it to work and wait until it does."""
        assert self._process.stdin is not None  # noqa: S101
        await self.heard("loaded")
        self._process.stdin.write(json.dumps(orders).encode() + b"\n")
        await self._process.stdin.drain()
        await self.heard("ready")

    async def heard(self, event: str) -> None:
        """Wait until it has said ``event``.

        Raises:
            UnavailableError: it ended, or took too long; its last words are in the message.
        """
        try:
            async with asyncio.timeout(_WAIT_SECONDS), self._said:
                await self._said.wait_for(lambda: event in self.events or self._over)
        except TimeoutError:
            raise self._lost(f"said no {event!r} within {_WAIT_SECONDS:g} s") from None
        if event not in self.events:
            raise self._lost(f"ended before it said {event!r}")

    async def kill(self) -> None:
        """kill -9."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        await self._reading
        self._log.close()

    async def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        async for line in self._process.stdout:
            event = json.loads(line)["event"]
            async with self._said:
                self.events[event] = self.events.get(event, 0) + 1
                self._said.notify_all()
        async with self._said:
            self._over = True
            self._said.notify_all()

    def _lost(self, what: str) -> UnavailableError:
        self._log.seek(0)
        words = self._log.read().decode(errors="replace")[-_LAST_WORDS:].strip()
        return UnavailableError(
            f"The demo's worker {self.number} {what}. Its last words: {words or '(none)'}"
        )
