"""What models have streamed and nobody has written yet, by run. In memory, pure.

Text that follows text of the same part of a reply is joined to it, so what comes within a batch is
one event. There is room for so many characters, of all runs; text that finds none is not taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from perdure.ledger.telling import Told

MAX_WAITING: Final = 4_000_000
"""How many characters may wait to be written, of all runs of a process."""
_MAX_BATCH: Final = 200_000


class Source(NamedTuple):
    """Who streams: an execution of a segment. Ids as text."""

    run_id: str
    tenant_id: str
    segment: int
    epoch: int


@dataclass(slots=True)
class Event:
    """An event to be written; ``pieces`` are the text of a delta so far."""

    kind: str
    data: dict[str, Any]
    pieces: list[str] | None = None

    def told(self) -> Told:
        """Return it as it is written."""
        data = self.data if self.pieces is None else {**self.data, "delta": "".join(self.pieces)}
        return {"kind": self.kind, "data": data}


@dataclass(slots=True)
class Part:
    """What one run has to be written, in order, and how many characters of text that is."""

    source: Source
    events: list[Event] = field(default_factory=list)
    size: int = 0


class Unsent:
    """The parts of all runs; a batch that was taken counts against the room until ``sent``."""

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}
        self._size = 0

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._parts)

    def __contains__(self, run_id: str) -> bool:
        """Whether anything of a run waits."""
        return run_id in self._parts

    def add(self, source: Source, kind: str, data: dict[str, Any], text: str | None) -> bool:
        """Take an event of ``source``, with ``text`` joined to that before it; whether it was.

        What an earlier execution of the run had waiting goes; what one sends later is not taken.
        """
        part = self._parts.get(source.run_id)
        if part is None or part.source.epoch < source.epoch:
            self._drop(source.run_id)
            part = self._parts[source.run_id] = Part(source)
        elif part.source != source:
            return False
        if text is not None:
            if self._size + len(text) > MAX_WAITING:
                return False
            part.size += len(text)
            self._size += len(text)
            last = _last_of(part.events, data)
            if last is not None and last.pieces is not None and last.data == data:
                last.pieces.append(text)
                return True
        part.events.append(Event(kind, data, None if text is None else [text]))
        return True

    def withdraw(self, source: Source, wanted: Callable[[dict[str, Any]], bool]) -> list[Event]:
        """Take out the events whose data are ``wanted``."""
        part = self._parts.get(source.run_id)
        if part is None or part.source != source:
            return []
        taken = [one for one in part.events if wanted(one.data)]
        part.events = [one for one in part.events if not wanted(one.data)]
        size = sum(len(piece) for one in taken for piece in one.pieces or ())
        part.size -= size
        self._size -= size
        if not part.events:
            self._drop(source.run_id)
        return taken

    def forget(self, source: Source) -> None:
        """Drop what waits of an execution."""
        part = self._parts.get(source.run_id)
        if part is not None and part.source == source:
            self._drop(source.run_id)

    def take(self, held: Callable[[str], bool]) -> dict[str, Part]:
        """Take a batch: the parts of runs that are not ``held``, as far as they fit."""
        batch: dict[str, Part] = {}
        size = 0
        for run_id, part in list(self._parts.items()):
            if held(run_id):
                continue
            if batch and size + part.size > _MAX_BATCH:
                break
            batch[run_id] = self._parts.pop(run_id)
            size += part.size
        return batch

    def put_back(self, part: Part) -> None:
        """Let a part that was taken go with the next batch, before what came since."""
        later = self._parts.get(part.source.run_id)
        if later is None:
            self._parts[part.source.run_id] = part
        elif later.source == part.source:
            later.events[:0] = part.events
            later.size += part.size
        else:
            self.sent(part)

    def sent(self, part: Part) -> None:
        """Give the room of a part that was taken free."""
        self._size -= part.size

    def _drop(self, run_id: str) -> None:
        part = self._parts.pop(run_id, None)
        if part is not None:
            self._size -= part.size


def _last_of(events: list[Event], data: dict[str, Any]) -> Event | None:
    reply = data["model_response_id"]
    return next((e for e in reversed(events) if e.data["model_response_id"] == reply), None)
