"""A run's states, each stored as what is new in it: text, and parts it has in common with others.

A state repeats most of the one before, and much of itself: a tool's output stands in it four times.
So its JSON text is cut where values begin and end. What may come again, a *part*, is stored once
in a run, with the state it first came in, and numbered through all of the run's states. Where it
comes, in a state or in another part, stands a *reference*: ``"\\ue000:7"``, or ``"\\ue000:7-12"``
for several in a row, with commas between. Text that went through ``jsonsafe`` has that character
followed by four hex digits only, so nothing else is ever taken for one. Put back, references give
the very text that was cut, letter by letter.

Lists grow at their ends: theirs are parts of eight elements, of eight such parts, and so on, so a
state has few references to a long list, and those of the next state are nearly all the same.

What a tool returned is not stored again: its part only names the call, by ``\\ue000#`` and its id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b, sha256
from typing import Any
from uuid import UUID

from perdure.jsonsafe import MARKER, dumps_readable

__all__ = ["CutState", "Parts", "Quote"]

_GROUP = 8
"""How many elements of a list, or groups of them, make one part."""
_SHORTEST = 64
"""Values of fewer characters are written where they stand."""
_SHORTEST_MEMBER = 16
"""Likewise for members of the objects every state begins with."""
_MANY_MEMBERS = 64
"""Objects of so many are cut as lists are."""
_WHERE_THEY_STAND = 2
"""To this depth objects and lists are no parts: they are others in each state."""
_SHORTEST_QUOTE = 64
_REFERENCE = re.compile(f'"{MARKER}:([0-9]+)(?:-([0-9]+))?"')
_QUOTE = MARKER + "#"


@dataclass(frozen=True, slots=True)
class Quote:
    """A part that is what a tool call returned, as long as its row has it."""

    place: int
    """Which of the new parts it is."""
    call_id: UUID
    """The id of the call's row."""
    text: str
    """What it returned, as JSON."""

    def digest(self) -> bytes:
        """Return the SHA-256 of what the row has, if it has this."""
        return sha256(str(json.loads(self.text)).encode()).digest()


@dataclass(frozen=True, slots=True)
class CutState:
    """A state as it is stored."""

    body: str
    """Its text, with references."""
    parts: Sequence[str]
    """The parts that are new with it, in the order of their numbers."""
    first_part: int
    """The number of the first of them."""
    size_bytes: int
    """The size of its whole text in UTF-8."""
    quotes: Sequence[Quote]
    """Those of the new parts that name a tool call."""

    def unquoted(self) -> list[str]:
        """Return the new parts with what the tools returned in them."""
        texts = list(self.parts)
        for quote in self.quotes:
            texts[quote.place] = quote.text
        return texts


