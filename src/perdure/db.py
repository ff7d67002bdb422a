"""Postgres: connections and pools of them, ids, and SQL kept in ``.sql`` files."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib import resources
from uuid import UUID

from perdure.connections import Connection, connect, connection_options, unreachable
from perdure.outages import in_words, is_infrastructure
from perdure.pool import Pool, open_pool

__all__ = [
    "Connection",
    "Pool",
    "Statements",
    "connect",
    "connection_options",
    "first_id",
    "in_words",
    "is_infrastructure",
    "load_sql",
    "open_pool",
    "unreachable",
    "uuid7",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BYTES = 6
"""Random bytes taken at a time: as many as the longest random part of an id needs."""


class _Uuid7:
    """RFC 9562, method 1 of section 6.2: a counter below the milliseconds, random bits below it.

    74 bits follow the 48 of the time: 42 of counter, which begins at a random place in its lower
    half each millisecond, and 32 random ones. Values of one process only rise, also when the clock
    steps back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millis = 0
        self._counter = 0
        self._random = b""

    def __call__(self) -> UUID:
        now = time.time_ns() // 1_000_000
        with self._lock:
            if now > self._millis:
                self._millis = now
                self._counter = self._bits(41)
            else:
                self._counter += 1
                if self._counter >> 42:
                    self._millis += 1
                    self._counter = self._bits(41)
            millis, counter, tail = self._millis, self._counter, self._bits(32)
        value = (millis & (1 << 48) - 1) << 80
        value |= 0x7 << 76 | (counter >> 30) << 64
        value |= 0b10 << 62 | (counter & (1 << 30) - 1) << 32 | tail
        return UUID(int=value)

    def _bits(self, count: int) -> int:
        # Asked of the system a thousand bytes at a time: each asking is a system call.
        if len(self._random) < _BYTES:
            self._random = os.urandom(1024)
        taken, self._random = self._random[:_BYTES], self._random[_BYTES:]
        return int.from_bytes(taken) >> (8 * _BYTES - count)


_next_uuid7 = _Uuid7()


def _new_generator() -> None:
    global _next_uuid7
    _next_uuid7 = _Uuid7()


# A forked child would go on from its parent's counter.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_generator)


def uuid7() -> UUID:
    """Return a new UUIDv7; within one process each is greater than the one before."""
    return _next_uuid7()


def first_id(moment: datetime, *, later: timedelta = timedelta()) -> UUID:
    """Return the least UUIDv7 of an aware ``moment``, or so much ``later``; of any moment there is.

    What is given afterwards is greater, as far as the clocks agree of those who give ids.
    """
    millis = (moment - _EPOCH + later) // timedelta(milliseconds=1)
    return UUID(int=min(max(millis, 0), (1 << 48) - 1) << 80 | 0x7 << 76 | 0b10 << 62)


_NAME = re.compile(r"^--\s*name:\s*(?P<name>[a-z][a-z0-9_]*)\s*$")


class Statements(Mapping[str, str]):
    """The named statements of one ``.sql`` file.

    Bind them where the module is read (``_INSERT = load_sql(…)["insert"]``) and a misspelt name
    fails at import.
    """

    def __init__(self, source: str, statements: Mapping[str, str]) -> None:
        self._source = source
        self._statements = dict(statements)

    def __getitem__(self, name: str) -> str:
        try:
            return self._statements[name]
        except KeyError:
            known = ", ".join(sorted(self._statements))
            raise KeyError(
                f"{self._source} has no statement named {name!r}; it has {known}."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


def load_sql(package: str, filename: str) -> Statements:
    """Read ``filename`` from ``package``: blocks of SQL, each headed ``-- name: lower_case``.

    Placeholders are psycopg's ``%(name)s``. Lines that are only a comment are dropped, so that a
    percent sign in one does no harm.

    Raises:
        LookupError: there is no such file.
        ValueError: the file has SQL before the first name, an empty block or a name twice.
    """
    source = f"{package}/{filename}"
    try:
        text = resources.files(package).joinpath(filename).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise LookupError(f"There is no {source}; SQL files travel with their package.") from None
    return Statements(source, _parse(source, text))


def _parse(source: str, text: str) -> dict[str, str]:
    blocks: dict[str, list[str]] = {}
    block: list[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if match := _NAME.match(line):
            if match["name"] in blocks:
                raise ValueError(f"{source}:{number}: {match['name']!r} is there twice.")
            block = blocks[match["name"]] = []
        elif line.strip() and not line.lstrip().startswith("--"):
            if block is None:
                raise ValueError(f"{source}:{number}: SQL before the first `-- name:` line.")
            block.append(line)
    statements = {name: "\n".join(lines).strip().rstrip(";") for name, lines in blocks.items()}
    if empty := [name for name, statement in statements.items() if not statement]:
        raise ValueError(f"{source}: nothing stands under {', '.join(empty)}.")
    return statements
