"""Answers for a server that cannot be there: 503, and where to look."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_PROBLEM = {
    "type": "urn:perdure:problem:unavailable",
    "title": "Not available now",
    "status": 503,
    "detail": "The application file does not load. The terminal of `perdure dev` says why.",
    "code": "unavailable",
}
_READ_SECONDS = 5.0


@asynccontextmanager
async def apologizing(listening: socket.socket) -> AsyncIterator[None]:
    """Answer every request that comes to ``listening`` with a problem, inside the block."""
    server = await asyncio.start_server(_apologize, sock=listening.dup())
    try:
        yield
    finally:
        server.close()


async def _apologize(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = json.dumps(_PROBLEM).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: 2\r\nConnection: close\r\n\r\n"
    )
    try:
        with suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            async with asyncio.timeout(_READ_SECONDS):
                await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode() + body)
        await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()
