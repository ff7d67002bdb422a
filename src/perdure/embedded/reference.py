"""References to an embedded server: while one process holds one, the server runs."""

from __future__ import annotations

import fcntl
import logging
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from perdure.embedded.programs import program_directory, server_user
from perdure.embedded.shared import (
    OTHER_WATCHER,
    START_SECONDS,
    STARTED,
    Orders,
    State,
    try_lock,
)
from perdure.errors import ConfigurationError, UnavailableError

__all__ = ["Embedded", "Reference", "embedded_at"]

_log = logging.getLogger(__name__)

# The server is given its own time to start, and a last one to stop before that.
_WAIT_SECONDS = START_SECONDS + 30
_LOOK_SECONDS = 0.01
_WATCHER = Path(__file__).with_name("__main__.py")


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running server: ``url`` names its database and holds the password."""

    home: Path
    port: int
    url: str = field(repr=False)


def embedded_at(home: Path, port: int) -> Embedded:
    """Return the server of ``home`` that listens on ``port``."""
    password = (home / "password").read_text()
    return Embedded(home, port, f"postgresql://perdure:{password}@127.0.0.1:{port}/perdure")


class Reference:
    """One share in the server of a home directory.

    The share is a lock of the kernel's, which a process cannot leave behind however it dies.
    """

    def __init__(self, home: Path, *, durable: bool) -> None:
        """Take a share and start the server if need be; blocks until it takes connections.

        Raises:
            ConfigurationError: the directory or the programs cannot be used.
            UnavailableError: the server did not start; the message says why.
        """
        self._home = home
        self._durable = durable
        self._released = threading.Event()
        deadline = time.monotonic() + _WAIT_SECONDS
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._users = (home / "users.lock").open("a")
        except OSError as error:
            raise ConfigurationError(
                f"The embedded Postgres cannot use {home}: {error.strerror}. "
                "Set PERDURE_HOME to a directory of your own."
            ) from error
        try:
            # Not to be had while a watcher is stopping the server.
            while not try_lock(self._users, fcntl.LOCK_SH):
                self._pause(deadline)
            self.server = self._ensure(deadline)
        except BaseException:
            self._users.close()
            raise
        threading.Thread(target=self._guard, name="perdure-embedded", daemon=True).start()

    def release(self) -> None:
        """Give the share back; the server stops soon after the last one."""
        self._released.set()
        self._users.close()

    def _ensure(self, deadline: float) -> Embedded:
        """See to it that a watcher lives and its server takes connections."""
        started = False
        while True:
            if self._watcher_lives():
                state = State.read(self._home)
                if state.ready:
                    return embedded_at(self._home, state.port)
            elif started and (error := State.read(self._home).error):
                raise UnavailableError(
                    f"The embedded Postgres in {self._home} does not run: {error} "
                    "Mend that, choose another PERDURE_HOME, or set DATABASE_URL."
                )
            else:
                started = self._start_watcher()
            self._pause(deadline)

    def _start_watcher(self) -> bool:
        user = server_user(self._home)
        orders = Orders(
            home=str(self._home),
            programs=str(program_directory(user)),
            durable=self._durable,
            user=user,
        )
        done = subprocess.run(
            [sys.executable, "-I", "-S", _WATCHER, orders.dumps()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            check=False,
            cwd="/",
        )
        if done.returncode not in (STARTED, OTHER_WATCHER):
            raise UnavailableError(
                f"The watcher of the embedded Postgres in {self._home} ended with exit code "
                f"{done.returncode}. Check that the directory is yours and has room."
            )
        return done.returncode == STARTED

    def _watcher_lives(self) -> bool:
        with (self._home / "watcher.lock").open("a") as lock:
            return not try_lock(lock, fcntl.LOCK_SH)

    def _pause(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"The embedded Postgres in {self._home} did not start within "
                f"{_WAIT_SECONDS:g} s. Its log is {self._home / 'postgres.log'}."
            )
        time.sleep(_LOOK_SECONDS)

    def _guard(self) -> None:
        """Start another watcher when the living one is killed, as long as the share is held."""
        failures = 0
        while not self._released.is_set():
            with (self._home / "watcher.lock").open("a") as lock:
                # Had when the watcher ends, by kill -9 or because the last user has gone.
                fcntl.flock(lock, fcntl.LOCK_SH)
            if self._released.is_set():
                return
            try:
                self._ensure(time.monotonic() + _WAIT_SECONDS)
                failures = 0
            except (ConfigurationError, UnavailableError, OSError) as error:
                failures += 1
                _log.error("%s", error)
                self._released.wait(min(30, 2**failures))
