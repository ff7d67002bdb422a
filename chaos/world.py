"""The outside world: a file each effect and each model request is appended to, and nothing else.

It lies outside of every database, a line is one ``write`` with O_APPEND, and nobody changes a
line: what stands there happened, whatever the records of the one who did it say.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from chaos import script
from chaos.script import Call, Outputs, Reply

_MODEL_SECONDS = (0.02, 0.15)
_BEFORE_SECONDS = (0.0, 0.015)
_AFTER_SECONDS = (0.0, 0.08)


_LOG, _SEED = "PERDURE_CHAOS_LOG", "PERDURE_CHAOS_SEED"


def enter(log: str, seed: int) -> None:
    """Say where this process, and those it starts, find the world."""
    os.environ[_LOG], os.environ[_SEED] = log, str(seed)


class World:
    """A worker's side: it acts, and what it did is in the log."""

    def note(self, kind: str, **fields: Any) -> None:
        """Append one line: ``kind``, the time, this process and ``fields``."""
        line = json.dumps({"kind": kind, "at": time.time(), "pid": os.getpid(), **fields}) + "\n"
        fd = os.open(os.environ[_LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)

    async def ask(self, agent: str, order: str, outputs: Outputs) -> Reply:
        """Be the model: paid for when asked, answering some tens of milliseconds later."""
        said = script.reply(agent, order, outputs)
        self.note("asked", order=order, agent=agent, depth=said.depth)
        await asyncio.sleep(self._draw(f"{order} {agent} {said.depth}").uniform(*_MODEL_SECONDS))
        return said

    async def act(self, call: Call, order: str, *, key: str, attempt: int) -> str:
        """Perform a call's effect, which happens at one moment somewhere in the middle."""
        draw = self._draw(f"{order} {call.id} {attempt}")
        await asyncio.sleep(draw.uniform(*_BEFORE_SECONDS))
        self.note("effect", order=order, call=call.id, key=key, attempt=attempt)
        await asyncio.sleep(draw.uniform(*_AFTER_SECONDS))
        return script.returned(call, order)

    def _draw(self, of: str) -> random.Random:
        return random.Random(f"{os.environ[_SEED]} {of}")


class Log:
    """The reader's side: the lines so far, kept by what they are about."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._rest = b""
        self.lines: list[dict[str, Any]] = []
        self.effects: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        """By order and call id."""

    def read_on(self) -> None:
        """Take in what was appended since the last time."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        self._read += len(new)
        *whole, self._rest = (self._rest + new).split(b"\n")
        lines = [json.loads(line) for line in whole]
        self.lines += lines
        for line in lines:
            if line["kind"] == "effect":
                self.effects[line["order"], line["call"]].append(line)
