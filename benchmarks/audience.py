"""Many clients with a stream open each, in a process of their own that does little but read.

One thread waits for all sockets at once, as clients must not take the time that is measured. Of
every tenth stream the events are looked at. Requests come on the standard input, answers go to the
standard output, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.process import Child
from perdure.cli.open_files import allow_many_connections

_ROOT = Path(__file__).parents[1]
_LOOKED_AT = 10
_LINE_LIMIT = 1 << 26
_PATIENCE_SECONDS = 60


@asynccontextmanager
async def audience(address: str, runs: Sequence[str], count: int) -> AsyncIterator[Child]:
    """Follow runs with ``count`` clients within the block, all of which have begun to read.

    Asked to ``listen`` until they have ``events`` of each run that tell a moment, those that are
    looked at answer with ``delays``: ms from that moment to having read it.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.audience"),
        *(address, str(count), *runs),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        limit=_LINE_LIMIT,
    )
    child = Child(process, "an audience", time.monotonic())
    await child.heard()
    try:
        yield child
    finally:
        await child.kill()


class Client:
    """A stream that is open; ``looked_at``: its events are read, not only its bytes."""

    def __init__(self, address: str, run_id: str, *, looked_at: bool) -> None:
        """Ask for the events of a run and wait until the first one is there."""
        at = urlsplit(address)
        self.run_id = run_id
        self.looked_at = looked_at
        self.delays: list[float] = []
        self.last = 0
        self._rest = b""
        self.socket = socket.create_connection((at.hostname, at.port), _PATIENCE_SECONDS)
        request = f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: {at.netloc}\r\n\r\n"
        self.socket.sendall(request.encode())

    def begin(self) -> None:
        """Wait for the answer and the event that is there already."""
        head = b""
        while b"run.queued" not in head:
            read = self.socket.recv(1 << 16)
            head += read
            if not read or not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"The server refused a reader: {head!r}")
        self.socket.setblocking(False)

    def read(self) -> bool:
        """Read what is there; whether there may be more, as the run goes on."""
        try:
            read = self.socket.recv(1 << 18)
        except BlockingIOError:
            return True
        now = time.monotonic()
        if not self.looked_at:
            return bool(read)
        *lines, self._rest = (self._rest + read).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and b'"model.delta"' in line:
                event = json.loads(line[6:])
                if self.last and event["id"] != self.last + 1:
                    raise AssertionError(f"{event['id']} came after {self.last}.")
                self.last = event["id"]
                # It begins with the moment at which it was said.
                at = event["delta"].partition(" ")[0]
                if at[0].isdigit():
                    self.delays.append((now - float(at)) * 1000)
        return bool(read)


def _listen(clients: Sequence[Client], events: int, waiting: selectors.BaseSelector) -> None:
    """Read until all that are looked at have so many events."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while any(len(one.delays) < events for one in clients if one.looked_at):
        if time.monotonic() > deadline:
            raise TimeoutError("Readers were not given all there is.")
        for key, _ in waiting.select(0.2):
            if key.data is not None and not key.data.read():
                waiting.unregister(key.fileobj)


def main() -> None:
    """Open the streams, say so, and answer what is asked until the standard input ends."""
    allow_many_connections()
    address, count, *runs = sys.argv[1:]
    clients: list[Client] = []
    waiting = selectors.DefaultSelector()
    for n in range(int(count)):
        looked_at = n % _LOOKED_AT == 0 or int(count) < _LOOKED_AT
        client = Client(address, runs[n % len(runs)], looked_at=looked_at)
        client.begin()
        clients.append(client)
        waiting.register(client.socket, selectors.EVENT_READ, client)
    waiting.register(sys.stdin, selectors.EVENT_READ)
    _say({"ready": time.monotonic()})
    while True:
        for key, _ in waiting.select():
            if key.data is not None:
                if not key.data.read():
                    waiting.unregister(key.fileobj)
            elif line := sys.stdin.readline():
                _listen(clients, json.loads(line)["events"], waiting)
                _say({"delays": [ms for one in clients for ms in one.delays]})
            else:
                return


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
