"""A port that leads to a server and cuts each connection when it has carried so much."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress


class Cutting:
    """Leads to ``target``; ``after()`` says how many bytes the next connection may carry back."""

    def __init__(self, target: int, after: Callable[[], int | None]) -> None:
        self.target = target
        """The port at the other end; another one from the next connection on."""
        self.after = after
        self.cuts = 0
        self.port = 0
        self._links: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._link(reader, writer)
        finally:
            writer.transport.abort()
            self._links.discard(task)

    async def end(self) -> None:
        """Cut all there are."""
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", self.target)
        asking = asyncio.create_task(self._carry(reader, questions, None))
        try:
            if await self._carry(answers, writer, self.after()):
                self.cuts += 1
        finally:
            asking.cancel()
            questions.transport.abort()
            await asyncio.gather(asking, return_exceptions=True)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None
    ) -> bool:
        """Carry bytes until there are no more, or ``most`` were; whether that was it."""
        with suppress(OSError):
            while most is None or most > 0:
                read = await reader.read(1 << 16 if most is None else min(most, 1 << 16))
                if not read:
                    return False
                writer.write(read)
                await writer.drain()
                if most is not None:
                    most -= len(read)
            return True
        return False


@asynccontextmanager
async def cutting(target: int, after: Callable[[], int | None]) -> AsyncIterator[Cutting]:
    """Listen inside the block, on the ``port`` of what is given."""
    link = Cutting(target, after)
    server = await asyncio.start_server(link.accept, "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        await link.end()
