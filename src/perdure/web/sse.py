"""Server-sent events, as FastAPI writes them, of what the hub gives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from fastapi.sse import EventSourceResponse, format_sse_event

from perdure.events import Entry

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT_SECONDS = 15.0
"""How long a stream is silent at most: what stands between may close one that says nothing."""
HEARTBEAT: Final = format_sse_event(comment="")
RETRY_MS = 1000
"""After how long a browser that lost its connection comes back."""
_PIECE_BYTES: Final = 64 << 10


def stream(content: AsyncIterator[bytes]) -> EventSourceResponse:
    """Return an answer that streams ``content``, and that nothing on the way keeps back."""
    return EventSourceResponse(content, headers={"X-Accel-Buffering": "no"})


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
