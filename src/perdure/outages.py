"""Which errors mean that the database is away, busy or closing; the others blame what it was asked.

After one of these the same thing may be done again, later and on another connection. After any
other it would be refused again.
"""

from __future__ import annotations

import psycopg

from perdure.errors import LedgerUnavailable, UnavailableError

__all__ = ["in_words", "is_infrastructure"]

_CLASSES = frozenset(
    {
        "08",  # the connection was lost
        "53",  # disk or memory full, too many connections
        "57",  # shut down, crashed, starting up; a statement that took too long
        "58",  # the system under the database failed
    }
)
_STATES = frozenset(
    {
        "25006",  # the server, or the session, is read-only: another one was made the primary
        "25P03",  # the transaction was idle for too long
        "25P04",  # the transaction took too long
        "26000",  # a prepared statement is gone: somebody between has changed the session
        "40000",
        "40001",  # could not be serialized
        "40003",  # whether the statement was completed is not known
        "40P01",  # a deadlock
        "55P03",  # a lock was not to be had in time
    }
)


def is_infrastructure(error: BaseException | None) -> bool:
    """Return whether ``error`` is the database's trouble and not that of what it was asked.

    Errors without an SQLSTATE are libpq's and the pool's: no connection, a lost one.
    """
    if isinstance(error, UnavailableError | LedgerUnavailable):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate[:2] in _CLASSES or error.sqlstate in _STATES


def in_words(error: BaseException) -> str:
    """Return what ``error`` says in one line, for a log, with what it came from."""
    words = " ".join(str(error).split())
    cause = error.__cause__
    return words if cause is None else f"{words} ({' '.join(str(cause).split())})"
