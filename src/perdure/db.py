"""Postgres: pools of connections, ids, and SQL kept in ``.sql`` files."""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from perdure.errors import ConfigurationError, UnavailableError

__all__ = [
    "Connection",
    "Pool",
    "Statements",
    "connect",
    "connection_options",
    "load_sql",
    "open_pool",
    "unreachable",
    "uuid7",
]

Connection = AsyncConnection[DictRow]
"""A connection whose rows are dictionaries."""
Pool = AsyncConnectionPool[Connection]


def connection_options(url: str, application_name: str = "perdure") -> dict[str, Any]:
    """Return libpq parameters to use beside ``url``; what the URL sets itself is left to it.

    A peer that vanished is noticed within about half a minute, sessions are on UTC, and
    ``application_name`` shows in ``pg_stat_activity``.

    Raises:
        ConfigurationError: the URL cannot be parsed.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(
            "The database URL cannot be parsed. It has to look like "
            "postgresql://user:password@host:5432/name."
        ) from error
    defaults: dict[str, Any] = {
        "application_name": application_name,
        "connect_timeout": 10,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    missing = {key: value for key, value in defaults.items() if key not in given}
    # Times leave the database in UTC whatever the server's own zone is.
    return missing | {"options": f"{given.get('options') or ''} -c timezone=UTC".strip()}


async def connect(url: str, *, application_name: str = "perdure") -> Connection:
    """Open one autocommit connection whose rows are dictionaries; the caller closes it.

    Raises:
        ConfigurationError: the URL cannot be parsed.
        psycopg.OperationalError: there is no server, or it refuses.
    """
    options = connection_options(url, application_name)
    return await Connection.connect(url, autocommit=True, row_factory=dict_row, **options)


async def open_pool(
    url: str,
    min_size: int = 1,
    max_size: int = 10,
    *,
    application_name: str = "perdure",
    check: bool = True,
    timeout: float = 10,
) -> Pool:
    """Open a pool of autocommit connections whose rows are dictionaries.

    It is the caller's to close (``async with await open_pool(…) as pool``). With ``check`` a
    connection whose server has ended it is not handed out, so that a restarted server is not
    noticed by its users. ``timeout`` (seconds) bounds the wait for the first ``min_size``
    connections and every later wait for a free one.

    Raises:
        ConfigurationError: the URL cannot be parsed.
        UnavailableError: no connection came about in time; the message says what Postgres said.
    """
    options = connection_options(url, application_name)
    pool: Pool = AsyncConnectionPool(
        url,
        connection_class=Connection,
        # Prepared at once: a pool hands its connections out in turn, and each one would see a
        # statement five times before its plan is kept.
        kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": 0, **options},
        min_size=min_size,
        max_size=max_size,
        timeout=timeout,
        check=_check if check else None,
        name=application_name,
        open=False,
    )
    try:
        await pool.open(wait=True, timeout=timeout)
    except PoolTimeout:
        await pool.close()
        # The pool does not say what went wrong; one connection more does.
        try:
            async with await connect(url, application_name=application_name):
                pass
        except psycopg.OperationalError as error:
            raise unreachable(error) from None
        raise UnavailableError(
            f"The database answers, but gave no {min_size} connection(s) within {timeout:g} s. "
            "Check its max_connections and its load."
        ) from None
    except BaseException:
        await pool.close()
        raise
    return pool


async def _check(conn: Connection) -> None:
    """Raise when the server has ended ``conn``; no round trip while it has not.

    A server that restarts or ends a session says so or hangs up, which makes the idle connection
    readable. Only then is it asked.
    """
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(conn)


def unreachable(error: psycopg.OperationalError) -> UnavailableError:
    """Return what to raise when the database could not be connected to: it says what libpq said."""
    reason = " ".join(str(error).split()).rstrip(".")
    return UnavailableError(
        f"The database did not answer: {reason}. Check DATABASE_URL and that Postgres is running."
    )


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
