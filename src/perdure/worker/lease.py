"""A worker's identity, and its word that it lives: an executor id, a lease and an advisory lock.

The lease is a row on the database's clock, renewed twice a second. The lock belongs to the session
that renews it, so it is free the moment the process is gone, however it died. An executor that is
silent for a moment and whose lock is free is dead (at once, if it ran on this host and its process
is not there any more); one that is silent for the whole lease is taken for dead although its
session still stands: it is paused, or its machine has vanished. Either is declared *lost*, once
and for ever, before anything is taken from it (recovery.py).

The process knows as much itself. ``held`` is true only while nobody can have declared it lost:
the lease counts from when the renewal was *sent*, by a clock that runs while the process is
paused, and ends at once when the session does. Between, nothing new is begun; it goes on if the
next renewal finds that nobody acted, and ends if somebody has.

All of that in a thread: a tool that holds up the event loop is slow, not dead, and must not take
the runs beside it along.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row

from perdure.db import connection_options, load_sql, uuid7

_SQL = load_sql("perdure.worker", "lease.sql")
_LOG = logging.getLogger(__name__)

LEASE_SECONDS = 6.0
SILENCE_SECONDS = 1.0
"""How long an executor whose lock is free has to be silent to be dead: time to connect again."""
RENEW_SECONDS = 0.5
_MARGIN_SECONDS = 1.0
"""Ours ends so much earlier: what is begun at its last moment has a moment to happen."""
_RETRY_SECONDS = 0.25
_STOP_SECONDS = 5.0
# A clock that goes on while the machine sleeps, where there is one.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def new_executor_id(tag: str | None = None) -> str:
    """Return an id no other executor has or had; it ends in ``tag``, which names its sessions."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid7().hex[-4:]}-{tag or new_tag()}"


def new_tag() -> str:
    """Return 12 characters that name the sessions of one process's executor."""
    return uuid7().hex[-12:]


