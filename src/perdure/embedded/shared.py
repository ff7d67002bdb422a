"""What a watcher and the users of its server share: files in the home directory, and locks.

``watcher.lock``  held exclusively while a watcher lives, so there is one at most; holds its pid
``users.lock``    each user holds it shared, and the kernel lets go for a user killed with -9;
                  a watcher that gets it exclusively knows that the last user has gone
``state.json``    ``{"port", "ready", "error"}``, replaced whole at each change
``port``          the port chosen first, kept for every later start
``password``      of the role ``perdure``, mode 0600, written before the cluster appears
``pgdata``        the cluster, mode 0700, made elsewhere and renamed into place
``postgres.log``  the server's log, begun anew with each watcher (``postgres.log.1`` before that)

Only the standard library is used here: the watcher has nothing else.
"""

from __future__ import annotations

import errno
import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

START_SECONDS = 60.0
"""How long a server may take to start: after a crash it repairs itself first."""

# What the first process says to the one that started it. The watcher itself is its child.
STARTED = 0
OTHER_WATCHER = 3


@dataclass(frozen=True)
class Orders:
    """Where to run what, and as whom."""

    home: str
    programs: str
    durable: bool
    # User and group to run Postgres as, where this process is root: Postgres refuses to be.
    user: tuple[int, int] | None

    def dumps(self) -> str:
        """Return the orders as the one argument a watcher takes."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Orders:
        """Read what ``dumps`` wrote."""
        given = json.loads(text)
        user = given.pop("user")
        return cls(**given, user=None if user is None else (user[0], user[1]))


@dataclass(frozen=True)
class State:
    """What users read: the server takes connections on ``port``, or why it does not."""

    port: int = 0
    ready: bool = False
    error: str = ""

    def write(self, home: Path) -> None:
        """Replace the state in ``home``."""
        new = home / "state.json.new"
        new.write_text(json.dumps(asdict(self)))
        new.replace(home / "state.json")

    @classmethod
    def read(cls, home: Path) -> State:
        """Return the state in ``home``; an empty one where there is none."""
        try:
            return cls(**json.loads((home / "state.json").read_text()))
        except FileNotFoundError:
            return cls()


def try_lock(file: IO[Any], how: int) -> bool:
    """Take a ``flock`` (``LOCK_SH`` or ``LOCK_EX``) if it can be had at once."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
