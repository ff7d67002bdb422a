"""An embedded server that somebody else runs: found, never started."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from perdure.embedded.reference import Embedded, embedded_at
from perdure.embedded.shared import State, try_lock
from perdure.errors import ConfigurationError


def has_data(home: Path) -> bool:
    """Whether there is a cluster in ``home``, running or not.

    Raises:
        ConfigurationError: the directory is not ours to look into.
    """
    try:
        return (home / "pgdata").exists()
    except OSError as error:
        raise _closed(home, error) from error


@contextmanager
def found(home: Path) -> Iterator[Embedded | None]:
    """Give the server of ``home`` if it runs, else None; it goes on at least for the block.

    Raises:
        ConfigurationError: the directory is not ours to look into.
    """
    with ExitStack() as stack:
        try:
            server = _share(home, stack)
        except FileNotFoundError:
            server = None
        except PermissionError as error:
            raise _closed(home, error) from error
        yield server


def _share(home: Path, stack: ExitStack) -> Embedded | None:
    """Take a share in the server until ``stack`` is closed, and return it if it runs."""
    # Opened to read: nothing is made where nothing is.
    users = stack.enter_context((home / "users.lock").open())
    with (home / "watcher.lock").open() as watcher:
        if try_lock(watcher, fcntl.LOCK_SH):
            return None
    # Not to be had while the server is being stopped.
    if not try_lock(users, fcntl.LOCK_SH):
        return None
    state = State.read(home)
    return embedded_at(home, state.port) if state.ready else None


def _closed(home: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The embedded Postgres in {home} cannot be looked at: {error.strerror}. "
        "Ask as the user who runs it, or set DATABASE_URL."
    )
