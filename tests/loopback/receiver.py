"""A receiver of webhooks on a loopback port: notes what comes, answers as it is told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import h11
from standardwebhooks.webhooks import Webhook

SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Came:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The id of the message."""
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> dict[str, Any]:
        """The message, once the library has found its signature good."""
        content: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return content


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered; ``endless`` is repeated until nobody reads any more."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"ok"
    endless: bool = False


HANG = Answer(0)
"""No answer, and the connection stays open."""


class Receiver:
    """What came, and what is answered: each of ``answers`` once, then 200 for ever."""

    def __init__(self) -> None:
        self.url = ""
        self.port = 0
        self.came: list[Came] = []
        self.answers: list[Answer] = []
        self.names: list[str | None] = []
        """The names clients asked for by SNI."""
        self._arrived = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()

    async def request(self, number: int) -> Came:
        """Wait for the request of this number, from 1 on."""
        async with asyncio.timeout(SECONDS):
            while len(self.came) < number:
                self._arrived.clear()
                await self._arrived.wait()
        return self.came[number - 1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        self._open.add(writer)
        try:
            with suppress(ConnectionError):
                await self._serve(reader, writer)
        finally:
            self._open.discard(writer)
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, body, head = h11.Connection(h11.SERVER), b"", None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(65536)
                connection.receive_data(data)
                if not data:
                    return
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                break
        assert head is not None
        headers = {name.decode(): value.decode() for name, value in head.headers}
        self.came.append(Came(head.method.decode(), head.target.decode(), headers, body))
        answer = self.answers.pop(0) if self.answers else Answer()
        self._arrived.set()
        if answer is HANG:
            await reader.read()
            return
        length = [] if answer.endless else [("Content-Length", str(len(answer.body)))]
        writer.write(
            connection.send(
                h11.Response(status_code=answer.status, headers=[*length, *answer.headers])
            )
            or b""
        )
        writer.write(connection.send(h11.Data(data=answer.body)) or b"")
        while answer.endless:
            writer.write(connection.send(h11.Data(data=answer.body)) or b"")
            await writer.drain()
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()

    def stop(self) -> None:
        """End the connections that are left."""
        for writer in self._open:
            writer.transport.abort()


@asynccontextmanager
async def receiver(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver inside the block, by https where there is a context for it."""
    there = Receiver()
    if tls is not None:
        tls.sni_callback = lambda _, name, __: there.names.append(name)
    server = await asyncio.start_server(there.serve, "127.0.0.1", 0, ssl=tls)
    there.port = server.sockets[0].getsockname()[1]
    there.url = f"http{'s' if tls else ''}://127.0.0.1:{there.port}/hook"
    try:
        yield there
    finally:
        server.close()
        there.stop()
