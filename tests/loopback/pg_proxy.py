"""Stands between clients and Postgres and takes the connection away at a chosen moment.

The worst moment is right after a COMMIT: the server has done it, and the client does not hear. So
the proxy reads along (protocol 3.0, no TLS): what a client sends up to a Sync is a unit, and the
server's ReadyForQuery says that the unit is over, and whether it left a transaction open.

It has a thread and an event loop of its own: DBOS connects in whatever thread it is in.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_UNTYPED = 8
"""Length and code of a packet without a type: those a connection begins with."""
_STARTUP = 3 << 16


@dataclass(eq=False)
class Cut:
    """A connection to be lost: at the ``nth`` commit of a statement with ``marker`` in it."""

    marker: str
    nth: int = 1
    met: int = 0
    _made: Future[None] = field(default_factory=Future)

    @property
    def made(self) -> bool:
        """Whether it has been lost."""
        return self._made.done()

    async def wait(self, seconds: float) -> None:
        """Wait until it has been lost."""
        async with asyncio.timeout(seconds):
            await asyncio.shield(asyncio.wrap_future(self._made))

    def make(self) -> None:
        """Note that it has been lost."""
        self._made.set_result(None)

    def counts(self, statements: list[str]) -> bool:
        """Count a unit that has committed; whether it is the one."""
        if not self.made and any(self.marker in one for one in statements):
            self.met += 1
            return self.met == self.nth
        return False


class PgProxy:
    """A port that leads to a server; ``pg_proxy`` opens and closes it."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._cuts: list[Cut] = []
        self._links: set[_Link] = set()
        self._refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pg-proxy")
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        ).result()

    @property
    def url(self) -> str:
        """The URL that leads through it."""
        port = self._server.sockets[0].getsockname()[1]
        netloc = f"{self._target.username}:{self._target.password}@127.0.0.1:{port}"
        url = self._target._replace(netloc=netloc).geturl()
        return f"{url}{'&' if self._target.query else '?'}sslmode=disable&gssencmode=disable"

    def close(self) -> None:
        """Lose every connection and take no more."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        self._flowing.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        self._abort_all()
        if others:
            await asyncio.wait(others)

    def cut_after(self, marker: str, nth: int = 1) -> Cut:
        """Lose the connection on which the ``nth`` statement with ``marker`` from now commits.

        Its server has answered, its client does not get to see that.
        """
        cut = Cut(marker, nth)
        self._cuts.append(cut)
        return cut

    def cut_all(self) -> None:
        """Lose every connection there is."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def refuse(self) -> None:
        """Lose every connection there is, and each new one as soon as it comes."""
        self._refusing = True
        self.cut_all()

    def accept(self) -> None:
        """Take connections again."""
        self._refusing = False

    def freeze(self) -> None:
        """Go on accepting, and say nothing any more in either direction."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def thaw(self) -> None:
        """Let everything through again."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _abort_all(self) -> None:
        for link in self._links:
            link.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        if self._refusing:
            writer.transport.abort()
            return
        try:
            assert self._target.hostname is not None
            there = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, (reader, writer), there)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    def matching(self, statements: list[str]) -> bool:
        """Whether somebody waits for one of these statements to commit."""
        return any(cut.marker in one for cut in self._cuts for one in statements if not cut.made)

    def due(self, statements: list[str]) -> Cut | None:
        """Return what is to be done now that these statements have committed."""
        return next((cut for cut in self._cuts if cut.counts(statements)), None)

    async def flow(self) -> None:
        """Wait while frozen."""
        await self._flowing.wait()


class _Link:
    """One client's connection, read along."""

    def __init__(
        self,
        proxy: PgProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._prepared: dict[str, str] = {}
        self._portals: dict[str, str] = {}
        self._unit: list[str] = []
        self._units: deque[list[str]] = deque()
        self._transaction: list[str] = []
        """What the open transaction has done so far."""

    def abort(self) -> None:
        """Lose the connection on both sides."""
        for writer in (self._to_client, self._to_server):
            writer.transport.abort()

    async def run(self) -> None:
        """Carry what comes until one side ends."""
        with suppress(OSError, asyncio.IncompleteReadError, ValueError):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._ended(self._carry_requests()))
                tasks.create_task(self._ended(self._carry_answers()))

    async def _ended(self, carrying: object) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await carrying  # type: ignore[misc]
        self.abort()

    async def _carry_requests(self) -> None:
        code = 0
        while code != _STARTUP:
            head = await self._from_client.readexactly(_UNTYPED)
            length, code = struct.unpack("!ii", head)
            rest = await self._from_client.readexactly(length - _UNTYPED)
            self._to_server.write(head + rest)
        while True:
            kind, message = await _message(self._from_client)
            await self._proxy.flow()
            self._read(kind, message[5:])
            self._to_server.write(message)
            await self._to_server.drain()

    def _read(self, kind: bytes, body: bytes) -> None:
        texts = _texts(body)
        match kind:
            case b"Q":
                self._units.append([next(texts)])
            case b"P":
                name = next(texts)
                self._prepared[name] = next(texts)
            case b"B":
                portal = next(texts)
                self._portals[portal] = self._prepared.get(next(texts), "")
            case b"E":
                self._unit.append(self._portals.get(next(texts), ""))
            case b"S":
                self._units.append(self._unit)
                self._unit = []

    async def _carry_answers(self) -> None:
        held: list[bytes] = []
        while True:
            kind, message = await _message(self._from_server)
            await self._proxy.flow()
            # An answer somebody waits for may tell of the commit before ReadyForQuery does.
            head = self._units[0] if self._units else []
            if kind != b"Z" and head and self._proxy.matching(self._transaction + head):
                held.append(message)
                continue
            if kind == b"Z":
                if self._over(message[5:6]):
                    return
                held, passed = [], held
                for one in passed:
                    self._to_client.write(one)
            self._to_client.write(message)
            await self._to_client.drain()

    def _over(self, status: bytes) -> bool:
        """Note that a unit is over; whether the connection ends here."""
        # The first one follows the greeting and answers to nothing.
        statements = self._units.popleft() if self._units else []
        self._transaction += statements
        if status != b"I":
            return False
        done, self._transaction = self._transaction, []
        if any(one.lstrip().upper().startswith("ROLLBACK") for one in done):
            return False
        cut = self._proxy.due(done)
        if cut is not None:
            self.abort()
            cut.make()
        return cut is not None


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    [length] = struct.unpack("!i", head[1:])
    return head[:1], head + await reader.readexactly(length - 4)


def _texts(body: bytes) -> Iterator[str]:
    """The strings a message begins with, each ended by a zero."""
    while True:
        text, _, body = body.partition(b"\0")
        yield text.decode(errors="replace")


@contextmanager
def pg_proxy(url: str) -> Iterator[PgProxy]:
    """A proxy to the server of ``url`` inside the block."""
    proxy = PgProxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
