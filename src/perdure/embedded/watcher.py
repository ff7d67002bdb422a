"""The process that owns one embedded Postgres: makes it, keeps it running, stops it at the end.

It is started detached (see ``__main__``), so that it outlives whoever started it. What it shares
with the users of its server is listed in ``shared``.

Who wins when things die: the kernel frees the locks of a dead process, so nothing is stale for
longer than its owner lives. A server whose watcher was killed gets SIGINT from the kernel (Linux)
or is stopped by the next watcher (elsewhere); the users that are left start that one.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import IO, Any

from perdure.embedded.server import Failure, Server, choose_port, known_port
from perdure.embedded.shared import OTHER_WATCHER, STARTED, Orders, State, try_lock

_LOOK_SECONDS = 0.1


class _Terminated(Exception):
    """Somebody asked the watcher itself to end."""


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise _Terminated


def watch(orders: Orders, users: IO[Any]) -> None:
    """Run the server until its last user has gone. Raises ``Failure`` if it cannot be run."""
    home = Path(orders.home)
    server = Server(orders)
    server.clear_the_way(known_port(home))
    server.create()
    port = choose_port(home)
    try:
        server.start(port)
        State(port, ready=True).write(home)
        while not try_lock(users, fcntl.LOCK_EX):
            if not server.is_running():
                State(port).write(home)
                server.clear_the_way(port)
                # The same port again: the pools of all users know no other.
                server.start(port)
                State(port, ready=True).write(home)
            time.sleep(_LOOK_SECONDS)
    finally:
        State(port).write(home)
        server.stop()


def main(orders: Orders) -> int:
    """Become the watcher of ``orders.home`` in a child process, unless there is one.

    Returns ``STARTED`` (the lock is held, the child at work) or ``OTHER_WATCHER`` in the process
    that was called; the child does not return before its work is over.
    """
    home = Path(orders.home)
    lock = (home / "watcher.lock").open("a")
    # Others look whether a watcher lives by taking this lock for an instant.
    for _ in range(5):
        if try_lock(lock, fcntl.LOCK_EX):
            break
        time.sleep(0.01)
    else:
        return OTHER_WATCHER
    State().write(home)
    if os.fork():
        return STARTED
    # For people who wonder; nothing depends on it.
    lock.truncate(0)
    print(os.getpid(), file=lock, flush=True)
    for ignored in (signal.SIGHUP, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with (home / "users.lock").open("a") as users:
            watch(orders, users)
    except _Terminated:
        return 0
    except (Failure, OSError) as error:
        State(error=str(error)).write(home)
        return 1
    return 0
