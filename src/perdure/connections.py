"""Connections to Postgres: what they are opened with, and what is said when there is none."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row

from perdure.errors import ConfigurationError, UnavailableError

__all__ = ["Connection", "connect", "connection_options", "hang_up", "unreachable"]

Connection = AsyncConnection[DictRow]
"""A connection whose rows are dictionaries."""


def connection_options(url: str, application_name: str = "perdure") -> dict[str, Any]:
    """Return libpq parameters to use beside ``url``; what the URL sets itself is left to it.

    A peer that vanished is noticed within about half a minute, a server that is read-only (a
    standby, or a primary that was replaced) counts as away, sessions are on UTC, and
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
        "connect_timeout": 5,
        "target_session_attrs": "read-write",
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


def hang_up(conn: Connection) -> None:
    """End ``conn`` from this side: whoever waits for an answer on it gets an error at once.

    Cancelling the one who waits would ask the server first, which may be what does not answer.
    """
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as peer:
        peer.shutdown(socket.SHUT_RDWR)


def unreachable(error: psycopg.OperationalError) -> UnavailableError:
    """Return what to raise when the database could not be connected to: it says what libpq said."""
    reason = " ".join(str(error).split()).rstrip(".")
    return UnavailableError(
        f"The database did not answer: {reason}. Check DATABASE_URL and that Postgres is running."
    )