class Parts:
    """The parts of a run's states, as one execution of it knows them; cuts the next state."""

    def __init__(self, count: int = 0) -> None:
        self._count = count
        self._numbers: dict[bytes, int] = {}
        self._sizes: dict[int, int] = {}
        self._new: list[str] = []
        self._made: list[bytes] = []
        self._first = count
        self._quotes: list[Quote] = []
        self._quotable: dict[bytes, UUID] = {}

    def may_quote(self, text: str, call_id: UUID) -> None:
        """Note that a tool call's row, of the id ``call_id``, has ``text`` as what it returned."""
        if len(text) >= _SHORTEST_QUOTE:
            self._quotable[_digest(dumps_readable(text).encode())] = call_id

    def quote(self, text: str, place: int) -> Quote | None:
        """Return a quote of ``text`` for ``place``, if a tool call's row has it."""
        if len(text) < _SHORTEST_QUOTE or not self._quotable:
            return None
        plain = dumps_readable(text)
        call = self._quotable.get(_digest(plain.encode()))
        return None if call is None else Quote(place, call, plain)

    def cut(self, state: Any) -> CutState:
        """Return a state, any JSON, cut into parts; those that are new count as stored.

        Raises:
            ValueError: for NaN and infinities, which JSON does not have; nothing was noted.
        """
        self._new, self._made, self._quotes = [], [], []
        self._first = self._count
        try:
            body = _text(self._cut(state, 0))
        except (ValueError, TypeError):
            self.forget_last()
            raise
        return CutState(body, self._new, self._first, self._size(body), self._quotes)

    def forget_last(self) -> None:
        """Take back what the last ``cut`` noted: its state was not stored."""
        for digest in self._made:
            del self._numbers[digest]
        self._new, self._made, self._count = [], [], self._first

    def whole(self, body: str, texts: Sequence[str], quotes: str = "{}") -> str:
        """Return a stored state's whole text; what it has of ``texts``, all the parts, is noted.

        ``quotes`` is what ``perdure.state_quotes`` gives: what tool calls returned, by their ids.

        Raises:
            LookupError: a part is missing.
        """
        known: dict[int, str] = {}
        said = json.loads(quotes)

        def quoted(call_id: str) -> str:
            if call_id not in said:
                raise LookupError(f"What tool call {call_id} returned is gone; a state names it.")
            # Escaped already, as the row has it.
            return json.dumps(said[call_id], ensure_ascii=False)

        def put_back(match: re.Match[str]) -> str:
            first = int(match[1])
            last = first if match[2] is None else int(match[2])
            return ",".join([part(number) for number in range(first, last + 1)])

        def part(number: int) -> str:
            text = known.get(number)
            if text is None:
                stored = texts[number]
                if stored.startswith(_QUOTE):
                    text = quoted(stored.removeprefix(_QUOTE))
                else:
                    text = _REFERENCE.sub(put_back, stored)
                known[number] = text
                encoded = text.encode()
                self._numbers[_digest(encoded)] = number
                self._sizes[number] = len(encoded)
            return text

        return _REFERENCE.sub(put_back, body)

    def _cut(self, value: Any, depth: int) -> int | str:
        """Return the number of a value's part, or its text, with references in it."""
        if not isinstance(value, str | dict | list | tuple):
            return dumps_readable(value)
        if depth < _WHERE_THEY_STAND and not isinstance(value, str):
            return self._inside(value, depth)
        plain = dumps_readable(value)
        if len(plain) < _SHORTEST:
            return plain
        if isinstance(value, str):
            return self._part(plain, partial(str, plain))
        return self._part(plain, partial(self._inside, value, depth))

    def _inside(self, value: dict[Any, Any] | Sequence[Any], depth: int) -> str:
        """Return the text of an object or a list, with references in it."""
        if not isinstance(value, dict):
            within = max(depth + 1, _WHERE_THEY_STAND)
            return f"[{self._row(value, _elements, partial(self._cut, depth=within))}]"
        members = list(value.items())
        if depth < _WHERE_THEY_STAND and len(members) < _MANY_MEMBERS:
            return f"{{{_joined([self._short_member(one, depth + 1) for one in members])}}}"
        return f"{{{self._row(members, _members, partial(self._member, depth=depth + 1))}}}"

    def _member(self, member: tuple[Any, Any], depth: int) -> str:
        key, value = member
        return f"{_name(key)}:{_text(self._cut(value, depth))}"

    def _short_member(self, member: tuple[Any, Any], depth: int) -> int | str:
        """Return a member as it is, or as a part where it is short and refers to none."""
        text = self._member(member, depth)
        if _SHORTEST_MEMBER <= len(text) < _SHORTEST and f'"{MARKER}:' not in text:
            return self._part(text, partial(str, text))
        return text

    def _row(
        self, row: Sequence[Any], plain: Callable[[Any], str], one: Callable[[Any], int | str]
    ) -> str:
        """Return what stands in a row with commas between, in groups as large as are full."""
        size = 1
        while size * _GROUP <= len(row):
            size *= _GROUP
        cut: list[int | str] = []
        at = 0
        while size > 1:
            while len(row) - at >= size:
                cut.append(self._group(row[at : at + size], plain, one))
                at += size
            size //= _GROUP
        return _joined([*cut, *map(one, row[at:])])

    def _group(
        self, row: Sequence[Any], plain: Callable[[Any], str], one: Callable[[Any], int | str]
    ) -> int | str:
        text = plain(row)
        if len(text) < _SHORTEST_MEMBER:
            return text
        return self._part(text, partial(self._within, row, plain, one))

    def _within(
        self, row: Sequence[Any], plain: Callable[[Any], str], one: Callable[[Any], int | str]
    ) -> str:
        size = len(row) // _GROUP
        if size == 1:
            return _joined([one(value) for value in row])
        groups = (row[at : at + size] for at in range(0, len(row), size))
        return _joined([self._group(group, plain, one) for group in groups])

    def _part(self, plain: str, inside: Callable[[], str]) -> int:
        """Return the number of the part that is ``plain`` when whole; ``inside`` if it is new."""
        encoded = plain.encode()
        digest = _digest(encoded)
        number = self._numbers.get(digest)
        if number is not None:
            return number
        text = inside()
        call = self._quotable.get(digest)
        if call is not None:
            self._quotes.append(Quote(len(self._new), call, plain))
            text = f"{_QUOTE}{call}"
        number = self._count
        self._count += 1
        self._new.append(text)
        self._made.append(digest)
        self._numbers[digest] = number
        self._sizes[number] = len(encoded)
        return number

    def _size(self, body: str) -> int:
        size = len(body.encode())
        for match in _REFERENCE.finditer(body):
            first = int(match[1])
            last = first if match[2] is None else int(match[2])
            size += sum(self._sizes[number] for number in range(first, last + 1))
            size += last - first - len(match[0].encode())
        return size


def _digest(encoded: bytes) -> bytes:
    return blake2b(encoded, digest_size=16).digest()


def _elements(values: Sequence[Any]) -> str:
    return dumps_readable(values)[1:-1]


def _members(members: Sequence[tuple[Any, Any]]) -> str:
    return dumps_readable(dict(members))[1:-1]


@lru_cache(maxsize=1024, typed=True)
def _name(key: Any) -> str:
    """Return a member's name as JSON writes it."""
    if not isinstance(key, str):
        [key] = json.loads(json.dumps({key: None}))
    return dumps_readable(key)


def _text(cut: int | str) -> str:
    return cut if isinstance(cut, str) else f'"{MARKER}:{cut}"'


def _joined(cut: Sequence[int | str]) -> str:
    """Return what was cut with commas between, references that follow one another as one."""
    texts: list[str] = []
    first = last = -1
    for one in [*cut, ""]:
        if isinstance(one, int) and one == last + 1 and first >= 0:
            last = one
            continue
        if first >= 0:
            texts.append(_text(first) if first == last else f'"{MARKER}:{first}-{last}"')
            first = -1
        if isinstance(one, int):
            first = last = one
        else:
            texts.append(one)
    return ",".join(texts[:-1])
