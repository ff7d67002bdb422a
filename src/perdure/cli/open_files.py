"""How many connections the process may have open at once."""

from __future__ import annotations

import contextlib

with contextlib.suppress(ImportError):  # not on Windows, which has no such limit
    import resource

_ENOUGH = 65_536


def allow_many_connections() -> None:
    """Raise the process's limit of open files as far as it may, where it is low.

    Many systems begin with 1,024, which as many readers of events use up: the server would take no
    connection more until some are gone.
    """
    with contextlib.suppress(NameError, ValueError, OSError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
