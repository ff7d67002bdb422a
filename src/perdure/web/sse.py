"""Server-sent events, as FastAPI writes them, of what the hub gives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Final

from fastapi import Request
from fastapi.sse import EventSourceResponse, format_sse_event

from perdure.access.principals import Role
from perdure.errors import ForbiddenError, UnauthorizedError, UnavailableError
from perdure.events import Entry
from perdure.web.state import api_of

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT_SECONDS = 15.0
"""How long a stream is silent at most: what stands between may close one that says nothing."""
HEARTBEAT: Final = format_sse_event(comment="")
RETRY_MS = 1000
"""After how long a browser that lost its connection comes back."""
ALLOWED_SECONDS = 60.0
"""How long a stream goes on before it is asked again whether its reader may read."""
_PIECE_BYTES: Final = 64 << 10


def stream(request: Request, content: AsyncGenerator[bytes, None]) -> EventSourceResponse:
    """Return an answer that streams ``content``, and that nothing on the way keeps back.

    It ends when who sent ``request`` may read no more: its key was revoked, say.
    """
    return EventSourceResponse(
        _while_allowed(request, content), headers={"X-Accel-Buffering": "no"}
    )


async def _while_allowed(
    request: Request, content: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    asked = loop.time()
    async with aclosing(content):
        async for piece in content:
            if loop.time() >= asked + ALLOWED_SECONDS:
                asked = loop.time()
                if not await _allowed(request):
                    return
            yield piece


async def _allowed(request: Request) -> bool:
    try:
        principal = await api_of(request).authenticate(request)
        principal.require(Role.RUNS_READ)
    except (UnauthorizedError, ForbiddenError):
        return False
    except UnavailableError:
        # Nobody can say: as long as that lasts there is nothing to read either.
        return True
    return True


def beginning(position: str | None = None) -> bytes:
    """Return what a stream begins with: when to come back, and with which position."""
    return format_sse_event(id=position, retry=RETRY_MS)


def position(text: str) -> bytes:
    """Return a heartbeat that changes what a reader comes back with, and is no event."""
    return format_sse_event(comment="", id=text)


def written(entry: Entry) -> bytes:
    """Return an event as it is sent."""
    return entry.written(_written)


def _written(entry: Entry) -> bytes:
    event = entry.event
    # ASCII on one line: some clients take separators of Unicode for the ends of lines.
    data = json.dumps(event.as_object(), separators=(",", ":"), allow_nan=False)
    return format_sse_event(id=entry.id, event=event.event, data_str=data)


def in_pieces(entries: Sequence[Entry]) -> Iterator[bytes]:
    """Give events as they are sent, many at once, and not more than a slow reader may hold up."""
    piece: list[bytes] = []
    size = 0
    for entry in entries:
        piece.append(written(entry))
        size += len(piece[-1])
        if size > _PIECE_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)


def wants_json(accept: str) -> bool:
    """Whether a list is asked for: who names JSON, and not the stream."""
    named = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return "application/json" in named and MEDIA_TYPE not in named
