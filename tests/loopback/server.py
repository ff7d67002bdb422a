"""A server of ``/v1/responses`` and ``/v1/chat/completions`` on a loopback port.

It replies by a rule on what it is asked, notes each request and what it cost, and makes the
trouble it is told to, down to the socket: that is why it speaks HTTP itself (h11 does the parsing).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import h11

from tests.loopback.replies import Asked, Rule
from tests.loopback.troubles import Cut, Refused, Said, Silence, Trouble
from tests.loopback.wire import Reply, Tokens, error_body

KEY = "test"
_PATHS = ("/v1/responses", "/v1/chat/completions")
_PACKET = 331
"""Bytes a packet: events and characters are split, as they are on a real network."""


@dataclass(eq=False)
class Request:
    """A request as it came."""

    number: int
    connection: int
    at: float
    """Monotonic seconds."""
    path: str
    headers: dict[str, str]
    asked: Asked
    silent: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is left waiting."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the other side hung up while it waited."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply that was sent whole."""

    reply: Reply
    request_id: str


class Loopback:
    """What was asked and answered, and what is to go wrong next."""

    def __init__(self, rule: Rule) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.answered: list[Answered] = []
        self.change: Callable[[bytes], bytes] = bytes
        """What becomes of an event or a whole body before it is sent, for the odd provider."""
        self.key: str | None = KEY
        """What it wants to see; None is anything."""
        self.connections = 0
        self._rule = rule
        self._troubles: list[Trouble | None] = []
        self._for_ever: Trouble | None = None
        self._arrived = asyncio.Event()
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.listening: asyncio.Server | None = None

    def trouble(self, *troubles: Trouble | None) -> None:
        """Let the next requests meet these, in the order they come; None is none."""
        self._troubles += troubles

    def trouble_for_ever(self, trouble: Trouble | None) -> None:
        """Let all requests after those meet this."""
        self._for_ever = trouble

    async def request(self, number: int) -> Request:
        """Wait for the request of this number, from 1 on, and return it."""
        while len(self.requests) < number:
            self._arrived.clear()
            await self._arrived.wait()
        return self.requests[number - 1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        self.connections += 1
        connection = _Connection(reader, writer, self.connections)
        try:
            with suppress(ConnectionError):
                while (came := await connection.request()) is not None:
                    if not await self._answer(connection, *came):
                        break
        finally:
            del self._open[task]
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def close(self) -> None:
        """Listen no more: whoever connects from now on is refused."""
        assert self.listening is not None
        self.listening.close()
        await self.stop()

    async def stop(self) -> None:
        """End what connections are left."""
        left = dict(self._open)
        for writer in left.values():
            writer.transport.abort()
        if left:
            await asyncio.wait(left)

    async def _answer(self, connection: _Connection, head: h11.Request, body: bytes) -> bool:
        """Answer one request; whether the connection can take another."""
        path = head.target.decode()
        headers = {name.decode(): value.decode() for name, value in head.headers}
        known = self.key is None or headers.get("authorization") == f"Bearer {self.key}"
        if not known or path not in _PATHS:
            await connection.refuse(Refused(401, None, f"not allowed: {path}"), "req_0")
            return connection.next()
        asked = Asked(json.loads(body))
        number = len(self.requests) + 1
        request = Request(number, connection.number, time.monotonic(), path, headers, asked)
        self.requests.append(request)
        trouble = self._troubles.pop(0) if self._troubles else self._for_ever
        request_id = f"req_{number}"
        self._arrived.set()
        if isinstance(trouble, Refused):
            await connection.refuse(trouble, request_id)
            return connection.next()
        if isinstance(trouble, Silence) and trouble.after is None:
            await connection.silence(request)
            return False
        tokens = Tokens(1000 + number, 100 + number, 50 + number, 10 + number)
        reply = Reply(f"resp_{number}", asked, self._rule(asked), tokens)
        events = [self.change(one) for one in self._parts(reply)]
        await connection.head(200, self._kind(asked), request_id)
        if not await self._body(connection, request, reply, events, trouble):
            return False
        if trouble is None:
            self.answered.append(Answered(reply, request_id))
        return connection.next()

    def _parts(self, reply: Reply) -> list[bytes]:
        return reply.stream() if reply.asked.body.get("stream") else [_json(reply.whole())]

    def _kind(self, asked: Asked) -> str:
        return "text/event-stream; charset=utf-8" if asked.body.get("stream") else _JSON

    async def _body(
        self,
        connection: _Connection,
        request: Request,
        reply: Reply,
        events: list[bytes],
        trouble: Trouble | None,
    ) -> bool:
        """Send the body, or what trouble leaves of it; whether it had its end."""
        match trouble:
            case None:
                await connection.send(b"".join(events))
            case Said(event, after):
                await connection.send(b"".join([*events[:after], event(reply)]))
            case Silence(after):
                await connection.send(b"".join(events[:after]))
                await connection.silence(request)
                return False
            case Cut(after, how):
                half = events[after][: len(events[after]) // 2] if after < len(events) else b""
                await connection.send(b"".join([*events[:after], half]))
                if how == "reset":
                    connection.reset()
                if how != "ended":
                    return False
        await connection.end()
        return True


class _Connection:
    """One connection of a client: HTTP/1.1 by h11 on a socket."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.number = number
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER)

    async def request(self) -> tuple[h11.Request, bytes] | None:
        """Return the head and body of the next request, None when there is none."""
        head: h11.Request | None = None
        body = b""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(65536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return head, body
            else:
                return None

    async def head(self, status: int, kind: str, request_id: str, **more: str) -> None:
        """Send the head of an answer whose body comes in chunks."""
        headers = {"content-type": kind, "x-request-id": request_id, **more}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        chunked = (b"transfer-encoding", b"chunked")
        await self._write(h11.Response(status_code=status, headers=[*pairs, chunked]))

    async def send(self, body: bytes) -> None:
        """Send a part of the body, in packets."""
        for at in range(0, len(body), _PACKET):
            await self._write(h11.Data(data=body[at : at + _PACKET]))

    async def end(self) -> None:
        """End the body."""
        await self._write(h11.EndOfMessage())

    async def refuse(self, refused: Refused, request_id: str) -> None:
        """Send an error."""
        await self.head(refused.status, _JSON, request_id, **refused.headers)
        code = refused.code or ""
        await self.send(_json(error_body(code, refused.message, refused.kind)))
        await self.end()

    async def silence(self, request: Request) -> None:
        """Say nothing more, until the other side hangs up."""
        request.silent.set()
        try:
            assert await self._reader.read(1) == b""
        finally:
            request.gone.set()

    def reset(self) -> None:
        """Drop the connection with a reset, whatever was not sent yet included."""
        self._writer.transport.abort()

    def next(self) -> bool:
        """Make ready for another request; whether there may be one."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _write(self, event: Any) -> None:
        self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()


_JSON = "application/json"


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


@asynccontextmanager
async def loopback(rule: Rule) -> AsyncIterator[Loopback]:
    """Serve on a free port of 127.0.0.1 inside the block."""
    serving = Loopback(rule)
    server = await asyncio.start_server(serving.serve, "127.0.0.1", 0)
    serving.listening = server
    host, port = server.sockets[0].getsockname()
    serving.url = f"http://{host}:{port}/v1"
    try:
        yield serving
    finally:
        server.close()
        await serving.stop()
        await server.wait_closed()