def session_name(name: str, executor_id: str) -> str:
    """Return the ``application_name`` of a session of an executor, by which it can be ended."""
    return f"{name} {executor_id[-12:]}"


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class Lease:
    """Holds an executor id for this process; ``async with`` takes and releases it.

    ``on_silence`` is called on the event loop when another executor may be dead, ``on_lost`` when
    this one was declared lost: all it had has been taken from it.
    """

    def __init__(
        self,
        url: str,
        version: str,
        executor_id: str | None = None,
        *,
        on_silence: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.executor_id = executor_id or new_executor_id()
        self._version = version
        self._url = url
        self._on_silence = on_silence
        self._on_lost = on_lost
        self._valid_until = 0.0
        self._lost = False
        self._stopping = False
        self._awaited = False
        self._since: Any = None
        """From when this process can tell who is silent, on the database's clock."""
        self._gone: frozenset[str] = frozenset()
        self._host = socket.gethostname()
        self._wake_up, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._keep, name="perdure-lease", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether another executor declared this one dead: it will never hold again."""
        return self._lost

    @property
    def since(self) -> Any:
        """The moment (database clock) before which silence of others says nothing."""
        return self._since

    @property
    def gone(self) -> frozenset[str]:
        """Executors of this host whose processes are not there any more."""
        return self._gone

    def held(self) -> bool:
        """Whether nobody can have taken this executor's segments, as far as can be known here."""
        return time.clock_gettime(CLOCK) < self._valid_until

    @property
    def held_until(self) -> float:
        """Until when it is held, as far as is known now, by ``CLOCK`` of this machine."""
        return self._valid_until

    async def confirmed(self) -> None:
        """Wait until the lease is held again, or lost."""
        while not self.held() and not self._lost:
            self._renewed.clear()
            self._awaited = True
            if self.held() or self._lost:
                break
            await self._renewed.wait()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._renewed = asyncio.Event()
        # The first time in line: who cannot be let in at all should fail to start.
        self._conn: psycopg.Connection[dict[str, Any]] | None
        self._conn = await asyncio.to_thread(self._enter)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        self._wake_up.send(b"x")
        await asyncio.to_thread(self._thread.join, _STOP_SECONDS)
        self._wake_up.close()
        self._woken.close()

    def _enter(self) -> psycopg.Connection[dict[str, Any]]:
        """Connect, take the lock and write the row; returns the session that holds the lock."""
        options = connection_options(self._url, session_name("perdure-lease", self.executor_id))
        options |= {"connect_timeout": 5, "tcp_user_timeout": 5_000}
        conn = psycopg.connect(self._url, autocommit=True, row_factory=dict_row, **options)
        try:
            # What a crash of the server takes back only makes a renewal look older than it is.
            conn.execute("SET synchronous_commit = off")
            # A session of ours the server has not given up may still have it: that does as well.
            conn.execute(_SQL["lock"], {"id": self.executor_id})
            sent = time.clock_gettime(CLOCK)
            row = conn.execute(
                _SQL["enter"],
                {
                    "id": self.executor_id,
                    "host": self._host,
                    "pid": os.getpid(),
                    "version": self._version,
                    "lease": LEASE_SECONDS,
                },
            ).fetchone()
        except BaseException:
            conn.close()
            raise
        if row is None:
            self._lose()
            return conn
        # A process that has just begun trusts what is written, since the server is up. One that
        # was cut off gives the others time to come back as well.
        self._since = row["server_started_at" if self._since is None else "entered_at"]
        self._extend(sent)
        return conn

    def _keep(self) -> None:
        while not self._stopping and not self._lost:
            try:
                if self._conn is None:
                    self._conn = self._enter()
                self._renew(self._conn)
                if not self._lost:
                    self._pause(self._conn)
            except psycopg.Error as error:
                if self._valid_until:
                    _LOG.warning("Executor %s has lost its session: %s", self.executor_id, error)
                self._valid_until = 0.0
                self._close()
                select.select([self._woken], [], [], _RETRY_SECONDS)
        with contextlib.suppress(psycopg.Error):
            if self._conn is not None:
                self._conn.execute(_SQL["leave"], {"id": self.executor_id})
        self._close()

    def _close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _renew(self, conn: psycopg.Connection[dict[str, Any]]) -> None:
        sent = time.clock_gettime(CLOCK)
        row = conn.execute(
            _SQL["renew"],
            {
                "id": self.executor_id,
                "host": self._host,
                "lease": LEASE_SECONDS,
                "silence": SILENCE_SECONDS,
                "since": self._since,
            },
        ).fetchone()
        assert row is not None  # noqa: S101 - it selects from nothing
        if not row["held"]:
            self._lose()
            return
        self._extend(sent)
        neighbours = row["neighbours"] or {}
        self._gone = frozenset(id for id, pid in neighbours.items() if not _is_there(pid))
        if self._gone or row["somebody_is_silent"]:
            self._tell(self._on_silence)

    def _pause(self, conn: psycopg.Connection[dict[str, Any]]) -> None:
        """Wait for the next renewal, or the end of the session, or to be stopped."""
        session = conn.fileno()
        heard, _, _ = select.select([session, self._woken.fileno()], [], [], RENEW_SECONDS)
        if session in heard:
            # Nothing was asked: it is the server that ends the session.
            conn.pgconn.consume_input()

    def _extend(self, sent: float) -> None:
        self._valid_until = sent + LEASE_SECONDS - _MARGIN_SECONDS
        if self._awaited:
            self._awaited = False
            self._tell(self._renewed.set)

    def _lose(self) -> None:
        self._valid_until = 0.0
        self._lost = True
        _LOG.critical(
            "Executor %s was silent for too long and is taken for dead: its runs go on in another "
            "worker. It begins nothing more and ends.",
            self.executor_id,
        )
        self._tell(self._on_lost)
        self._tell(self._renewed.set)

    def _tell(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(callback)
